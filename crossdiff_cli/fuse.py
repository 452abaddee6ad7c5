"""One window, from normalised PAN and MS to normalised HRMS: expand, degrade, network, back-projection."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from crossdiff_cli.model.crossdiff import CrossDiff
from crossdiff_cli.model.region import Part, Region, compact
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

    def within(self, part: Region) -> "Sampling":
        """The same on a part of the PAN window."""
        return replace(self, offset=(self.offset[0] - part.top, self.offset[1] - part.left))


def halo(model: CrossDiff, ratio: tuple[float, float], gains: Sequence[float], rounds: int) -> int:
    """Return how many PAN pixels around a pixel can change its fused value: the halo a tile needs."""
    largest = max(ratio)
    consistency = _consistency_radius(ratio, gains)
    beta = consistency + math.ceil((BETA_RADIUS + 1) * largest)
    return max(model.radius + consistency, beta) + rounds * consistency


def _consistency_radius(ratio: tuple[float, float], gains: Sequence[float]) -> int:
    """Reach of `degrade` followed by `expand`, in PAN pixels."""
    largest = max(ratio)
    return max(mtf_radius(gain, largest) for gain in gains) + 2 + math.ceil((EXPAND_RADIUS + 1) * largest)


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
    pan_ms = _pan_on_ms(pan, ms, sampling)
    pan_low, ms_up, beta = (
        expand(x, shape, sampling.ratio, sampling.offset) for x in (pan_ms, ms, local_gain(ms, pan_ms))
    )
    return pan_low, ms_up, beta


def _pan_on_ms(pan: Tensor, ms: Tensor, sampling: Sampling) -> Tensor:
    """The PAN at the MS grid by the MTF of each band: (B, C, h, w)."""
    distinct = list(dict.fromkeys(sampling.gains))
    shape = (ms.shape[2], ms.shape[3])
    pan_ms = degrade(pan.expand(-1, len(distinct), -1, -1), shape, sampling.ratio, sampling.offset, distinct)
    return pan_ms[:, [distinct.index(gain) for gain in sampling.gains]]


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
    with torch.autocast(pan.device.type, dtype, enabled=dtype != torch.float32):
        hrms = model(compact(pan), pan_low, compact(ms_up), beta, spectrum)
    return back_project(hrms.float(), ms, sampling, rounds)


def fuse_core(
    model: CrossDiff,
    pan: Tensor,
    ms: Tensor,
    sampling: Sampling,
    spectrum: Spectrum,
    rounds: int,
    core: Region,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """As `fuse`, for the core of a window alone: no stage is computed farther out than the next one reaches.

    Returns:
        The core, (B, C, rows, columns), equal to that of `fuse` where the window reaches `halo` beyond it; and what the
        result, degraded, leaves of the MS: (B, C, h, w), of meaning for MS pixels whose centres lie in the core.
    """
    window = Region.whole(pan)
    keep = core.grown(max(rounds, 1) * _consistency_radius(sampling.ratio, sampling.gains), window)
    seen = keep.grown(model.radius, window)
    pan_ms = _pan_on_ms(pan, ms, sampling)
    whole = seen.of(pan)

    def sharp(part: Region) -> Tensor:
        return compact(part.of(whole))

    def expanded(coarse: Tensor) -> Part:
        def image(part: Region) -> Tensor:
            with torch.autocast(pan.device.type, enabled=False):
                return compact(expand(coarse, part.shape, sampling.ratio, sampling.within(seen).within(part).offset))

        return image

    low, up, beta = expanded(pan_ms), expanded(ms), expanded(local_gain(ms, pan_ms))
    with torch.autocast(pan.device.type, dtype, enabled=dtype != torch.float32):
        hrms = model.part(sharp, low, up, beta, spectrum, Region.whole(whole), keep.within(seen))
    kept, inner = sampling.within(keep), core.within(keep)
    coarse = (ms.shape[2], ms.shape[3])
    left = ms - degrade(hrms, coarse, kept.ratio, kept.offset, kept.gains)
    out = inner.of(hrms)
    for _ in range(rounds):
        # Both steps are linear: what the update takes away is known without the result.
        update = expand(left, keep.shape, kept.ratio, kept.offset)
        out = out + inner.of(update)
        left = left - degrade(update, coarse, kept.ratio, kept.offset, kept.gains)
    return out, left
