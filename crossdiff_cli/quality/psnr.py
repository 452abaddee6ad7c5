"""PSNR: the squared error pooled over all bands against the range of the data, in decibels."""

import math

from torch import Tensor


class Psnr:
    """10 log10(range^2 / MSE), the MSE pooled over bands and pixels; infinite for identical images."""

    def __init__(self, data_range: float) -> None:
        """`data_range`: highest minus lowest value that the data can take, in DN."""
        self._range = data_range
        self._error, self._count = 0.0, 0

    def update(self, fused: Tensor, reference: Tensor, mask: Tensor) -> None:
        """Add a window: fused and reference (bands, rows, columns), mask bool (rows, columns)."""
        x, y = fused.double()[:, mask], reference.double()[:, mask]
        self._error += float(((x - y) ** 2).sum())
        self._count += x.numel()

    def compute(self) -> float:
        """Decibels, NaN if no pixel counted."""
        if not self._count:
            return math.nan
        mse = self._error / self._count
        return 10.0 * math.log10(self._range**2 / mse) if mse else math.inf
