"""D_rho: one minus the local correlation of each band with PAN. Is the detail of PAN there, and where PAN has it?

Scarpa and Ciotola (2022, doi 10.3390/rs14081808). Sees blur and misplaced edges. Misses colour altogether: a PAN
copied to every band scores a perfect zero.
"""

import torch
from torch import Tensor

from crossdiff_cli.quality.blocks import FLAT
from crossdiff_cli.quality.sliding import full_windows, window_sums
from crossdiff_cli.quality.windows import zero_masked


def correlations(fused: Tensor, pan: Tensor, mask: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Correlate each band with the PAN in all whole windows of `size` (rows, columns); arrays as `DRho.update` takes.

    Returns:
        The correlations, (bands, height - rows + 1, width - columns + 1) in [-1, 1], 0 where the band is flat; the
        variance of the PAN and bool which windows count, both without the bands.
    """
    x, y = (zero_masked(image, mask) for image in (fused, pan))
    n = size[0] * size[1]
    mean_x, mean_y = window_sums(x, size) / n, window_sums(y, size) / n
    var_x = window_sums(x * x, size) / n - mean_x**2
    var_y = window_sums(y * y, size) / n - mean_y**2
    cov = window_sums(x * y, size) / n - mean_x * mean_y
    use = full_windows(mask, size) & (var_y > FLAT**2 * mean_y**2)[0]
    return torch.where(var_x > FLAT**2 * mean_x**2, cov / (var_x * var_y).sqrt(), 0.0), var_y[0], use


class DRho:
    """1 - mean correlation in sliding windows; windows with a masked pixel or a flat PAN are left out."""

    def __init__(self, size: tuple[int, int]) -> None:
        """`size` is the window (rows, columns): ratio x ratio pixels."""
        self.size = size
        self._total: Tensor | None = None
        self._count = 0

    def update(self, fused: Tensor, pan: Tensor, mask: Tensor) -> None:
        """Add all whole windows of these arrays; to stream, let them overlap by `size` - 1 rows and columns.

        Args:
            fused: (bands, rows, columns).
            pan: (1, rows, columns).
            mask: bool (rows, columns), True where both are valid.
        """
        if mask.shape[0] < self.size[0] or mask.shape[1] < self.size[1]:
            return
        rho, _, use = correlations(fused, pan, mask, self.size)
        total = rho[:, use].sum(1)
        self._total = total if self._total is None else self._total + total
        self._count += int(use.sum())

    def per_band(self) -> Tensor:
        """1 - mean local correlation of each band, float64 (bands,)."""
        if self._total is None or not self._count:
            return torch.full((1,), torch.nan, dtype=torch.float64)
        return 1.0 - self._total / self._count

    def compute(self) -> float:
        """The mean over bands, in [0, 2], 0 is best; NaN if no window counted."""
        return float(self.per_band().mean())
