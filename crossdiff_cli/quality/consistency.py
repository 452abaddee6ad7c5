"""Spectral consistency: the result degraded by the MTF of each band and decimated, against the MS it was made from.

R-ERGAS, R-SAM and R-Q2n of Scarpa and Ciotola (2022, doi 10.3390/rs14081808). See any colour error that an MS pixel can
show. Miss everything finer: an unsharpened result that keeps the MS pixels scores perfectly.
"""

import torch
from torch import Tensor

from crossdiff_cli.geometry.window import Window
from crossdiff_cli.imaging.resample import degrade, mtf_radius
from crossdiff_cli.quality.blocks import BlockMean, block_moments, q_index
from crossdiff_cli.quality.ergas import Ergas
from crossdiff_cli.quality.inputs import Judged, read
from crossdiff_cli.quality.q2n import block_q2n
from crossdiff_cli.quality.sam import Sam
from crossdiff_cli.quality.windows import all_valid


class Consistency:
    """R-ERGAS, R-SAM and R-Q2n (blocks of 32 x 32 MS pixels), and the error and the Q index of each band."""

    def __init__(self, ratio: tuple[float, float]) -> None:
        """`ratio`: PAN pixels per MS pixel (rows, columns)."""
        self._ergas, self._sam = Ergas(ratio), Sam()
        self._q2n, self._q = BlockMean(), BlockMean()

    def update(self, degraded: Tensor, ms: Tensor, mask: Tensor) -> None:
        """Add a window of the MS grid whose corners lie on block corners.

        Args:
            degraded: (bands, rows, columns), the result brought to the MS grid by `mtf.degrade`.
            ms: the same shape.
            mask: bool (rows, columns), True where the MS and all that `degraded` was made from are valid.
        """
        self._ergas.update(degraded, ms, mask)
        self._sam.update(degraded, ms, mask)
        moments = block_moments(degraded, ms, mask)
        self._q2n.update(block_q2n(moments), moments.enough)
        self._q.update(q_index(moments, paired=True), moments.enough)

    def r_ergas(self) -> float:
        """ERGAS on the MS grid, 0 is best."""
        return self._ergas.compute()

    def r_sam(self) -> float:
        """SAM on the MS grid in degrees, 0 is best."""
        return self._sam.compute()

    def r_q2n(self) -> float:
        """Q2n on the MS grid, 1 is best."""
        return float(self._q2n.compute())

    def error_per_band(self) -> Tensor:
        """RMSE of each band over the mean of the MS band, float64 (bands,)."""
        return self._ergas.per_band()

    def q_per_band(self) -> Tensor:
        """Q index of each band against the MS band, float64 (bands,)."""
        return self._q.compute()


def on_ms_grid(judged: Judged, core: Window) -> tuple[Tensor, Tensor, Tensor] | None:
    """Degrade the result to a window of the MS grid: what `Consistency.update` takes, or None off the PAN grid.

    An MS pixel counts if it lies on the PAN grid and every PAN pixel that the MTF gathers for it is valid.
    """
    grid, pan_shape = judged.grid, judged.shape
    gathered, on_grid, spans = [], [], []
    for axis, (first, n) in enumerate(zip((core.row, core.col), core.shape, strict=True)):
        ratio, size = grid.ratio[axis], pan_shape[axis]
        radius = max(mtf_radius(gain, ratio) for gain in judged.gains)
        corner = grid.offset[axis] + (first + torch.arange(n, dtype=torch.float64)) * ratio
        centre = (corner + 0.5 * ratio - 0.5).floor().long()
        gathered.append((centre - radius, centre + radius + 2))
        on_grid.append((corner >= 0) & (corner + ratio <= size))
        spans.append((max(int(centre[0]) - radius, 0), min(int(centre[-1]) + radius + 2, size)))
    (top, bottom), (left, right) = spans
    if bottom <= top or right <= left:
        return None
    outer = Window(top, left, bottom - top, right - left)
    fused, fused_mask = read(judged.fused, outer)
    ms, ms_mask = read(judged.ms, core)
    degraded = degrade(fused[None], core.shape, grid.ratio, grid.local_offset(outer, core), judged.gains)[0]
    (above, below), (before, behind) = gathered
    whole = all_valid(fused_mask, (above - top, below - top), (before - left, behind - left))
    return degraded, ms, ms_mask & whole & on_grid[0][:, None] & on_grid[1]
