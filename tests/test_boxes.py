"""Sums over boxes, against convolutions with a box of ones."""

import pytest
import torch
import torch.nn.functional as F

from crossdiff_cli.imaging.filters import box_sum


@pytest.mark.parametrize("radius", [0, 1, 2, 3, 4, 7])
@pytest.mark.parametrize("shape", [(12, 31), (3, 5)])
def test_a_box_is_summed_with_zeros_beyond_the_border(radius, shape):
    image = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    side = 2 * radius + 1
    expected = F.conv2d(image, image.new_ones(3, 1, side, side), padding=radius, groups=3)
    assert torch.allclose(box_sum(image, radius), expected, atol=1e-12)


def test_whole_numbers_are_summed_exactly():
    ones = torch.ones(1, 1, 20, 20)
    assert box_sum(ones, 3)[0, 0, 10, 10] == 49
    assert box_sum(ones, 3)[0, 0, 0, 0] == 16
