"""Estimate the MTF of each MS band on the scene: the Nyquist gain by which the degraded PAN explains the band best."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from crossdiff_cli.estimate.matching import SampleWindow
from crossdiff_cli.estimate.registration import Registration
from crossdiff_cli.imaging.filters import high_pass
from crossdiff_cli.imaging.masking import eroded
from crossdiff_cli.imaging.resample import Pixels, degrade, mtf_sigma

GAIN_RANGE = (0.03, 0.9)
"""Nyquist gains that can be told apart from a scene."""
_STEPS = 21
"""Number of candidate gains, spaced evenly in the logarithm of the kernel's width."""
_BLOCK = 6
"""Side in MS pixels of the blocks in which a band is regressed on the PAN."""
_MIN_BLOCKS = 9
"""Blocks, which overlap by half, with texture below which no gain is estimated."""
_GROUPS = 16
"""Groups of blocks that the jackknife leaves out in turn, at most."""
_MIN_RATIO = 1.5
"""PAN pixels per MS pixel below which the PAN shows too little beyond the MS Nyquist frequency."""
_UNDERSTATED = 3.0
"""Factor by which the jackknife understates the standard error: errors of registration and of the model are alike in
all blocks. Measured on simulated pairs (benchmarks/mtf.md)."""
_MAX_STANDARD_ERROR = 0.5
"""Largest standard error, of log(-ln gain), of a gain that is used."""
_INFRARED_NM = 1100.0
"""Wavelength above which a band lies on a focal plane of its own."""
_MIN_SIGNAL = 8.0
"""Power of the degraded PAN over that of its noise below which a block is left out."""
_LEAST_SIGNAL = 0.5
"""Share of the power of a degraded PAN that is taken for signal in any block, whatever its noise."""
_LEAST_RESIDUAL = 1e-4
"""Share of the power of a band that is taken for residual in any block: no block decides alone."""
_MIN_EXPLAINED = 0.1
"""Share of the power of a band that the PAN has to explain, in the geometric mean over the blocks."""


@dataclass(frozen=True, slots=True)
class EstimatedGain:
    """MTF gain of one MS band at the MS Nyquist frequency, relative to the PAN."""

    gain: float
    standard_error: float
    """Standard error of the gain."""


def estimate_nyquist_gains(
    samples: Sequence[SampleWindow], ratio: Pixels, place: Registration, pan_noise: float, center_nm: Sequence[float]
) -> list[EstimatedGain | None]:
    """Estimate the Nyquist gain of each band from windows of the scene.

    For each candidate gain the PAN is degraded to the MS grid, PAN and band are high-passed and the band is regressed
    on the PAN in small blocks; the gain sought has the least sum of the logarithms of the residual powers, refined by a
    parabola. Bands of one focal plane are shrunk towards their mean by their uncertainty (DerSimonian and Laird 1986).
    Only the ratio of the MTFs of band and PAN can be seen in a pair.

    Args:
        samples: windows of the scene, not normalised.
        ratio: PAN pixels per MS pixel, as registered.
        place: where the MS lies; its `band_shifts` in the order of the bands of `samples`.
        pan_noise: standard deviation of the white noise of the PAN, in its unit.
        center_nm: wavelength of each band.

    Returns:
        One gain for each band; None for those of a focal plane on which no band shows its gain: too few blocks with
        texture, a curve without a minimum, or a ratio below 1.5.
    """
    bands = len(center_nm)
    curves = None if min(ratio) < _MIN_RATIO else _curves(samples, ratio, place, pan_noise)
    if curves is None:
        return [None] * bands
    found = [_minimum(curves[:, band]) for band in range(bands)]
    gains: list[EstimatedGain | None] = [None] * bands
    for infrared in (False, True):
        plane = [band for band in range(bands) if (center_nm[band] > _INFRARED_NM) == infrared]
        for band, value in zip(plane, _pooled([found[band] for band in plane]), strict=True):
            gains[band] = None if value is None else _gain(*value)
    return gains


def _candidates() -> Tensor:
    """Return the candidates as log(-ln gain): (candidates,), ascending, so that gains descend."""
    high, low = (math.log(-math.log(gain)) for gain in GAIN_RANGE)
    return torch.linspace(low, high, _STEPS, dtype=torch.float64)


def _gain(place: float, error: float) -> EstimatedGain:
    """Return the gain at log(-ln gain) = `place`, kept within `GAIN_RANGE`."""
    gain = math.exp(-math.exp(place))
    return EstimatedGain(min(max(gain, GAIN_RANGE[0]), GAIN_RANGE[1]), error * math.exp(place) * gain)


def _curves(samples: Sequence[SampleWindow], ratio: Pixels, place: Registration, pan_noise: float) -> Tensor | None:
    """Return the part of each group of blocks in the mean log residual share: (groups, bands, candidates), or None."""
    parts = [part for view in samples if (part := _log_residuals(view, ratio, place, pan_noise)) is not None]
    if not parts:
        return None
    residuals = torch.cat(parts)
    if len(residuals) < _MIN_BLOCKS:
        return None
    residuals = residuals / len(residuals)
    # Neighbours share a group: their errors are alike.
    groups = min(_GROUPS, len(residuals))
    group = torch.arange(len(residuals)) * groups // len(residuals)
    return residuals.new_zeros(groups, *residuals.shape[1:]).index_add_(0, group, residuals)


def _log_residuals(view: SampleWindow, ratio: Pixels, place: Registration, pan_noise: float) -> Tensor | None:
    """Return the log residual share of each block: (blocks, bands, candidates); None where no block is valid."""
    gains = torch.exp(-torch.exp(_candidates())).tolist()
    usable = eroded(view.mask, 1)
    if not usable.any():
        return None
    part = _bounding_box(usable)
    valid = _blocks(usable[None][:, *part].double())[:, 0].amin(dim=1) > 0
    bands = _blocks(high_pass(view.ms[None], 1)[0][:, *part])[valid]
    energy = bands.square().sum(dim=2)
    noise = torch.tensor([_noise_share(gain, ratio) for gain in gains], dtype=torch.float64) * pan_noise**2 * _BLOCK**2
    row, col = place.offset(view.offset, view.origin)
    shifts = place.band_shifts or ((0.0, 0.0),) * len(view.ms)
    residual = torch.empty(*energy.shape, len(gains), dtype=torch.float64)
    textured = (energy > 0).all(dim=1)  # the others are saturated or filled
    for shift in dict.fromkeys(shifts):
        own = [band for band, other in enumerate(shifts) if other == shift]
        images, shape = view.pan.expand(-1, len(gains), -1, -1), (view.mask.shape[0], view.mask.shape[1])
        seen = degrade(images, shape, ratio, (row + shift[0], col + shift[1]), gains)
        pan = _blocks(high_pass(seen, 1)[0][:, *part])[valid]
        power = pan.square().sum(dim=2)
        textured &= (power > _MIN_SIGNAL * noise).all(dim=1)
        signal = torch.maximum(power - noise, _LEAST_SIGNAL * power)
        common = torch.einsum("nbp,ncp->nbc", bands[:, own], pan)
        residual[:, own] = energy[:, own, None] - common.square() / signal[:, None].clamp_min(1e-30)
    return (residual / energy[..., None])[textured].clamp_min(_LEAST_RESIDUAL).log()


def _bounding_box(mask: Tensor) -> tuple[slice, slice]:
    """Return the rows and columns between which a mask (h, w) has pixels."""
    rows, cols = (mask.any(dim=axis).nonzero()[:, 0] for axis in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(cols[0]), int(cols[-1]) + 1)


def _noise_share(gain: float, ratio: Pixels) -> float:
    """Share of the power of white noise that a Gaussian kernel and the high-pass leave on the MS grid."""
    rows, cols = (2 * math.sqrt(math.pi) * mtf_sigma(gain, step) for step in ratio)
    return 8 / 9 / (max(rows, 1.0) * max(cols, 1.0))


def _blocks(images: Tensor) -> Tensor:
    """Cut (C, h, w) into blocks that overlap by half: (blocks, C, pixels), float64; none of a smaller image."""
    if min(images.shape[1:]) < _BLOCK:
        return images.new_zeros(0, len(images), _BLOCK**2).double()
    parts = images.unfold(1, _BLOCK, _BLOCK // 2).unfold(2, _BLOCK, _BLOCK // 2)
    return parts.permute(1, 2, 0, 3, 4).reshape(-1, len(images), _BLOCK**2).double()


def _minimum(groups: Tensor) -> tuple[float, float] | None:
    """Return where the sum of the curves (groups, candidates) is least and its standard error, by the jackknife.

    None where the PAN explains too little of the band, or the standard error exceeds `_MAX_STANDARD_ERROR`.
    """
    total = groups.sum(dim=0)
    if float(total.min()) > math.log(1 - _MIN_EXPLAINED):
        return None
    left = total - groups
    places = torch.tensor([_vertex(curve) for curve in left], dtype=torch.float64)
    error = _UNDERSTATED * math.sqrt((len(groups) - 1) * float((places - places.mean()).square().mean()))
    return (_vertex(total), error) if error <= _MAX_STANDARD_ERROR else None


def _vertex(curve: Tensor) -> float:
    """Return the place of the deepest minimum of a curve (candidates,): by a parabola, else the lower end."""
    places = _candidates()
    before, middle, after = curve[:-2], curve[1:-1], curve[2:]
    inside = (middle <= before) & (middle <= after)
    if not inside.any():
        return float(places[int(curve.argmin())])
    least = int(torch.where(inside, middle, torch.inf).argmin())
    slope, bend = before[least] - after[least], before[least] - 2 * middle[least] + after[least]
    return float(places[least + 1] + 0.5 * (places[1] - places[0]) * slope / bend.clamp_min(1e-12))


def _pooled(found: Sequence[tuple[float, float] | None]) -> list[tuple[float, float] | None]:
    """Shrink the estimates of one focal plane towards their weighted mean; bands without one take the mean."""
    known = [value for value in found if value is not None]
    if not known:
        return [None] * len(found)
    places, variances = torch.tensor(known, dtype=torch.float64).T
    variances = variances.square().clamp_min(1e-6)
    weights = 1 / variances
    mean = float((weights * places).sum() / weights.sum())
    excess = float((weights * (places - mean).square()).sum()) - (len(known) - 1)
    spread = weights.sum() - weights.square().sum() / weights.sum()
    between = max(0.0, excess / float(spread)) if len(known) > 1 else 0.0
    weights = 1 / (variances + between)
    mean, mean_variance = float((weights * places).sum() / weights.sum()), float(1 / weights.sum())
    out: list[tuple[float, float] | None] = []
    for value in found:
        if value is None:
            out.append((mean, math.sqrt(between + mean_variance)))
            continue
        own = value[1] ** 2 + 1e-6
        kept = between / (between + own) if len(known) > 1 else 1.0
        variance = kept * own + (1 - kept) ** 2 * mean_variance
        out.append((kept * value[0] + (1 - kept) * mean, math.sqrt(variance)))
    return out
