"""One window, from normalised PAN and MS to normalised HRMS: expand, degrade, network, back-projection."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from crossdiff_cli.model.crossdiff import CrossDiff
from crossdiff_cli.model.spectral import Spectrum
from crossdiff_cli.mtf import EXPAND_RADIUS, degrade, expand, mtf_radius

BETA_RADIUS = 3
"""Half-width, in MS pixels, of the window of the local regression of MS on PAN."""
_BETA_SHRINKAGE = 0.02


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the MS window of a scene lies on its PAN window."""

    ratio: tuple[float, float]
    """PAN pixels per MS pixel, (rows, columns)."""
    offset: tuple[float, float]
    """PAN coordinates of the outer corner of MS pixel (0, 0), (row, column); includes the registration shift."""
    gains: tuple[float, ...]
    """Nyquist gain of each band."""


def halo(model: CrossDiff, ratio: tuple[float, float], gains: tuple[float, ...], rounds: int) -> int:
    """Return how many PAN pixels around a pixel can change its fused value: the halo a tile needs."""
    largest = max(ratio)
    blur = max(mtf_radius(gain, largest) for gain in gains) + 2
    reach = math.ceil((EXPAND_RADIUS + 1) * largest)
    beta = blur + reach + math.ceil((BETA_RADIUS + 1) * largest)
    return max(model.radius + blur + reach, beta) + rounds * (blur + reach)


def local_gain(ms: Tensor, pan_ms: Tensor) -> Tensor:
    """Regress each MS band on the PAN in a small window: cov(ms, pan) / var(pan), shrunk to 1 where the PAN is flat.

    Args:
        ms: (B, C, h, w), normalised.
        pan_ms: (B, C, h, w), the normalised PAN degraded to the MS grid by each band's MTF.

    Returns:
        (B, C, h, w), clipped to [-1, 3] (context-based injection, Aiazzi et al. 2002).
    """

    def mean(x: Tensor) -> Tensor:
        size = 2 * BETA_RADIUS + 1
        return F.avg_pool2d(F.pad(x, [BETA_RADIUS] * 4, mode="replicate"), size, stride=1)

    mean_pan = mean(pan_ms)
    covariance = mean(ms * pan_ms) - mean(ms) * mean_pan
    variance = mean(pan_ms * pan_ms) - mean_pan * mean_pan
    return ((covariance + _BETA_SHRINKAGE) / (variance.clamp_min(0) + _BETA_SHRINKAGE)).clamp(-1.0, 3.0)


def prepare(pan: Tensor, ms: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor, Tensor]:
    """Return (pan_low, ms_up, beta), each (B, C, H, W), from `pan` (B, 1, H, W) and `ms` (B, C, h, w)."""
    shape = (pan.shape[2], pan.shape[3])
    ratio, offset = sampling.ratio, sampling.offset
    distinct = list(dict.fromkeys(sampling.gains))
    bands = [distinct.index(gain) for gain in sampling.gains]
    pan_ms = degrade(pan.expand(-1, len(distinct), -1, -1), (ms.shape[2], ms.shape[3]), ratio, offset, distinct)
    pan_low = expand(pan_ms, shape, ratio, offset)[:, bands]
    beta = expand(local_gain(ms, pan_ms[:, bands]), shape, ratio, offset)
    return pan_low, expand(ms, shape, ratio, offset), beta


def back_project(hrms: Tensor, ms: Tensor, sampling: Sampling, rounds: int) -> Tensor:
    """Make the result consistent with the MS: out += expand(ms - degrade(out)), `rounds` times."""
    shape = (hrms.shape[2], hrms.shape[3])
    for _ in range(rounds):
        seen = degrade(hrms, (ms.shape[2], ms.shape[3]), sampling.ratio, sampling.offset, sampling.gains)
        hrms = hrms + expand(ms - seen, shape, sampling.ratio, sampling.offset)
    return hrms


def fuse(
    model: CrossDiff,
    pan: Tensor,
    ms: Tensor,
    sampling: Sampling,
    spectrum: Spectrum,
    rounds: int,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Fuse a window: `pan` (B, 1, H, W) and `ms` (B, C, h, w), normalised; H and W multiples of the network's stride.

    `dtype` is the precision of the network; everything around it runs in float32.

    Returns:
        (B, C, H, W), normalised, float32.
    """
    pan_low, ms_up, beta = prepare(pan, ms, sampling)
    layout = torch.channels_last
    with torch.autocast(pan.device.type, dtype, enabled=dtype != torch.float32):
        hrms = model(
            pan.contiguous(memory_format=layout), pan_low, ms_up.contiguous(memory_format=layout), beta, spectrum
        )
    return back_project(hrms.float(), ms, sampling, rounds)
