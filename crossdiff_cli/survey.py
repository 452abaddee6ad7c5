"""What a few windows tell of a whole scene: normalisation and the misregistration of PAN and MS.

Bounded in memory: at most `WINDOWS` windows are read, spread evenly over the common footprint.
"""

import logging
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from crossdiff_cli.errors import SceneError
from crossdiff_cli.mtf import degrade
from crossdiff_cli.scene.pair import ScenePair
from crossdiff_cli.scene.tiles import Window, spread

_log = logging.getLogger(__name__)

WINDOWS = 36
_WINDOW_MS_PX = 96
_MAX_SHIFT_MS_PX = 3.0
_ITERATIONS = 10
_HIGHPASS = 9
"""Width in MS pixels of the mean taken out before registration."""
_MIN_CORRELATION = 0.5
"""Multiple correlation of PAN and MS under which no registration is believed."""
_MIN_VALID = 256
_MIN_BAND_CORRELATION = 0.85
"""Correlation with the PAN under which no shift of a single band is believed."""
_SMALLEST_PX = 0.15
"""Shift of a single band, in PAN pixels, that is not worth an interpolation of its own."""
_MIN_WINDOWS = 3
_REGISTERED = 12
"""Windows that are registered, about."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """One affine per band: normalised = (DN - mean) / std, from valid pixels at MS resolution."""

    pan_mean: float
    pan_std: float
    ms_mean: Tensor
    """(C,) float32."""
    ms_std: Tensor
    """(C,) float32, 1 where a band is constant."""

    def normalise_pan(self, pan: Tensor) -> Tensor:
        """DN to normalised, any shape."""
        return (pan - self.pan_mean) / self.pan_std

    def normalise_ms(self, ms: Tensor) -> Tensor:
        """DN (..., C, h, w) to normalised."""
        return (ms - self.ms_mean.to(ms)[:, None, None]) / self.ms_std.to(ms)[:, None, None]

    def denormalise_ms(self, ms: Tensor) -> Tensor:
        """Normalised (..., C, H, W) to DN."""
        return ms * self.ms_std.to(ms)[:, None, None] + self.ms_mean.to(ms)[:, None, None]


@dataclass(frozen=True, slots=True)
class Survey:
    """Findings on one scene."""

    statistics: Statistics
    shift: tuple[float, float]
    """How far the MS lies from its nominal place, in PAN pixels (rows, columns); added to the grid's offset."""
    correlation: float
    """Multiple correlation of high-passed PAN with the MS bands at that shift; 0 when not measured."""
    band_shifts: tuple[tuple[float, float], ...] = ()
    """How far each band lies from there, in PAN pixels (rows, columns), (0, 0) where that is not significant; empty
    where no band lies apart."""


@dataclass(frozen=True, slots=True)
class _Sample:
    pan: Tensor  # (1, 1, H, W)
    ms: Tensor  # (C, h, w)
    mask: Tensor  # (h, w): MS pixels whose PAN footprint is valid too
    offset: tuple[float, float]


def survey(pair: ScenePair, *, align: bool = True) -> Survey:
    """Read the sample windows once; derive statistics and, if asked, the shift.

    Raises:
        SceneError: no valid pixel where PAN and MS overlap.
    """
    samples = list(_samples(pair))
    if sum(int(s.mask.sum()) for s in samples) == 0:
        raise SceneError(
            f"{pair.pan.path} and {pair.ms[0].path} have no valid pixel in common in {len(samples)} windows"
        )
    statistics = _statistics(pair, samples)
    if not align:
        return Survey(statistics, (0.0, 0.0), 0.0)
    shift, correlation = _register(pair, samples, statistics)
    apart = _register_bands(pair, samples, statistics, shift) if correlation else ()
    return Survey(statistics, shift, correlation, apart)


def _samples(pair: ScenePair) -> list[_Sample]:
    size = max(8, int(_WINDOW_MS_PX * pair.ratio))
    samples = []
    for window in spread(pair.footprint, size, WINDOWS):
        inner = window.intersection(pair.footprint)
        assert inner is not None
        patch = pair.read(inner)
        inside = _covered(pair, inner, patch.ms_mask.shape, patch.offset)
        pan_valid = torch.from_numpy(patch.pan_mask)[None, None].float()
        seen = degrade(pan_valid, patch.ms_mask.shape, pair.grid.ratio, patch.offset, [0.3])[0, 0] > 0.999
        mask = torch.from_numpy(patch.ms_mask) & inside & seen
        if mask.any():
            samples.append(_Sample(torch.from_numpy(patch.pan)[None], torch.from_numpy(patch.ms), mask, patch.offset))
    return samples


def _covered(pair: ScenePair, window: Window, shape: tuple[int, ...], offset: tuple[float, float]) -> Tensor:
    """MS pixels whose whole area lies in the PAN window: (h, w)."""
    axes = []
    for axis in (0, 1):
        start = offset[axis] + torch.arange(shape[axis]) * pair.grid.ratio[axis]
        axes.append((start >= -0.5) & (start + pair.grid.ratio[axis] <= window.shape[axis] + 0.5))
    return axes[0][:, None] & axes[1][None, :]


def _pan_on_ms(pair: ScenePair, sample: _Sample, shift: tuple[float, float]) -> Tensor:
    offset = (sample.offset[0] + shift[0], sample.offset[1] + shift[1])
    shape = (sample.mask.shape[0], sample.mask.shape[1])
    return degrade(sample.pan, shape, pair.grid.ratio, offset, [pair.bands[0].nyquist_gain])[0, 0]


def _statistics(pair: ScenePair, samples: list[_Sample]) -> Statistics:
    pan = torch.cat([_pan_on_ms(pair, s, (0.0, 0.0))[s.mask] for s in samples]).double()
    ms = torch.cat([s.ms[:, s.mask] for s in samples], dim=1).double()
    ms_std = ms.std(dim=1, correction=0)
    pan_std = float(pan.std(correction=0))
    flat = 1e-6 * (ms.abs().amax(dim=1) + 1e-30)
    return Statistics(
        float(pan.mean()),
        pan_std if pan_std > 1e-6 * (float(pan.abs().max()) + 1e-30) else 1.0,
        ms.mean(dim=1).float(),
        torch.where(ms_std > flat, ms_std, torch.ones_like(ms_std)).float(),
    )


def _register(pair: ScenePair, samples: list[_Sample], statistics: Statistics) -> tuple[tuple[float, float], float]:
    """Median over windows of the shift at which the PAN is best explained by the MS bands (Gauss-Newton)."""
    found = []
    step = max(1, len(samples) // _REGISTERED)
    for sample in samples[::step]:
        usable = _interior(sample.mask)
        if int(usable.sum()) < _MIN_VALID:
            continue
        ms = _high_pass(statistics.normalise_ms(sample.ms), sample.mask)
        estimate = _register_window(pair, sample, statistics, ms, usable)
        if estimate is not None:
            found.append(estimate)
    if not found:
        _log.warning("PAN and MS were not registered: no window with enough common detail")
        return (0.0, 0.0), 0.0
    table = torch.tensor(found)
    best = table[table[:, 2] >= table[:, 2].median()] if len(found) > 4 else table
    row, column, correlation = (float(v) for v in best.median(dim=0).values)
    return (row, column), correlation


def _register_bands(
    pair: ScenePair, samples: list[_Sample], statistics: Statistics, shift: tuple[float, float]
) -> tuple[tuple[float, float], ...]:
    """How far each band lies from the common shift: median over windows, where it is sure.

    In a window, band = a PAN + a delta . gradient of the PAN (Lucas and Kanade 1981, with a free contrast a); believed
    where the band follows the PAN closely, and where the windows agree.
    """
    step = 0.25 * pair.ratio
    found = []
    for sample in samples[:: max(1, len(samples) // _REGISTERED)]:
        usable = _interior(sample.mask)
        if int(usable.sum()) < _MIN_VALID:
            continue
        centre, up, down, left, right = (
            _high_pass(
                statistics.normalise_pan(_pan_on_ms(pair, sample, (shift[0] + row, shift[1] + col)))[None], sample.mask
            )[0][usable]
            for row, col in ((0.0, 0.0), (-step, 0.0), (step, 0.0), (0.0, -step), (0.0, step))
        )
        system = torch.stack([centre, (down - up) / (2 * step), (right - left) / (2 * step)], dim=1)
        bands = _high_pass(statistics.normalise_ms(sample.ms), sample.mask)[:, usable]
        found.append([_band_in_window(system, band) for band in bands])
    if len(found) < _MIN_WINDOWS:
        return ()
    table = torch.tensor(found)
    median = table.median(dim=0).values
    spread = (table - median).abs().median(dim=0).values[:, :2] * 1.4826 / len(found) ** 0.5
    sure = (median[:, 2] > _MIN_BAND_CORRELATION)[:, None] & (
        median[:, :2].abs() > (3 * spread).clamp_min(_SMALLEST_PX)
    )
    sure &= (median[:, :2].abs() < 0.5 * pair.ratio).all(dim=1, keepdim=True)
    if not sure.any():
        return ()
    return tuple((float(row), float(col)) for row, col in torch.where(sure, median[:, :2], 0.0))


def _band_in_window(system: Tensor, band: Tensor) -> tuple[float, float, float]:
    contrast, *moved = _least_squares(system, band).tolist()
    correlation = float(torch.corrcoef(torch.stack([system[:, 0], band]))[0, 1].nan_to_num())
    if abs(contrast) < 1e-6:
        return 0.0, 0.0, 0.0
    return moved[0] / contrast, moved[1] / contrast, abs(correlation)


def _register_window(
    pair: ScenePair, sample: _Sample, statistics: Statistics, ms: Tensor, usable: Tensor
) -> tuple[float, float, float] | None:
    limit = _MAX_SHIFT_MS_PX * pair.ratio
    step = 0.25 * pair.ratio
    bands = ms[:, usable].T  # (n, C)

    def pan_at(shift: tuple[float, float]) -> Tensor:
        pan = statistics.normalise_pan(_pan_on_ms(pair, sample, shift))
        return _high_pass(pan[None], sample.mask)[0][usable]

    def fit(shift: tuple[float, float]) -> float:
        pan = pan_at(shift)
        residual = pan - bands @ _least_squares(bands, pan)
        return 1.0 - float(residual.square().sum() / pan.square().sum().clamp_min(1e-12))

    coarse = [(dy * pair.ratio, dx * pair.ratio) for dy in (-2, -1, 0, 1, 2) for dx in (-2, -1, 0, 1, 2)]
    shift = max(coarse, key=fit)
    for _ in range(_ITERATIONS):
        gradient_row = (pan_at((shift[0] + step, shift[1])) - pan_at((shift[0] - step, shift[1]))) / (2 * step)
        gradient_col = (pan_at((shift[0], shift[1] + step)) - pan_at((shift[0], shift[1] - step))) / (2 * step)
        # pan(shift) + gradient . delta = bands . weights, solved for weights and delta together.
        system = torch.cat([bands, -gradient_row[:, None], -gradient_col[:, None]], dim=1)
        delta = _least_squares(system, pan_at(shift))[-2:].clamp(-2 * step, 2 * step)
        shift = (shift[0] + float(delta[0]), shift[1] + float(delta[1]))
        if float(delta.abs().max()) < 0.01:
            break
    correlation = max(fit(shift), 0.0) ** 0.5
    if max(abs(shift[0]), abs(shift[1])) > limit or correlation < _MIN_CORRELATION:
        return None
    return shift[0], shift[1], correlation


def _least_squares(columns: Tensor, target: Tensor) -> Tensor:
    """Solve (n, k) @ (k,) = (n,) by slightly damped normal equations, in float64."""
    columns, target = columns.double(), target.double()
    gram = columns.T @ columns
    damping = 1e-9 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    solution: Tensor = torch.linalg.solve(gram + damping + 1e-30 * torch.eye(len(gram)), columns.T @ target)
    return solution.float()


def _high_pass(image: Tensor, mask: Tensor) -> Tensor:
    """Take out the local mean of valid pixels: (C, h, w)."""
    known = mask.to(image.dtype)[None, None]
    pad = _HIGHPASS // 2
    weight = F.avg_pool2d(known, _HIGHPASS, stride=1, padding=pad)
    mean = F.avg_pool2d((image * known[0])[:, None], _HIGHPASS, stride=1, padding=pad) / weight.clamp_min(1e-6)
    return image - mean[:, 0]


def _interior(mask: Tensor) -> Tensor:
    """Valid pixels at least three pixels from an invalid one or the border."""
    outside = 1.0 - mask.float()[None, None]
    return F.max_pool2d(F.pad(outside, [3] * 4, value=1.0), 7, stride=1)[0, 0] == 0
