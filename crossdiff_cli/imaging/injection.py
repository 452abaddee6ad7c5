"""Inputs of detail injection (MTF-GLP): low-passed PAN, upsampled MS and the local regression gain of each band."""

from torch import Tensor

from crossdiff_cli.imaging.filters import local_mean
from crossdiff_cli.imaging.sensor_model import SensorModel, pan_on_ms_grid, to_pan

BETA_RADIUS = 3
"""Radius, in MS pixels, of the window of the local regression of the MS on the PAN."""
_BETA_SHRINKAGE = 0.02


def local_gain(ms: Tensor, pan_ms: Tensor) -> Tensor:
    """Regress each MS band on the PAN in a small window: cov(ms, pan) / var(pan), shrunk to 1 where the PAN is flat.

    Args:
        ms: (B, C, h, w), normalised.
        pan_ms: (B, C, h, w), the normalised PAN degraded to the MS grid by each band's MTF.

    Returns:
        (B, C, h, w), clipped to [-1, 3] (context-based injection, Aiazzi et al. 2002).
    """
    mean_pan = local_mean(pan_ms, BETA_RADIUS)
    covariance = local_mean(ms * pan_ms, BETA_RADIUS) - local_mean(ms, BETA_RADIUS) * mean_pan
    variance = local_mean(pan_ms * pan_ms, BETA_RADIUS) - mean_pan * mean_pan
    return ((covariance + _BETA_SHRINKAGE) / (variance.clamp_min(0) + _BETA_SHRINKAGE)).clamp(-1.0, 3.0)


def prepare(pan: Tensor, ms: Tensor, sensor_model: SensorModel) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the fusion head takes besides the PAN (B, 1, H, W), from it and the MS (B, C, h, w).

    Returns:
        pan_low (B, C, H, W), the PAN at the resolution of each band; ms_up (B, C, H, W), the MS on the PAN grid; and
        beta (B, C, H/2, W/2), the local gain.
    """
    shape = (pan.shape[2], pan.shape[3])
    pan_ms = pan_on_ms_grid(pan, (ms.shape[2], ms.shape[3]), sensor_model)
    pan_low, ms_up = (to_pan(x, shape, sensor_model) for x in (pan_ms, ms))
    half = sensor_model.at_half_resolution()
    return pan_low, ms_up, to_pan(local_gain(ms, pan_ms), (shape[0] // 2, shape[1] // 2), half)
