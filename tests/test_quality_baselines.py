"""Baselines: closed forms, a dense re-derivation of each method, its invariances and its masks."""

import numpy as np
import pytest
import torch
from torch import Tensor

from crossdiff_cli.imaging.resample import degrade, expand, low_pass
from crossdiff_cli.quality.assess import assess_arrays
from crossdiff_cli.quality.baselines import BASELINES

GAINS = (0.34, 0.32, 0.22)
RATIO, OFFSET = (4.0, 4.0), (0.0, 0.0)


def scene(size: int = 128) -> tuple[Tensor, Tensor, Tensor]:
    """Truth (3 bands), PAN and MS: smooth fields with detail that the bands share in part."""
    generator = torch.Generator().manual_seed(11)
    coarse = torch.randn(1, 4, size // 8, size // 8, generator=generator, dtype=torch.float64)
    fields = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")[0]
    detail = torch.randn(1, size, size, generator=generator, dtype=torch.float64)
    truth = 400 + 60 * fields[:3] + torch.tensor([30.0, 45.0, 15.0])[:, None, None] * (fields[3:] + 0.7 * detail)
    weights = torch.tensor([0.3, 0.5, 0.2], dtype=torch.float64)
    pan = 1.5 * torch.einsum("b,brc->rc", weights, truth)[None] + 40
    return truth, pan, degrade(truth[None], (size // 4, size // 4), RATIO, OFFSET, GAINS)[0]


def dense(name: str, pan: Tensor, ms: Tensor) -> np.ndarray:
    """The method in NumPy, written as in its paper."""
    shape, small = (pan.shape[1], pan.shape[2]), (ms.shape[1], ms.shape[2])
    up = expand(ms[None], shape, RATIO, OFFSET)[0].numpy()
    p = pan[0].numpy()
    reduced = degrade(pan.expand(3, -1, -1)[None], small, RATIO, OFFSET, GAINS)
    low = expand(reduced, shape, RATIO, OFFSET)[0].numpy()
    mean_gain = degrade(pan[None], small, RATIO, OFFSET, [float(np.mean(GAINS))])[0, 0].numpy()
    out = np.zeros_like(up)
    if name == "Brovey":
        intensity = up.mean(0)
        return up * ((p - p.mean()) * intensity.std() / p.std() + intensity.mean()) / intensity
    if name == "GSA":
        design = np.stack([*[band.ravel() for band in ms.numpy()], np.ones(ms[0].numel())], 1)
        weights = np.linalg.lstsq(design, mean_gain.ravel(), rcond=None)[0]
        intensity = np.tensordot(weights[:3], up, 1)
        detail = p - p.mean() - intensity + intensity.mean()
        for b in range(3):
            cov = np.cov(up[b].ravel(), intensity.ravel())
            out[b] = up[b] + cov[0, 1] / cov[1, 1] * detail
        return out
    if name == "BDSD":
        ms_low = low_pass(ms[None], GAINS, RATIO)[0].numpy()
        design = np.stack([*[band.ravel() for band in ms_low], mean_gain.ravel()], 1)
        full = np.stack([*up, p])
        for b in range(3):
            weights = np.linalg.solve(design.T @ design, design.T @ (ms[b].numpy() - ms_low[b]).ravel())
            out[b] = up[b] + np.tensordot(weights, full, 1)
        return out
    for b in range(3):
        if name == "MTF-GLP-FS":
            gain = np.cov(up[b].ravel(), p.ravel())[0, 1] / np.cov(low[b].ravel(), p.ravel())[0, 1]
            out[b] = up[b] + gain * (p - low[b])
        elif name == "MTF-GLP-HPM-R":
            cov = np.cov(up[b].ravel(), low[b].ravel())
            haze = up[b].mean() / (cov[0, 1] / cov[1, 1]) - p.mean()
            out[b] = up[b] * (p + haze) / (low[b] + haze)
        else:
            out[b] = up[b]
    return out


@pytest.mark.parametrize("name", BASELINES)
def test_agrees_with_the_paper_written_out(name: str) -> None:
    _, pan, ms = scene()
    fused = BASELINES[name](pan, ms, RATIO, OFFSET, GAINS, None)
    assert fused.shape == (3, 128, 128) and fused.dtype == torch.float64
    np.testing.assert_allclose(fused.numpy(), dense(name, pan, ms), rtol=1e-6)


@pytest.mark.parametrize("name", BASELINES)
def test_comes_closer_to_the_truth_than_interpolation(name: str) -> None:
    truth, pan, ms = scene()
    exp = BASELINES["EXP"](pan, ms, RATIO, OFFSET, GAINS, None)
    fused = BASELINES[name](pan, ms, RATIO, OFFSET, GAINS, None)
    error, plain = (float(((image - truth) ** 2).mean()) for image in (fused, exp))
    assert error == plain if name == "EXP" else error < 0.7 * plain


@pytest.mark.parametrize("name", sorted(set(BASELINES) - {"BDSD"}))
def test_the_unit_of_pan_does_not_matter(name: str) -> None:
    _, pan, ms = scene()
    fused = BASELINES[name](pan, ms, RATIO, OFFSET, GAINS, None)
    other = BASELINES[name](0.01 * pan + 7.0, ms, RATIO, OFFSET, GAINS, None)
    np.testing.assert_allclose(other.numpy(), fused.numpy(), rtol=1e-5)


@pytest.mark.parametrize("name", BASELINES)
def test_a_common_gain_scales_the_result(name: str) -> None:
    _, pan, ms = scene()
    fused = BASELINES[name](pan, ms, RATIO, OFFSET, GAINS, None)
    other = BASELINES[name](20 * pan, 20 * ms, RATIO, OFFSET, GAINS, None)
    np.testing.assert_allclose(other.numpy(), 20 * fused.numpy(), rtol=1e-9)


@pytest.mark.parametrize("name", BASELINES)
def test_masked_pixels_stay_out_of_the_statistics(name: str) -> None:
    _, pan, ms = scene()
    mask = torch.ones(128, 128, dtype=torch.bool)
    mask[:, 64:] = False
    results = []
    for garbage in (0.0, 5000.0):
        spoilt_pan, spoilt_ms = pan.clone(), ms.clone()
        spoilt_pan[:, :, 64:], spoilt_ms[:, :, 16:] = garbage, garbage
        results.append(BASELINES[name](spoilt_pan, spoilt_ms, RATIO, OFFSET, GAINS, mask)[:, :, :24])
    np.testing.assert_allclose(results[0].numpy(), results[1].numpy(), rtol=1e-9)


def test_any_ratio_offset_and_band_count() -> None:
    truth, pan, _ = scene()
    ratio, offset = (3.7, 2.0), (-0.6, 0.4)
    ms = degrade(truth[:1][None], (34, 63), ratio, offset, [0.3])[0]
    for method in BASELINES.values():
        fused = method(pan.float(), ms.float(), ratio, offset, [0.3], None)
        assert fused.shape == (1, 128, 128) and fused.isfinite().all()


def test_the_judge_ranks_them_by_the_truth() -> None:
    truth, pan, ms = scene()
    reports = {
        name: assess_arrays(method(pan, ms, RATIO, OFFSET, GAINS, None), pan, ms, 4, OFFSET, GAINS, reference=truth)
        for name, method in BASELINES.items()
    }
    ergas = {name: report.ergas for name, report in reports.items()}
    assert max(ergas, key=lambda name: ergas[name] or 0.0) == "EXP"
    assert max(reports, key=lambda name: reports[name].d_rho or 0.0) == "EXP"
