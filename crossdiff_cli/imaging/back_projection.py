"""Back-projection onto the MS, and the Wiener filters that keep sensor noise out of it and out of the detail."""

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from crossdiff_cli.geometry.grid import GridMapping, Pixels
from crossdiff_cli.geometry.window import Window
from crossdiff_cli.imaging.filters import high_pass, local_mean
from crossdiff_cli.imaging.limiter import Limits
from crossdiff_cli.imaging.resample import EXPAND_RADIUS, mtf_radius
from crossdiff_cli.imaging.sensor_model import Expansion, SensorModel, to_ms, to_pan

ITERATIONS = 2
"""Default number of back-projection iterations; more gain less and cost as much each (benchmarks/choices.md)."""
RELAXATION = (1.0, 1.4)
"""Relaxation factors of the first and of later iterations (Richardson 1911): the first removes the error of flat areas,
later ones over-relax fine structure, which the MS grid attenuates. None increases an error."""
GUIDE_RADIUS = 1
"""Radius, in MS pixels, of the window in which the residual is regressed on the PAN."""
_GUIDE_SHRINKAGE = 0.02
"""Variance of the normalised PAN in that window under which the regression is shrunk to 0."""
_LARGEST_GUIDE_GAIN = 0.5
WIENER_RADIUS = 3
"""Reach of the Wiener filter, in pixels of its image."""
_COARSE_RADIUS = 1
"""Radius, in pixels, of the local mean that the Wiener filter leaves unchanged."""
_POWER_RADIUS = 2
"""Radius, in pixels, of the window in which the local variance is estimated."""
_HIGH_PASS_NOISE_SHARE = 1 - 1 / (2 * _COARSE_RADIUS + 1) ** 2
"""Share of the power of white noise that such a local mean does not hold."""
_NOISE_OVERSUBTRACTION = 2.0
"""Multiple of the estimated noise power that the Wiener filter subtracts before back-projection, which amplifies what
remains."""


def back_projection_radius(ratio: Pixels, nyquist_gains: Sequence[float], iterations: int) -> int:
    """Return the reach of back-projection in PAN pixels.

    An iteration degrades, filters and interpolates; the first one also looks at the neighbours of an MS pixel.
    """
    largest = max(ratio)
    degraded = max(mtf_radius(gain, largest) for gain in nyquist_gains) + 1
    one = degraded + math.ceil(EXPAND_RADIUS * largest) + math.ceil(WIENER_RADIUS * largest)
    return iterations * one + min(iterations, 1) * math.ceil(GUIDE_RADIUS * largest)


def back_project(
    hrms: Tensor,
    pan: Tensor,
    ms: Tensor,
    pan_ms: Tensor,
    sensor_model: SensorModel,
    iterations: int,
    rows: int | None = None,
) -> Tensor:
    """Make a result consistent with the MS, and keep it within the range that MS and PAN show nearby.

    An iteration adds step * E(denoise_residual(ms - to_ms(hrms))). In the first one E is guided by the PAN
    (`regress_on_pan`): the slope, interpolated, multiplies the PAN, so that edges of the residual lie where the PAN has
    them; in later ones it is `to_pan`. Degradation after interpolation has eigenvalues e in [0, 1], 1 for
    flat areas and the least at the Nyquist frequency of the MS; without a guide, relaxation factors of 1 and 1.4 leave
    (1 - e)(1 - 1.4 e) of an error.

    Args:
        hrms: (B, C, H, W), normalised.
        pan: (B, 1, H, W), normalised.
        ms: (B, C, h, w), normalised.
        pan_ms: (B, C, h, w), the PAN on the MS grid (`sensor_model.pan_on_ms_grid`).
        sensor_model: of the window.
        iterations: how often; 0 returns `hrms`.
        rows: update `hrms` in place, in strips of as many rows, with little memory and without gradients; None returns
            another image.
    """
    if not iterations:
        return hrms
    window = Window(0, 0, hrms.shape[2], hrms.shape[3])
    strips = [window] if rows is None else list(window.strips(rows))
    limits = Limits.of(ms, pan_ms, sensor_model)
    hrms = hrms.contiguous()  # as the images on the MS grid: sums of two layouts take three times as long
    for iteration, step in enumerate(relaxation(iterations)):
        residual = ms - to_ms(hrms, (ms.shape[2], ms.shape[3]), sensor_model)
        residual = step * denoise_residual(residual, sensor_model, iteration)
        guided, last = iteration == 0, iteration == iterations - 1
        added = Expansion(regress_on_pan(residual, pan_ms) if guided else residual, window.width, sensor_model)
        for strip in strips:
            sharp, update = strip.crop(pan), added(strip)
            if guided:
                left, slope = update.chunk(2)
                update = torch.addcmul(left, slope, sharp)
            updated = strip.crop(hrms) + update
            updated = limits.clip(updated, sharp, sensor_model.crop(strip)) if last else updated
            if len(strips) == 1:
                hrms = updated
            else:
                strip.crop(hrms).copy_(updated)
    return hrms


def regress_on_pan(residual: Tensor, pan_ms: Tensor) -> Tensor:
    """Regress a residual on the PAN in windows of 3 x 3 MS pixels (guided filter, He et al. 2013).

    Args:
        residual: (B, C, h, w), normalised.
        pan_ms: (B, C, h, w), the PAN on the MS grid.

    Returns:
        (2 B, C, h, w): what the regression leaves, and the slope.
    """
    mean = local_mean(pan_ms, GUIDE_RADIUS)
    variance = (local_mean(pan_ms * pan_ms, GUIDE_RADIUS) - mean * mean).clamp_min(0)
    covariance = local_mean(residual * pan_ms, GUIDE_RADIUS) - local_mean(residual, GUIDE_RADIUS) * mean
    slope = (covariance / (variance + _GUIDE_SHRINKAGE)).clamp(-_LARGEST_GUIDE_GAIN, _LARGEST_GUIDE_GAIN)
    return torch.cat([residual - slope * pan_ms, slope])


def denoise_residual(residual: Tensor, sensor_model: SensorModel, iteration: int) -> Tensor:
    """Wiener-filter the MS residual before `iteration`, so that back-projection does not amplify sensor noise.

    Args:
        residual: (B, C, h, w), normalised.
        sensor_model: noise and MTF of each band.
        iteration: number of the iteration, from 0.
    """
    if not any(sensor_model.ms_noise):
        return residual
    ratio = sensor_model.grid.ratio
    kept = [residual_noise_power(ratio, gain, iteration) for gain in sensor_model.nyquist_gains]
    power = [_NOISE_OVERSUBTRACTION * k * std**2 for k, std in zip(kept, sensor_model.ms_noise, strict=True)]
    return wiener_filter(residual, residual.new_tensor(power)[:, None, None])


def denoise_pan(pan: Tensor, sensor_model: SensorModel, rows: int | None = None) -> Tensor:
    """Suppress fluctuations of the PAN (B, 1, H, W), normalised, below its noise: they are no detail of any band.

    Args:
        pan: of a window; H and W are multiples of the network's stride.
        sensor_model: noise of the PAN.
        rows: work in strips of as many rows, with little memory; None works on the whole.
    """
    if not sensor_model.pan_noise:
        return pan
    power = pan.new_tensor(_HIGH_PASS_NOISE_SHARE * sensor_model.pan_noise**2)
    if rows is None:
        return wiener_filter(pan, power)
    window, out = Window(0, 0, pan.shape[2], pan.shape[3]), torch.empty_like(pan)
    for strip in window.strips(rows):
        outer = strip.grown_within(WIENER_RADIUS, window)
        filtered = wiener_filter(outer.crop(pan), power)
        strip.crop(out).copy_(strip.relative_to(outer).crop(filtered))
    return out


def wiener_filter(image: Tensor, noise: Tensor) -> Tensor:
    """Attenuate what differs from the local mean by the share of its local power that is noise (Lee 1980).

    Args:
        image: (B, C, H, W).
        noise: power of the noise beyond the local mean, for all bands or (C, 1, 1).
    """
    coarse = local_mean(image, _COARSE_RADIUS)
    fine = image - coarse
    return coarse + fine * (1 - noise / local_mean(fine.square(), _POWER_RADIUS).clamp_min(1e-12)).clamp_min(0)


@functools.lru_cache(maxsize=64)
def residual_noise_power(ratio: Pixels, nyquist_gain: float, iteration: int) -> float:
    """Return the power of unit white MS noise in the high-pass residual before `iteration` of back-projection.

    It is the energy of the impulse response of that residual, which is linear in the MS.
    """
    size = 48
    residual = torch.zeros(1, 1, size, size)
    residual[..., size // 2, size // 2] = 1.0
    sensor_model = SensorModel(GridMapping(ratio, (0.0, 0.0)), (nyquist_gain,))
    shape = (round(size * ratio[0]), round(size * ratio[1]))
    for step in (1.0, *relaxation(iteration)):
        residual = residual - to_ms(to_pan(step * residual, shape, sensor_model), (size, size), sensor_model)
    fine = high_pass(residual, _COARSE_RADIUS)
    return float(fine.double().square().sum())


def relaxation(iterations: int) -> list[float]:
    """Return the relaxation factor of each iteration."""
    return [RELAXATION[min(iteration, len(RELAXATION) - 1)] for iteration in range(iterations)]
