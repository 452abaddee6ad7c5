"""Where a result is good: spectral error and local correlation with PAN of each band, in cells of some MS pixels."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from crossdiff_cli.geometry.window import Window
from crossdiff_cli.quality.blocks import FLAT
from crossdiff_cli.quality.consistency import on_ms_grid
from crossdiff_cli.quality.inputs import Judged, read
from crossdiff_cli.quality.sliding import full_windows, window_sums
from crossdiff_cli.quality.windows import BLOCK, grow, windows

CELLS = 128
"""Cells along the longer side of a scene, at most."""
_WINDOW = 512


@dataclass(frozen=True, slots=True)
class Maps:
    """Means over cells; NaN where nothing valid lies.

    Attributes:
        side: MS pixels along the side of a cell.
        error: mean absolute difference of the degraded result and the MS over the mean of the MS band,
            (bands, rows, columns).
        correlation: mean correlation with PAN in windows of ratio x ratio pixels, the same shape.
        detail: mean standard deviation of PAN in those windows, (rows, columns).
        cell: PAN pixels of a cell (rows, columns).
        offset: PAN coordinates (row, column) of the outer corner of the first cell.
    """

    side: int
    error: Tensor
    correlation: Tensor
    detail: Tensor
    cell: tuple[float, float]
    offset: tuple[float, float]


class _Cells:
    """Sums and counts of figures that fall into cells."""

    def __init__(self, bands: int, shape: tuple[int, int]) -> None:
        self.shape = shape
        self._total = torch.zeros(bands, shape[0] * shape[1], dtype=torch.float64)
        self._count = torch.zeros(shape[0] * shape[1], dtype=torch.float64)

    def add(self, values: Tensor, use: Tensor, rows: Tensor, columns: Tensor) -> None:
        """Add `values` (bands, h, w) where `use` (h, w); `rows` (h,) and `columns` (w,) are their cells."""
        inside = ((rows >= 0) & (rows < self.shape[0]))[:, None] & ((columns >= 0) & (columns < self.shape[1]))
        use = use & inside
        index = (rows[:, None] * self.shape[1] + columns)[use]
        self._total.index_add_(1, index, values[:, use])
        self._count.index_add_(0, index, torch.ones_like(index, dtype=torch.float64))

    def mean(self) -> Tensor:
        return (self._total / self._count).view(-1, *self.shape)


def draw_maps(judged: Judged) -> Maps:
    """Read a result once more, window by window, and average its errors by cell."""
    side = math.ceil(max(judged.ms_shape) / CELLS)
    shape = (math.ceil(judged.ms_shape[0] / side), math.ceil(judged.ms_shape[1] / side))
    bands = len(judged.gains)
    error, correlation = _Cells(bands, shape), _Cells(bands + 1, shape)
    level = _Cells(bands, (1, 1))
    for core in windows(judged.ms_shape, max(BLOCK, _WINDOW // round(max(judged.grid.ratio)) // BLOCK * BLOCK)):
        if degraded := on_ms_grid(judged, core):
            seen, ms, mask = degraded
            rows, columns = (torch.arange(n) + first for n, first in zip(core.shape, (core.row, core.col), strict=True))
            error.add((seen - ms).abs(), mask, rows // side, columns // side)
            level.add(ms.abs(), mask, rows * 0, columns * 0)
    for core in windows(judged.shape, _WINDOW):
        _correlate(judged, core, side, correlation)
    local = correlation.mean()
    ratio = judged.grid.ratio
    return Maps(
        side=side,
        error=error.mean() / level.mean(),
        correlation=local[:-1],
        detail=local[-1],
        cell=(ratio[0] * side, ratio[1] * side),
        offset=judged.grid.offset,
    )


def _correlate(judged: Judged, core: Window, side: int, cells: _Cells) -> None:
    """Add the sliding windows of ratio x ratio pixels whose corners lie in `core`."""
    ratio, offset = judged.grid.ratio, judged.grid.offset
    size = (max(2, round(ratio[0])), max(2, round(ratio[1])))
    outer = grow(core, (0, 0), (size[0] - 1, size[1] - 1), judged.shape)
    if outer.height < size[0] or outer.width < size[1]:
        return
    fused, fused_mask = read(judged.fused, outer)
    pan, pan_mask = read(judged.pan, outer)
    mask, n = fused_mask & pan_mask, size[0] * size[1]
    use = full_windows(mask, size)
    mean_x, mean_y = window_sums(fused, size) / n, window_sums(pan, size) / n
    var_x = window_sums(fused * fused, size) / n - mean_x**2
    var_y = window_sums(pan * pan, size) / n - mean_y**2
    cov = window_sums(fused * pan, size) / n - mean_x * mean_y
    use = use & (var_y > FLAT**2 * mean_y**2)[0]
    rho = torch.where(var_x > FLAT**2 * mean_x**2, cov / (var_x * var_y).sqrt(), 0.0)
    values = torch.cat([rho, var_y.clamp_min(0).sqrt()])
    centres = (
        ((torch.arange(count) + first + 0.5 * window - corner) / (step * side)).floor().long()
        for count, first, window, corner, step in zip(
            use.shape, (outer.row, outer.col), size, offset, ratio, strict=True
        )
    )
    cells.add(values.nan_to_num(), use, *centres)
