"""SAM: the mean angle between the spectra of result and reference. Blind to brightness, so to most lost detail."""

import math

import torch
from torch import Tensor


class Sam:
    """Mean spectral angle in degrees; pixels where either spectrum is all zero are left out."""

    def __init__(self) -> None:
        """Start empty."""
        self._total, self._count = 0.0, 0

    def update(self, fused: Tensor, reference: Tensor, mask: Tensor) -> None:
        """Add a window: fused and reference (bands, rows, columns), mask bool (rows, columns)."""
        x, y = fused.double()[:, mask], reference.double()[:, mask]
        norm_x, norm_y = _length(x), _length(y)
        use = (norm_x > 0) & (norm_y > 0)
        x, y = x[:, use] / norm_x[use], y[:, use] / norm_y[use]
        # Kahan's form of the angle: exact zero for equal spectra, where the arc cosine loses half of the digits.
        self._total += float(2.0 * torch.atan2(_length(x - y), _length(x + y)).sum())
        self._count += int(use.sum())

    def compute(self) -> float:
        """Degrees, NaN if no pixel counted."""
        return math.degrees(self._total / self._count) if self._count else math.nan


def _length(spectra: Tensor) -> Tensor:
    return (spectra**2).sum(0).sqrt()
