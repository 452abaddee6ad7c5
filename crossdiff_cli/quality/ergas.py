"""ERGAS: the error of each band relative to its mean, in one figure (Wald 2000). Blind to where the error lies."""

import math

import torch
from torch import Tensor


class Ergas:
    """100 / ratio * sqrt(mean over bands of (RMSE / mean of the reference)^2); 0 is best."""

    def __init__(self, ratio: tuple[float, float]) -> None:
        """`ratio`: PAN pixels per MS pixel (rows, columns); their geometric mean scales the figure."""
        self._scale = 100.0 / math.sqrt(ratio[0] * ratio[1])
        self._error: Tensor | float = 0.0
        self._level: Tensor | float = 0.0
        self._count = 0

    def update(self, fused: Tensor, reference: Tensor, mask: Tensor) -> None:
        """Add a window: fused and reference (bands, rows, columns), mask bool (rows, columns)."""
        x, y = fused.double()[:, mask], reference.double()[:, mask]
        self._error = self._error + ((x - y) ** 2).sum(1)
        self._level = self._level + y.sum(1)
        self._count += int(mask.sum())

    def per_band(self) -> Tensor:
        """RMSE of each band over the mean of the reference band, float64 (bands,)."""
        if not self._count:
            return torch.full((1,), torch.nan, dtype=torch.float64)
        mean = torch.as_tensor(self._level) / self._count
        return (torch.as_tensor(self._error) / self._count).sqrt() / mean.abs()

    def compute(self) -> float:
        """The figure so far, NaN if no pixel counted, infinite if the reference has an empty band."""
        return float(self._scale * (self.per_band() ** 2).mean().sqrt())
