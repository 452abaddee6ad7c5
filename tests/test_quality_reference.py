"""Metrics with a reference: torchmetrics and closed forms as oracles, the laws, masks, feeding window by window."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics.functional.image import (
    error_relative_global_dimensionless_synthesis,
    peak_signal_noise_ratio,
    spatial_correlation_coefficient,
    spectral_angle_mapper,
    structural_similarity_index_measure,
)

from crossdiff_cli.quality import overshoot
from crossdiff_cli.quality.ergas import Ergas
from crossdiff_cli.quality.overshoot import Overshoot
from crossdiff_cli.quality.psnr import Psnr
from crossdiff_cli.quality.sam import Sam
from crossdiff_cli.quality.scc import SUPPORT, Scc
from crossdiff_cli.quality.ssim import SIZE, Ssim

Metric = Sam | Ergas | Psnr | Ssim | Scc | Overshoot
METRICS: dict[str, Callable[[], Metric]] = {
    "sam": Sam,
    "ergas": lambda: Ergas((4.0, 4.0)),
    "psnr": lambda: Psnr(2.0),
    "ssim": lambda: Ssim(2.0),
    "scc": Scc,
    "overshoot": Overshoot,
}
IDENTICAL = {"sam": 0.0, "ergas": 0.0, "psnr": math.inf, "ssim": 1.0, "scc": 1.0, "overshoot": 0.0}
OVERLAP = {"sam": 0, "ergas": 0, "psnr": 0, "ssim": SIZE - 1, "scc": SUPPORT - 1, "overshoot": overshoot.SUPPORT - 1}


def images(bands: int = 4, rows: int = 61, columns: int = 47) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    reference = 1.0 + torch.rand(bands, rows, columns, generator=generator, dtype=torch.float64)
    return reference + 0.2 * torch.randn(reference.shape, generator=generator, dtype=torch.float64), reference


def value(name: str, fused: Tensor, reference: Tensor, mask: Tensor | None = None) -> float:
    metric = METRICS[name]()
    metric.update(fused, reference, torch.ones(fused.shape[1:], dtype=torch.bool) if mask is None else mask)
    return metric.compute()


def test_sam_ergas_psnr_ssim_agree_with_torchmetrics() -> None:
    fused, reference = images()
    x, y = fused[None], reference[None]
    assert value("sam", fused, reference) == pytest.approx(math.degrees(spectral_angle_mapper(x, y)), rel=1e-6)
    ergas = error_relative_global_dimensionless_synthesis(x, y, ratio=4)
    assert value("ergas", fused, reference) == pytest.approx(float(ergas), rel=1e-6)
    assert value("psnr", fused, reference) == pytest.approx(float(peak_signal_noise_ratio(x, y, 2.0)), rel=1e-6)
    # torchmetrics mirrors the border; the windows that lie inside the image are ours.
    _, ssim = structural_similarity_index_measure(x, y, data_range=2.0, return_full_image=True)
    assert value("ssim", fused, reference) == pytest.approx(float(ssim[..., 5:-5, 5:-5].mean()), rel=1e-6)


def test_scc_agrees_with_torchmetrics() -> None:
    # torchmetrics also averages the windows that hang over the border: a flat border makes them zero, to be taken out.
    fused, reference = (torch.full((3, 64, 64), 1.5, dtype=torch.float64) for _ in range(2))
    fused[:, 16:48, 16:48], reference[:, 16:48, 16:48] = images(3, 32, 32)
    windows = (
        32 + 2 + 7
    ) ** 2  # 32 rough pixels, one more on each side in the Laplacian, all 8-windows that touch them
    theirs = float(spatial_correlation_coefficient(fused[None], reference[None])) * 64 * 64 / windows
    assert value("scc", fused, reference) == pytest.approx(theirs, rel=1e-6)


def test_overshoot_is_the_mean_distance_outside_the_range_nearby() -> None:
    fused, reference = images(2, 9, 11)
    reference[1] = 5.0  # a constant band has no deviation to be measured by
    mask = torch.ones(9, 11, dtype=torch.bool)
    mask[4, 5] = False
    outside, seen = [], []
    for row in range(1, 8):
        for col in range(1, 10):
            if mask[row - 1 : row + 2, col - 1 : col + 2].all():
                near = reference[0, row - 1 : row + 2, col - 1 : col + 2]
                outside.append(max(0.0, float(fused[0, row, col] - near.max()), float(near.min() - fused[0, row, col])))
                seen.append(float(reference[0, row, col]))
    expected = 100 * np.mean(outside) / np.std(seen)
    assert expected > 1
    assert value("overshoot", fused, reference, mask) == pytest.approx(expected, rel=1e-9)


def test_scc_is_the_mean_of_the_local_correlations() -> None:
    fused, reference = images(2, 20, 17)
    laplacians = []
    for image in (fused.numpy(), reference.numpy()):
        out = np.zeros((2, 18, 15))
        for r in range(18):
            for c in range(15):
                out[:, r, c] = 9 * image[:, r + 1, c + 1] - image[:, r : r + 3, c : c + 3].sum((1, 2))
        laplacians.append(out)
    x, y = laplacians
    each = [
        np.corrcoef(x[b, r : r + 8, c : c + 8].ravel(), y[b, r : r + 8, c : c + 8].ravel())[0, 1]
        for b in range(2)
        for r in range(11)
        for c in range(8)
    ]
    assert value("scc", fused, reference) == pytest.approx(np.mean(each), rel=1e-9)


def test_closed_forms() -> None:
    ones = torch.ones(2, 12, 12)
    tilted = ones.clone()
    tilted[1] = 0.0
    assert value("sam", tilted, ones) == pytest.approx(45.0, rel=1e-12)
    assert value("ergas", 1.1 * ones.double(), ones) == pytest.approx(100 / 4 * 0.1, rel=1e-12)
    assert value("psnr", ones + 0.5, ones) == pytest.approx(10 * math.log10(2.0**2 / 0.5**2), rel=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_identical_images_are_perfect(name: str) -> None:
    _, reference = images()
    assert value(name, reference, reference) == pytest.approx(IDENTICAL[name], abs=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_more_noise_is_worse(name: str) -> None:
    fused, reference = images()
    better_is_less = name in ("sam", "ergas", "overshoot")
    values = [value(name, reference + k * (fused - reference), reference) for k in (0.1, 0.5, 1.0, 2.0, 4.0)]
    assert values == sorted(values, reverse=not better_is_less)
    assert len(set(values)) == len(values)


@pytest.mark.parametrize("name", ["sam", "ergas", "scc", "overshoot"])
def test_a_common_gain_changes_nothing(name: str) -> None:
    fused, reference = images()
    assert value(name, 37.0 * fused, 37.0 * reference) == pytest.approx(value(name, fused, reference), rel=1e-9)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("size", [7, 16, 32])
def test_the_same_value_window_by_window(name: str, size: int) -> None:
    fused, reference = images()
    mask = torch.ones(61, 47, dtype=torch.bool)
    mask[10:14, 20:30] = False
    metric, tail = METRICS[name](), OVERLAP[name]
    for row in range(0, 61, size):
        for column in range(0, 47, size):
            part = (slice(row, row + size + tail), slice(column, column + size + tail))
            metric.update(fused[:, *part], reference[:, *part], mask[part])
    assert metric.compute() == pytest.approx(value(name, fused, reference, mask), rel=1e-11)


@pytest.mark.parametrize("name", METRICS)
def test_masked_pixels_are_never_read(name: str) -> None:
    fused, reference = images()
    mask = torch.ones(61, 47, dtype=torch.bool)
    mask[:, 30:] = False
    fused[:, :, 30:], reference[:, :, 30:] = math.nan, 1e9
    cut = value(name, fused[:, :, :30], reference[:, :, :30])
    assert value(name, fused, reference, mask) == pytest.approx(cut, rel=1e-11)
    assert math.isnan(value(name, fused, reference, torch.zeros_like(mask)))


def test_pixels_without_a_spectrum_have_no_angle() -> None:
    fused, reference = images(3, 8, 8)
    with_black = torch.cat([torch.zeros(3, 8, 1, dtype=torch.float64), reference], dim=2)
    wider = torch.cat([torch.ones(3, 8, 1, dtype=torch.float64), fused], dim=2)
    assert value("sam", wider, with_black) == pytest.approx(value("sam", fused, reference), rel=1e-12)
