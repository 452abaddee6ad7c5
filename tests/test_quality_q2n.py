"""Q2n: a dense hypercomplex product as oracle, the laws, blocks and masks."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from crossdiff_cli.geometry.window import Window
from crossdiff_cli.quality.q2n import Q2n, product_signs
from crossdiff_cli.quality.windows import inner_blocks


def conjugate(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x[:1], -x[1:]])


def product(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Cayley-Dickson product of two hypercomplex numbers (parts, ...), by the recursion of its definition."""
    if len(x) == 1:
        return x * y
    half = len(x) // 2
    a, b, c, d = x[:half], x[half:], y[:half], y[half:]
    first = product(a, c) - product(conjugate(d), b)
    return np.concatenate([first, product(d, a) + product(b, conjugate(c))])


def dense_q2n(fused: np.ndarray, reference: np.ndarray) -> float:
    """Mean over 32 x 32 blocks, pixel by pixel as the papers write it; size a multiple of 32."""
    bands = len(reference)
    parts = 2 ** math.ceil(math.log2(bands))
    values = []
    for r in range(0, reference.shape[1], 32):
        for c in range(0, reference.shape[2], 32):
            x, y = np.ones((parts, 1024)), np.ones((parts, 1024))
            for b in range(bands):
                block = reference[b, r : r + 32, c : c + 32]
                mean, deviation = block.mean(), block.std(ddof=1)
                y[b] = ((block - mean) / deviation + 1).ravel()
                x[b] = ((fused[b, r : r + 32, c : c + 32] - mean) / deviation + 1).ravel()
            n = 1024 / 1023
            mean_x, mean_y = x.mean(1), y.mean(1)
            power_x, power_y = (mean_x**2).sum(), (mean_y**2).sum()
            spread = n * ((x**2).sum(0).mean() - power_x + (y**2).sum(0).mean() - power_y)
            cross = n * (product(x, conjugate(y)).mean(1) - product(mean_x, conjugate(mean_y)))
            luminance = 2 * math.sqrt(power_x * power_y) / (power_x + power_y)
            values.append(2 * np.linalg.norm(cross) / spread * luminance)
    return float(np.mean(values))


def images(bands: int, rows: int = 96, columns: int = 64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(bands)
    mix = torch.rand(bands, bands, generator=generator, dtype=torch.float64)
    noise = torch.randn(2, bands, rows, columns, generator=generator, dtype=torch.float64)
    reference = 20.0 + torch.einsum("ij,jrc->irc", mix, noise[0])
    return 0.9 * reference + 1.0 + 0.4 * noise[1], reference


def value(fused: Tensor, reference: Tensor, mask: Tensor | None = None) -> float:
    metric = Q2n()
    metric.update(fused, reference, torch.ones(fused.shape[1:], dtype=torch.bool) if mask is None else mask)
    return metric.compute()


@pytest.mark.parametrize("parts", [1, 2, 4, 8, 16])
def test_units_multiply_as_cayley_and_dickson_say(parts: int) -> None:
    units = np.eye(parts)
    for i in range(parts):
        for j in range(parts):
            assert np.array_equal(product(units[i], units[j]), product_signs(parts)[i, j].item() * units[i ^ j])


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 5, 8, 13])
def test_agrees_with_the_dense_product(bands: int) -> None:
    fused, reference = images(bands)
    assert value(fused, reference) == pytest.approx(dense_q2n(fused.numpy(), reference.numpy()), rel=1e-9)


@pytest.mark.parametrize("bands", [1, 3, 4, 8])
def test_identical_images_score_one(bands: int) -> None:
    _, reference = images(bands)
    assert value(reference, reference) == pytest.approx(1.0, abs=1e-12)


def test_falls_with_noise_and_with_blur() -> None:
    fused, reference = images(4)
    noise = fused - reference
    by_noise = [value(reference + k * noise, reference) for k in (0.0, 0.3, 1.0, 3.0)]
    blurred = [reference]
    for _ in range(3):
        blurred.append((blurred[-1] + blurred[-1].roll(1, 2) + blurred[-1].roll(1, 1)) / 3)
    by_blur = [value(image, reference) for image in blurred]
    for values in (by_noise, by_blur):
        assert values == sorted(values, reverse=True) and len(set(values)) == 4


def test_a_gain_and_an_offset_common_to_both_change_nothing() -> None:
    fused, reference = images(4)
    gain = torch.tensor([0.01, 3.0, 100.0, 7.0], dtype=torch.float64)[:, None, None]
    assert value(gain * fused + 50, gain * reference + 50) == pytest.approx(value(fused, reference), rel=1e-9)


def test_shuffled_bands_and_flat_blocks() -> None:
    fused, reference = images(4)
    assert value(reference.flip(0), reference) < 0.9
    reference[2], fused[2] = 5.0, 5.0
    assert value(reference, reference) == pytest.approx(1.0, abs=1e-12)
    half = value(0.5 * reference, reference)
    assert 0 < half < 1
    assert value(500.0 * reference, 1000.0 * reference) == pytest.approx(half, rel=1e-9)
    flat = torch.full((4, 32, 32), 3.0)
    assert value(flat, flat) == 1.0


def test_masked_pixels_are_never_read_and_poor_blocks_skipped() -> None:
    fused, reference = images(4, 64, 64)
    mask = torch.ones(64, 64, dtype=torch.bool)
    mask[:, 32:] = torch.rand(64, 32, generator=torch.Generator().manual_seed(0)) < 0.3
    fused[:, ~mask] = math.nan
    left = value(fused[:, :, :32], reference[:, :, :32])
    assert value(fused, reference, mask) == pytest.approx(left, rel=1e-12)
    mask[:, 32:48], mask[:, 48:] = True, False
    fused[:, mask] = reference[:, mask]
    assert value(fused, reference, mask) == pytest.approx(1.0, abs=1e-12)
    assert math.isnan(value(fused, reference, torch.zeros_like(mask)))


def test_an_edge_block_counts_when_half_of_it_is_there() -> None:
    fused, reference = images(3, 32, 64)
    whole = value(fused[:, :, :32], reference[:, :, :32])
    assert value(fused[:, :, :47], reference[:, :, :47]) == pytest.approx(whole, rel=1e-12)
    assert value(fused[:, :, :48], reference[:, :, :48]) != pytest.approx(whole, rel=1e-6)


def test_inner_leaves_the_border_blocks_out() -> None:
    fused, reference = images(3, 128, 128)
    metric, middle = Q2n(), Q2n()
    mask = torch.ones(128, 128, dtype=torch.bool)
    for row in (0, 64):
        window = Window(row, 0, 64, 128)
        part = window.within(Window(0, 0, 128, 128))
        metric.update(fused[:, *part], reference[:, *part], mask[part], inner_blocks(window, (128, 128)))
    core = slice(32, 96)
    middle.update(fused[:, core, core], reference[:, core, core], mask[core, core])
    assert metric.compute(inner=True) == pytest.approx(middle.compute(), rel=1e-12)
    assert metric.compute() == pytest.approx(value(fused, reference), rel=1e-12)
