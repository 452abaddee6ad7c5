"""What the fusion head learns from at full resolution: MTF consistency and local structure."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from crossdiff_cli.imaging.sensor_model import SensorModel, to_ms

_FLAT = 0.01
"""Product of two deviations, normalised, under which a window counts as flat: its noise is no structure to follow."""


def spectral_loss(hrms: Tensor, ms: Tensor, sensor_model: SensorModel) -> Tensor:
    """Mean absolute error of the result (B, C, H, W), degraded by the MTF, against the MS (B, C, h, w): a scalar.

    The two outermost MS pixels, which reach beyond the window, do not count.
    """
    seen = to_ms(hrms, (ms.shape[2], ms.shape[3]), sensor_model)
    rows, cols = (
        _inside(sensor_model.grid.offset[axis], sensor_model.grid.ratio[axis], hrms.shape[2 + axis], ms.shape[2 + axis])
        for axis in (0, 1)
    )
    return (seen - ms)[:, :, rows, cols].abs().mean()


def local_correlation(a: Tensor, b: Tensor, radius: int) -> Tensor:
    """Pearson correlation in windows of 2 radius + 1 pixels, (B, C, H, W) each, in [-1, 1]; 0 where either is flat."""

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(x, [radius] * 4, mode="reflect"), 2 * radius + 1, stride=1)

    mean_a, mean_b = mean(a), mean(b)
    covariance = mean(a * b) - mean_a * mean_b
    variance_a = (mean(a * a) - mean_a * mean_a).clamp_min(0)
    variance_b = (mean(b * b) - mean_b * mean_b).clamp_min(0)
    return covariance / torch.sqrt(variance_a * variance_b + _FLAT**2)


def structural_loss(hrms: Tensor, pan: Tensor, pan_low: Tensor, ms_up: Tensor, ratio: float) -> Tensor:
    """1 - local correlation of each band with the PAN, where it is lower than at the MS resolution.

    As in lambda-PNN (2307.14403). The threshold is the correlation of the low-passed PAN with the upsampled MS in wider
    windows: no band is asked to follow the PAN more closely than it does at low resolution.
    """
    with torch.no_grad():
        wanted = local_correlation(ms_up, pan_low, 2 * math.ceil(ratio))
    found = local_correlation(hrms, pan.expand_as(hrms), max(1, math.ceil(ratio / 2)))
    return ((1 - found) * (found < wanted)).mean()


def qnr_loss(hrms: Tensor, pan: Tensor, ms: Tensor, pan_ms: Tensor) -> Tensor:
    """1 - QNR with one window as large as the image: the loss of the paper (2401.05153, eq. 11-14).

    A PAN copied to every band scores well by it; it is here to be compared with.

    Args:
        hrms: (B, C, H, W).
        pan: (B, 1, H, W).
        ms: (B, C, h, w).
        pan_ms: (B, C, h, w), the PAN at the resolution of the MS.
    """
    count = ms.shape[1]
    first, second = torch.triu_indices(count, count, offset=1)
    spectral = (_index(hrms[:, first], hrms[:, second]) - _index(ms[:, first], ms[:, second])).abs()
    spatial = (_index(hrms, pan.expand_as(hrms)) - _index(ms, pan_ms)).abs()
    d_lambda = spectral.mean() if count > 1 else spatial.new_zeros(())
    return 1 - (1 - d_lambda) * (1 - spatial.mean())


def _index(a: Tensor, b: Tensor) -> Tensor:
    """Universal image quality index of whole images (B, C, H, W), of which the means are taken out: (B, C).

    Normalised images have mean 0; with the means of the scene left in the index would depend on the unit.
    """
    a, b = (x - x.mean(dim=(2, 3), keepdim=True) for x in (a, b))
    energy = (a.square() + b.square()).mean(dim=(2, 3))
    return 2 * (a * b).mean(dim=(2, 3)) / (energy + 1e-6)


def _inside(offset: float, ratio: float, size: int, count: int) -> slice:
    """MS pixels, as a slice, that lie two or more of them inside a window of `size` PAN pixels."""
    first = math.ceil(-offset / ratio) + 2
    last = math.floor((size - offset) / ratio) - 2
    return slice(max(first, 0), min(last, count))
