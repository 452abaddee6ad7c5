"""Where the MS really lies on the PAN grid: a shift, a stretch along each axis, and what sets single bands apart."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import torch
from torch import Tensor

from crossdiff_cli.estimate.matching import (
    Match,
    PanDegradation,
    SampleWindow,
    cluster_covariance,
    high_pass,
    match,
)
from crossdiff_cli.imaging.regression import least_squares
from crossdiff_cli.imaging.resample import Pixels

_log = logging.getLogger(__name__)

_MIN_VALID = 256
_MIN_BAND_CORRELATION = 0.85
"""Correlation with the PAN below which the shift of a single band is rejected."""
_SMALLEST_PX = 0.15
"""Shift of a single band, in PAN pixels, that is not worth an interpolation of its own."""
_MIN_WINDOWS = 3
_SMALLEST_STRETCH_PX = 0.2
"""Least displacement of the outermost windows against each other, in PAN pixels, for a stretch to be accepted."""
_STRETCH_SIGMA = 3.0
"""Standard errors that a stretch must have."""
_DISAGREEMENT = 0.25
"""MS pixels that the shifts of windows may deviate without a warning."""
_MIN_MATCHES_FOR_TRIMMING = 4
"""Windows of which none is left out."""
_KNOWN = 0.1
"""Smaller over larger eigenvalue of the summed directions of the windows below which the scene shows one only."""
_SPECTRAL_BIAS = 0.07
"""Correlation of what a band shows beyond the PAN with the PAN's gradient that is no shift: one side of every roof is
lit, and shadows differ in colour."""
_MEDIAN_VARIANCE = math.pi / 2
"""Variance of a median over that of a mean."""


@dataclass(frozen=True, slots=True)
class Registration:
    """Where the MS was found: what nominally lies at y of the PAN lies at y + shift + stretch (y - centre)."""

    shift: Pixels = (0.0, 0.0)
    """How far the MS lies from its nominal place, in PAN pixels (rows, columns), at `centre`."""
    correlation: float = 0.0
    """Multiple correlation of high-passed PAN with the MS bands there; 0 when nothing was found."""
    band_shifts: tuple[Pixels, ...] = ()
    """How far each band lies from there, in PAN pixels (rows, columns), (0, 0) where that is not significant; empty
    where no band lies apart."""
    stretch: Pixels = (0.0, 0.0)
    """By how much the MS is larger than its grid says: 0.01 is one per cent; 0 where that is not significant."""
    centre: Pixels = (0.0, 0.0)
    """PAN coordinates (row, column)."""

    def ratio(self, nominal: Pixels) -> Pixels:
        """PAN pixels per MS pixel."""
        return nominal[0] * (1 + self.stretch[0]), nominal[1] * (1 + self.stretch[1])

    def offset(self, nominal: Pixels, origin: Pixels) -> Pixels:
        """Where the corner of an MS pixel lies in a PAN window that begins at `origin`, nominally at `nominal`."""
        moved = self.displacement((origin[0] + nominal[0], origin[1] + nominal[1]))
        return nominal[0] + moved[0], nominal[1] + moved[1]

    def displacement(self, place: Pixels) -> Pixels:
        """How far from its nominal place, given in PAN coordinates, the MS lies there."""
        row, col = (self.shift[axis] + self.stretch[axis] * (place[axis] - self.centre[axis]) for axis in (0, 1))
        return row, col

    def describe(self, size: tuple[int, int]) -> str:
        """Return the offset as a line of a log, for a PAN of `size` (rows, columns) pixels.

        An offset that rounds to 0.00 pixels is called aligned.
        """
        row, col = (round(value, 2) + 0.0 for value in self.shift)  # adding zero takes the sign off a zero
        if not self.correlation:
            return "PAN and MS were not registered: too little common detail"
        if (row, col) == (0.0, 0.0) and self.stretch == (0.0, 0.0):
            return f"PAN and MS are aligned (correlation {self.correlation:.3f})"
        down, across = (stretch * pixels for stretch, pixels in zip(self.stretch, size, strict=True))
        growth = f", growing by x {across:+.2f}, y {down:+.2f} px over the scene" if any(self.stretch) else ""
        return f"MS offset from PAN: x {col:+.2f}, y {row:+.2f} PAN px{growth} (correlation {self.correlation:.3f})"

    def farthest(self, first: Pixels, last: Pixels) -> float:
        """The largest displacement of any band, along either axis, between two corners of a part of the PAN."""
        ends = [self.displacement(corner) for corner in (first, last)]
        own = max((abs(v) for shift in self.band_shifts for v in shift), default=0.0)
        return max(abs(v) for end in ends for v in end) + own


def register(views: Sequence[SampleWindow], degradation: PanDegradation, centre: Pixels) -> Registration:
    """Find the place at which the PAN is best explained by the MS bands: median over windows, and line through them.

    The shift is shrunk by its own uncertainty, 1 - variance / shift^2 (James and Stein 1961, positive part): an MS that
    is in its place is left there. A stretch is accepted only where it is significant.

    Args:
        views: windows of the scene.
        degradation: how its PAN pixels become MS pixels, nominally.
        centre: of the scene, on the PAN.
    """
    usable = [view for view in views if int(view.usable.sum()) >= _MIN_VALID]
    best = _best(usable, degradation, Registration(centre=centre))
    if not best:
        _log.warning("PAN and MS were not registered: no window with enough common detail")
        return Registration(centre=centre)
    if best[0].directions.shape[1] == 1:  # so it is in all of them
        return _shrunk(_along_edges(best, centre), best)
    found = _shrunk(_median_shift(best, (0.0, 0.0), centre), best)
    stretched = _median_shift(best, (_stretch(best, 0), _stretch(best, 1)), centre)
    if stretched.stretch != (0.0, 0.0):
        again = _best(usable, degradation, stretched)
        # An MS that was resampled by whole pixels lies alike, but what was sharp together would be pulled apart.
        if again and (left := _median_shift(again, (0.0, 0.0), centre)).correlation > found.correlation:
            row, col = (a + b for a, b in zip(stretched.shift, left.shift, strict=True))
            found, best = replace(left, shift=(row, col), stretch=stretched.stretch), again
    scatter = max(float(_robust_std(_deviations(best, axis))) for axis in (0, 1))
    if scatter > _DISAGREEMENT * max(degradation.ratio):
        _log.warning(
            "PAN and MS lie apart differently from place to place, by %.1f PAN pixels or more, which is not corrected: "
            "orthorectify both with the same model",
            scatter,
        )
    return replace(
        found, band_shifts=_band_shifts([_moved(view, found) for view in usable], _stretched(degradation, found))
    )


def _moved(view: SampleWindow, found: Registration) -> SampleWindow:
    return replace(view, offset=found.offset(view.offset, view.origin))


def _stretched(degradation: PanDegradation, found: Registration) -> PanDegradation:
    return replace(degradation, ratio=found.ratio(degradation.ratio))


def _best(views: Sequence[SampleWindow], degradation: PanDegradation, found: Registration) -> list[Match]:
    """Return the matches of the windows, beyond what was found; the better half by correlation, where there are many.

    Where a window shows the shift along both axes, those that show one direction alone are left out.
    """
    every = [match(_moved(view, found), _stretched(degradation, found)) for view in views]
    places = sorted((place for place in every if place is not None), key=lambda place: -place.correlation)
    places = [place for place in places if place.directions.shape[1] == 2] or places
    return places if len(places) <= _MIN_MATCHES_FOR_TRIMMING else places[: len(places) // 2 + 1]


def _along_edges(places: Sequence[Match], centre: Pixels) -> Registration:
    """Solve for the shift from windows that show one direction each; 0 along a direction that none of them shows."""
    projectors = torch.stack([(place.directions @ place.directions.T).double() for place in places])
    shifts = torch.tensor([place.shift for place in places], dtype=torch.float64)
    values, vectors = torch.linalg.eigh(projectors.sum(dim=0))
    inverse = torch.where(values > _KNOWN * values[-1], 1 / values.clamp_min(1e-9), 0.0)
    row, col = (vectors @ (inverse * (vectors.T @ shifts.sum(dim=0)))).tolist()
    correlation = float(torch.tensor([place.correlation for place in places]).median())
    return Registration((row, col), correlation, centre=centre)


def _median_shift(places: Sequence[Match], stretch: Pixels, centre: Pixels) -> Registration:
    """The median of the shifts at `centre`, if the MS is stretched like that."""
    table = torch.tensor(
        [[*_detrended(place, stretch, centre), place.correlation] for place in places], dtype=torch.float64
    )
    row, col, correlation = table.quantile(0.5, dim=0).tolist()
    return Registration((row, col), correlation, stretch=stretch, centre=centre)


def _detrended(place: Match, stretch: Pixels, centre: Pixels) -> Pixels:
    row, col = (place.shift[axis] - stretch[axis] * (place.middle[axis] - centre[axis]) for axis in (0, 1))
    return row, col


def _shrunk(found: Registration, places: Sequence[Match]) -> Registration:
    """The less of the shift, the less sure it is: in the windows, or between them."""
    error = 0.0
    for axis in (0, 1):
        noise = float(torch.tensor([place.variance[axis] for place in places]).median())
        error += max(noise, float(_robust_std(_deviations(places, axis))) ** 2) / len(places)
    if len(places) > 2:
        error *= _MEDIAN_VARIANCE
    row, col = found.shift
    kept = max(0.0, 1.0 - error / max(row * row + col * col, 1e-12))
    return replace(found, shift=(kept * row, kept * col))


def _deviations(places: Sequence[Match], axis: int) -> Tensor:
    """How far the shift of every window is from their median."""
    shift = torch.tensor([place.shift[axis] for place in places], dtype=torch.float64)
    return shift - shift.quantile(0.5)


def _robust_std(from_median: Tensor) -> Tensor:
    """Standard deviation of normal values along the first dimension, by their distances from the median."""
    return 1.4826 * from_median.abs().quantile(0.5, dim=0)


def _stretch(places: Sequence[Match], axis: int) -> float:
    """Slope of the line through the shifts along an axis (Theil 1950, Sen 1968); 0 where it is not sure."""
    at = torch.tensor([place.middle[axis] for place in places], dtype=torch.float64)
    shift = torch.tensor([place.shift[axis] for place in places], dtype=torch.float64)
    slopes = [
        float((shift[j] - shift[i]) / (at[j] - at[i]))
        for i, j in combinations(range(len(places)), 2)
        if abs(at[j] - at[i]) > 1
    ]
    if len(slopes) < _MIN_WINDOWS:
        return 0.0
    slope = float(torch.tensor(slopes, dtype=torch.float64).quantile(0.5))
    left = shift - slope * at
    away = left - left.quantile(0.5)
    noise = max(float(_robust_std(away)) ** 2, float(torch.tensor([place.variance[axis] for place in places]).median()))
    error = math.sqrt(_MEDIAN_VARIANCE * noise / float((at - at.mean()).square().sum()))
    across = abs(slope) * float(at.max() - at.min())
    sure = (
        abs(slope) > _STRETCH_SIGMA * error and across > _SMALLEST_STRETCH_PX and float(away.abs().max()) < 0.5 * across
    )
    return slope if sure else 0.0


def _band_shifts(views: Sequence[SampleWindow], degradation: PanDegradation) -> tuple[Pixels, ...]:
    """Estimate how far each band lies from where all lie: median over registered windows, where it is significant.

    In a window, band = a PAN + a delta . gradient of the PAN (Lucas and Kanade 1981, with a free contrast a). A shift
    is significant where the band follows the PAN closely and the shift exceeds three standard errors, of the windows
    or between them, beyond what the colours of lit and shaded edges feign.
    """
    if len(views) < _MIN_WINDOWS:
        return ()
    step = degradation.step
    around = [(0.0, 0.0), (step, 0.0), (-step, 0.0), (0.0, step), (0.0, -step)]
    found = []
    for view in views:
        usable = view.usable
        pan = high_pass(torch.stack([degradation.pan_on_ms_grid(view, place) for place in around]), view.mask)[
            :, usable
        ].T
        system = torch.cat([pan[:, :1], (pan[:, 1::2] - pan[:, 2::2]) / (2 * step)], dim=1)
        found.append([_band(system, band, usable) for band in high_pass(view.ms, view.mask)[:, usable]])
    table = torch.tensor(found)
    median = table.quantile(0.5, dim=0)
    spread = torch.maximum(_robust_std(table - median)[:, :2], median[:, 3:5].sqrt()) / len(found) ** 0.5
    least = (3 * _MEDIAN_VARIANCE**0.5 * spread + median[:, 5:7]).clamp_min(_SMALLEST_PX)
    sure = (median[:, 2] > _MIN_BAND_CORRELATION)[:, None] & (median[:, :2].abs() > least)
    sure &= (median[:, :2].abs() < 2 * step).all(dim=1, keepdim=True)
    if not sure.any():
        return ()
    return tuple((float(r), float(c)) for r, c in torch.where(sure, median[:, :2], 0.0))


def _band(system: Tensor, band: Tensor, usable: Tensor) -> tuple[float, ...]:
    """Fit a band (n,) by PAN and its gradient, `system` (n, 3).

    Returns:
        Shift (row, column) in PAN pixels, correlation with the PAN, variance of the shift (row, column), and the shift
        (row, column) that a correlation of `_SPECTRAL_BIAS` with the gradient feigns.
    """
    solution = least_squares(system, band[:, None])
    contrast, *moved = solution[:, 0].tolist()
    correlation = float(torch.corrcoef(torch.stack([system[:, 0], band]))[0, 1].nan_to_num())
    if abs(contrast) < 1e-6:
        return (0.0,) * 7
    residual = band - (system @ solution)[:, 0]
    variance = (cluster_covariance(system, residual, usable).diagonal()[1:] / contrast**2).tolist()
    steepness = system[:, 1:].std(dim=0).clamp_min(1e-9)
    feigned = (_SPECTRAL_BIAS * residual.std() / (abs(contrast) * steepness)).tolist()
    return moved[0] / contrast, moved[1] / contrast, abs(correlation), *variance, *feigned
