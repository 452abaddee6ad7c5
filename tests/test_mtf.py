import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from crossdiff_cli.imaging.resample import degrade, expand, low_pass, mtf_kernel, mtf_sigma, span

RATIOS = [2.0, 3.0, 4.0, 6.0, 3.9, 1.994]


@pytest.mark.parametrize("ratio", [2.0, 4.0])
@pytest.mark.parametrize("gain", [0.11, 0.23, 0.35])
def test_kernel_has_its_gain_at_the_nyquist_frequency(ratio, gain):
    kernel = mtf_kernel(gain, ratio).numpy()
    x = np.arange(len(kernel)) - len(kernel) // 2
    response = (kernel * np.cos(2 * math.pi * x / (2 * ratio))).sum()
    assert response == pytest.approx(gain, abs=2e-3)
    assert kernel.sum() == pytest.approx(1)


@pytest.mark.parametrize("gain", [0.0, 1.0, -0.2, 1.5])
def test_impossible_gain_is_refused(gain):
    with pytest.raises(ValueError, match="between 0 and 1"):
        mtf_sigma(gain, 4)


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("offset", [0.0, 0.37, -1.2])
def test_a_flat_scene_stays_flat(ratio, offset):
    flat = torch.full((1, 2, 60, 70), 7.25)
    small = degrade(flat, (12, 14), (ratio, ratio), (offset, offset), [0.3, 0.2])
    assert torch.allclose(small, torch.full_like(small, 7.25), atol=1e-5)
    large = expand(small, (60, 70), (ratio, ratio), (offset, offset))
    assert torch.allclose(large, flat, atol=1e-5)


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("offset", [0.0, 0.37, -1.2])
def test_a_ramp_is_degraded_and_expanded_unshifted(ratio, offset):
    size, count = int(40 * ratio), 40
    ramp = torch.arange(size, dtype=torch.float32).expand(1, 1, 8, size)
    centres = offset + (torch.arange(count) + 0.5) * ratio - 0.5
    small = degrade(ramp, (4, count), (2.0, ratio), (0.0, offset), [0.25])
    assert torch.allclose(small[0, 0, 1, 8:-8], centres[8:-8], atol=1e-3)
    back = expand(centres.expand(1, 1, 4, count).float(), (8, size), (2.0, ratio), (0.0, offset))
    margin = math.ceil(5 * ratio)
    assert torch.allclose(back[0, 0, 2, margin:-margin], ramp[0, 0, 0, margin:-margin], atol=1e-3)


def test_degrade_agrees_with_scipy_gaussian_at_aligned_pixels():
    image = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 1, 81, 81))).float()
    blurred = ndimage.gaussian_filter(image[0, 0].double().numpy(), mtf_sigma(0.3, 3), truncate=6, mode="nearest")
    small = degrade(image, (27, 27), (3.0, 3.0), (0.0, 0.0), [0.3])
    assert np.allclose(small[0, 0, 4:-4, 4:-4], blurred[1::3, 1::3][4:-4, 4:-4], atol=2e-3)


def test_low_pass_agrees_with_scipy_gaussian():
    image = torch.from_numpy(np.random.default_rng(1).standard_normal((1, 2, 50, 40)))
    out = low_pass(image, [0.3, 0.2], (4.0, 4.0))
    for band, gain in enumerate([0.3, 0.2]):
        wanted = ndimage.gaussian_filter(image[0, band].numpy(), mtf_sigma(gain, 4), truncate=6, mode="nearest")
        assert np.allclose(out[0, band], wanted, atol=1e-3)


def test_degrade_of_expand_of_a_smooth_ms_gives_it_back():
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    ms = (torch.sin(x / 6) + torch.cos(y / 7))[None, None]
    large = expand(ms, (128, 128), (4.0, 4.0), (0.0, 0.0))
    back = degrade(large, (32, 32), (4.0, 4.0), (0.0, 0.0), [0.3])
    assert (back - ms)[..., 4:-4, 4:-4].abs().max() < 0.06


@pytest.mark.parametrize("bands", [[0], [1, 2], [0, 1, 2, 3], [0, 2], [2, 1], [3, 1, 2]])
def test_bands_as_an_index_pick_those_bands(bands):
    image = torch.randn(1, 4, 3, 3)
    assert torch.equal(image[:, span(bands)], image[:, bands])
    apart = image[:, span(bands)].untyped_storage().data_ptr() != image.untyped_storage().data_ptr()
    assert apart == (bands in ([0, 2], [2, 1], [3, 1, 2])), "a copy where a view would do, or the reverse"


def test_parts_are_put_together_alike_with_and_without_gradients():
    """From several parts of more rows than one has, in both directions, bands of other MTFs between each other."""
    image, ms = torch.randn(2, 3, 640, 600), torch.randn(2, 3, 150, 160)
    gains = [0.3, 0.2, 0.3]
    shapes = ((160, 150), (4.0, 4.0), (0.3, -0.2)), ((640, 600), (4.0, 4.0), (0.3, -0.2))
    degraded, expanded = degrade(image, *shapes[0], gains), expand(ms, *shapes[1])
    with torch.inference_mode():
        assert torch.equal(degrade(image, *shapes[0], gains), degraded)
        assert torch.equal(expand(ms, *shapes[1]), expanded)
    alone = [degrade(image[:, [band]], *shapes[0], [gains[band]]) for band in range(3)]
    assert torch.allclose(degraded, torch.cat(alone, dim=1), atol=1e-6)
