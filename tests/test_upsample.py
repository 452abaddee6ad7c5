"""Bilinear interpolation to twice the size, against PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F

from crossdiff_cli.model.upsample import upsample2


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(1, 3, 7, 5), (2, 1, 4, 9), (1, 4, 1, 6), (1, 5, 3, 1)])
@pytest.mark.parametrize("gradient", [False, True])
def test_it_is_bilinear(shape, layout, gradient):
    image = torch.randn(shape, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=layout)
    wanted = F.interpolate(image, scale_factor=2, mode="bilinear", align_corners=False)
    with torch.set_grad_enabled(gradient):
        assert torch.allclose(upsample2(image), wanted, atol=1e-6)


def test_gradients_pass_through():
    image = torch.randn(1, 2, 3, 3, requires_grad=True, dtype=torch.float64)
    assert torch.autograd.gradcheck(upsample2, image)


def test_views_and_bfloat16_keep_their_type():
    """A part of a larger image, as strips are."""
    image = torch.randn(1, 4, 12, 10).to(torch.bfloat16)[:, 1:3, 2:8, 3:9]
    with torch.no_grad():
        found = upsample2(image)
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.float(), F.interpolate(image.float(), scale_factor=2, mode="bilinear"), atol=0.05)
