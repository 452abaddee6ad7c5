"""Limit a result to the range that MS and PAN show nearby: no halo, no ringing, no mottle beyond it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from crossdiff_cli.geometry.grid import Pixels
from crossdiff_cli.imaging.resample import span
from crossdiff_cli.imaging.sensor_model import SensorModel

_TOLERANCE = 0.25
"""Share of that range by which a result may leave it: MS pixels do not show all that lies between them."""
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Limits:
    """The range that MS and PAN show around each MS pixel."""

    top: Tensor
    """(B, C, h, w): highest value of the 3 x 3 MS pixels around, widened."""
    bottom: Tensor
    """(B, C, h, w): lowest value, widened."""
    pan_top: Tensor
    """(B, 1, h, w): highest value of the PAN on the MS grid."""
    pan_bottom: Tensor
    """(B, 1, h, w): lowest value."""
    saturated: Tensor | None
    """(B, C, h, w): where a band saturates, or what the MS shows nearby; None where none does."""

    @classmethod
    def of(cls, ms: Tensor, pan_ms: Tensor, sensor_model: SensorModel) -> "Limits":
        """Look for the range of `ms` (B, C, h, w) and of the PAN on its grid (B, C, h, w), both normalised."""
        highest, lowest = _range(ms)
        margin = _TOLERANCE * (highest - lowest)
        saturated = None
        if sensor_model.saturation:
            saturated = torch.maximum(highest, ms.new_tensor(sensor_model.saturation)[:, None, None])
        return cls(highest + margin, lowest - margin, *_range(pan_ms.mean(dim=1, keepdim=True)), saturated)

    def clip(self, hrms: Tensor, pan: Tensor, sensor_model: SensorModel) -> Tensor:
        """Clip each band to the range of the MS, widened by what the PAN shows beyond its own range.

        A band that saturates stays below its saturation, or what the MS shows nearby.

        Args:
            hrms: (B, C, H, W), normalised.
            pan: (B, 1, H, W), normalised.
            sensor_model: of the window.
        """
        parts = []
        for offset, bands in sensor_model.grid.bands_by_offset(hrms.shape[1]):
            at = _Nearest(hrms.shape[2:], self.top.shape[2:], offset, sensor_model.grid.ratio, hrms.device)
            some = span(bands)
            top, bottom = at(self.top[:, some]), at(self.bottom[:, some])
            top.add_((pan - at(self.pan_top)).clamp_min(0))
            bottom.add_((pan - at(self.pan_bottom)).clamp_max(0))
            if self.saturated is not None:
                top = torch.minimum(top, at(self.saturated[:, some]))
            parts.append((some, torch.clamp(hrms[:, some], bottom, top)))
        if len(parts) == 1:
            return parts[0][1]
        out = torch.empty_like(hrms)
        for some, part in parts:
            out[:, some] = part
        return out


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


class _Nearest:
    """Takes the values of the MS pixels that hold the centres of PAN pixels."""

    def __init__(
        self, shape: Sequence[int], coarse: Sequence[int], offset: Pixels, ratio: Pixels, device: torch.device
    ) -> None:
        axes = [_containing(*axis, device) for axis in zip(shape, coarse, offset, ratio, strict=True)]
        (self._row_span, self._rows), (self._column_span, self._columns) = axes

    def __call__(self, image: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C, H, W); the rows last: they are copied whole."""
        return image[..., self._row_span, self._column_span][..., self._columns][..., self._rows, :]


def _containing(size: int, count: int, start: float, ratio: float, device: torch.device) -> tuple[slice, Tensor]:
    """Return which of `count` MS pixels hold the centres of `size` PAN pixels, and which of them each centre lies in.

    A centre on an edge lies in the later one.
    """

    def pixel(index: int) -> int:
        return min(max(math.floor((index + 0.5 - start) / ratio + _ROUNDING), 0), count - 1)

    first, last = pixel(0), pixel(size - 1)
    centres = torch.arange(size, dtype=torch.float64, device=device) + 0.5
    index = ((centres - start) / ratio + _ROUNDING).floor().long().clamp(first, last) - first
    return slice(first, last + 1), index
