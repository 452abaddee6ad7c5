"""Limit a result to the range that MS and PAN show nearby: no halo, no ringing, no mottle beyond it."""

import torch
import torch.nn.functional as F
from torch import Tensor

from crossdiff_cli.imaging.resample import span
from crossdiff_cli.imaging.sensor_model import SensorModel

_TOLERANCE = 0.25
"""Share of that range by which a result may leave it: MS pixels do not show all that lies between them."""
_ROUNDING = 1e-6


def limit(hrms: Tensor, pan: Tensor, ms: Tensor, pan_ms: Tensor, sensor_model: SensorModel) -> Tensor:
    """Clip each band to the range of the 3 x 3 MS pixels around, widened by what the PAN shows beyond its own range.

    A band that saturates stays below its saturation, or what the MS shows nearby.

    Args:
        hrms: (B, C, H, W), normalised.
        pan: (B, 1, H, W), normalised.
        ms: (B, C, h, w), normalised.
        pan_ms: (B, C, h, w), the PAN on the MS grid.
        sensor_model: of the window.
    """
    highest, lowest = _range(ms)
    margin = _TOLERANCE * (highest - lowest)
    pan_highest, pan_lowest = _range(pan_ms.mean(dim=1, keepdim=True))
    top_ms, bottom_ms, saturated = highest + margin, lowest - margin, None
    if sensor_model.saturation:
        saturated = torch.maximum(highest, ms.new_tensor(sensor_model.saturation)[:, None, None])
    parts = []
    for offset, bands in sensor_model.grid.bands_by_offset(hrms.shape[1]):
        place = hrms.shape[2:], ms.shape[2:], offset, sensor_model.grid.ratio
        rows, columns = (_nearest(*axis, hrms.device) for axis in zip(*place, strict=True))
        some = span(bands)
        top, bottom = (_at(image[:, some], rows, columns) for image in (top_ms, bottom_ms))
        top.add_((pan - _at(pan_highest, rows, columns)).clamp_min(0))
        bottom.add_((pan - _at(pan_lowest, rows, columns)).clamp_max(0))
        if saturated is not None:
            top = torch.minimum(top, _at(saturated[:, some], rows, columns))
        parts.append((some, torch.clamp(hrms[:, some], bottom, top)))
    if len(parts) == 1:
        return parts[0][1]
    out = torch.empty_like(hrms)
    for some, part in parts:
        out[:, some] = part
    return out


def _at(image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the values of an image (B, C, h, w) at rows and columns, the rows last: they are copied whole."""
    return image[..., columns][..., rows, :]


def _range(image: Tensor) -> tuple[Tensor, Tensor]:
    """Return the highest and the lowest value in the 3 x 3 window of each pixel, the border repeated."""
    highest = lowest = F.pad(image, [1, 1, 1, 1], mode="replicate")
    for axis in (2, 3):
        size = image.shape[axis]
        before, here, after = (highest.narrow(axis, start, size) for start in range(3))
        highest = torch.maximum(torch.maximum(before, here), after)
        before, here, after = (lowest.narrow(axis, start, size) for start in range(3))
        lowest = torch.minimum(torch.minimum(before, here), after)
    return highest, lowest


def _nearest(size: int, count: int, start: float, ratio: float, device: torch.device) -> Tensor:
    """Return the MS pixel that holds the centre of each of `size` PAN pixels, the later one of a centre on an edge."""
    centres = torch.arange(size, dtype=torch.float64, device=device) + 0.5
    return ((centres - start) / ratio + _ROUNDING).floor().long().clamp(0, count - 1)
