"""How the bands of a scene make up its PAN, and how much of the fine texture of the MS the PAN does not show."""

from collections.abc import Sequence

import torch
from torch import Tensor

from crossdiff_cli.estimate.matching import SampleWindow
from crossdiff_cli.estimate.registration import Registration
from crossdiff_cli.geometry.grid import GridMapping, Pixels
from crossdiff_cli.imaging.filters import high_pass, local_mean
from crossdiff_cli.imaging.intensity import RADIUS, Intensity
from crossdiff_cli.imaging.masking import eroded
from crossdiff_cli.imaging.regression import solve_normal_equations
from crossdiff_cli.imaging.sensor_model import SensorModel, pan_on_ms_grid

_COARSE_RADIUS = 4
"""Radius, in MS pixels, of the mean that is taken out of what the weights are fitted to."""
_RIDGE = 1e-3
"""Share of the mean power of the bands that is added to each: bands that are alike share their weight."""
_LEAST_PIXELS = 400
_LEAST_EXPLAINED = 0.5
"""Share of the coarse PAN that the bands must explain."""


def estimate_intensity(
    views: Sequence[SampleWindow], ratio: Pixels, place: Registration, gains: Sequence[float]
) -> Intensity | None:
    """Fit the PAN by the bands.

    The weights are fitted to means over 3 x 3 MS pixels, in which there is hardly any aliasing: fitted to single
    pixels, whose errors they would shrink with, they would be too small.

    Args:
        views: normalised sample windows.
        ratio: PAN pixels per MS pixel, as registered.
        place: of the MS.
        gains: Nyquist gain of each band.

    Returns:
        None where too few pixels are valid, or the bands explain too little of the PAN.
    """
    coarse, fine = [], []
    for view in views:
        grid = GridMapping(ratio, place.offset(view.offset, view.origin), place.band_shifts)
        pan = pan_on_ms_grid(view.pan, (view.mask.shape[0], view.mask.shape[1]), SensorModel(grid, tuple(gains)))
        images = torch.cat([view.ms[None], pan], dim=1)
        smooth = high_pass(local_mean(images, RADIUS), _COARSE_RADIUS)
        coarse.append(smooth[0][:, eroded(view.mask, RADIUS + _COARSE_RADIUS)])
        fine.append(high_pass(images, RADIUS)[0][:, eroded(view.mask, RADIUS)])
    bands, pans = _parts(coarse)
    if bands.shape[1] < _LEAST_PIXELS:
        return None
    gram, pan = bands @ bands.T, pans.mean(dim=0)
    ridge = _RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    weights = solve_normal_equations(gram + ridge, (bands @ pan)[:, None])[:, 0]
    unexplained = float((pan - weights @ bands).square().sum() / pan.square().sum().clamp_min(1e-12))
    if not unexplained < 1 - _LEAST_EXPLAINED:
        return None
    bands, pans = _parts(fine)
    own = weights @ bands
    common, power = bands @ own, own.square().sum().clamp_min(1e-12)
    # Slope of the band on the intensity, times the fourth power of their correlation: of a band that has little in
    # common with the PAN nothing is known.
    correlation = common.square() / (bands.square().sum(dim=1) * power).clamp_min(1e-12)
    response = (common / power * correlation.square()).clamp_min(0)
    aliased = float((own - pans.mean(dim=0)).square().sum() / power)
    return Intensity(tuple(weights.tolist()), tuple(response.tolist()), unexplained, min(aliased, 1.0))


def _parts(pixels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Bands and PANs (C, pixels) of all windows, float64."""
    bands, pans = torch.cat(list(pixels), dim=1).double().chunk(2)
    return bands, pans
