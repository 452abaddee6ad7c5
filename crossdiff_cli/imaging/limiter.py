"""Limit a result to the range that MS and PAN show nearby: no halo, no ringing, no mottle beyond it."""

import torch
import torch.nn.functional as F
from torch import Tensor

from crossdiff_cli.imaging.resample import span
from crossdiff_cli.imaging.sensor_model import SensorModel

LIMIT_RADIUS = 1
"""Radius, in MS pixels, of the window whose range counts."""
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
    limits = {"top": highest + margin, "bottom": lowest - margin}
    if sensor_model.saturation:
        level = ms.new_tensor(sensor_model.saturation)[:, None, None]
        limits["saturation"] = torch.maximum(highest, level)
    out = torch.empty_like(hrms)
    for offset, bands in sensor_model.grid.bands_by_offset(hrms.shape[1]):
        rows, columns = (
            _nearest(size, count, start, ratio, hrms.device)
            for size, count, start, ratio in zip(
                hrms.shape[2:], ms.shape[2:], offset, sensor_model.grid.ratio, strict=True
            )
        )
        some = span(bands)

        def here(image: Tensor, rows: Tensor = rows, columns: Tensor = columns) -> Tensor:
            return image.index_select(2, rows).index_select(3, columns)

        top = here(limits["top"][:, some]) + (pan - here(pan_highest)).clamp_min(0)
        if "saturation" in limits:
            top = torch.minimum(top, here(limits["saturation"][:, some]))
        bottom = here(limits["bottom"][:, some]) + (pan - here(pan_lowest)).clamp_max(0)
        out[:, some] = torch.minimum(torch.maximum(hrms[:, some], bottom), top)
    return out


def _range(image: Tensor) -> tuple[Tensor, Tensor]:
    """Return the highest and the lowest value in the window of each pixel, the border repeated."""
    padded = F.pad(image, [LIMIT_RADIUS] * 4, mode="replicate")
    size = 2 * LIMIT_RADIUS + 1
    return F.max_pool2d(padded, size, stride=1), -F.max_pool2d(-padded, size, stride=1)


def _nearest(size: int, count: int, start: float, ratio: float, device: torch.device) -> Tensor:
    """Return the MS pixel that holds the centre of each of `size` PAN pixels, the later one of a centre on an edge."""
    centres = torch.arange(size, dtype=torch.float64) + 0.5
    return ((centres - start) / ratio + _ROUNDING).floor().long().clamp(0, count - 1).to(device)
