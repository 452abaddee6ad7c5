"""Overshoot: how far the result leaves the range of the reference nearby. Sees halos, ringing and mottle.

The mean distance of each pixel from the range that the 3 x 3 pixels of the reference around it span, in per cent of the
standard deviation of the band in the reference. Misses blur, and colours within that range.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from crossdiff_cli.quality.sliding import full_windows
from crossdiff_cli.quality.windows import zero_masked

SUPPORT = 3
"""Side of the part of the image that one pixel is judged by, in pixels."""


class Overshoot:
    """Mean over bands, in per cent; 0 is best. A band that is constant in the reference is left out."""

    def __init__(self) -> None:
        """Start empty."""
        self._outside = self._sum = self._squares = torch.zeros(0, dtype=torch.float64)
        self._count = 0

    def update(self, fused: Tensor, reference: Tensor, mask: Tensor) -> None:
        """Add all pixels whose neighbours are there; to stream, let the arrays overlap by `SUPPORT` - 1.

        Args:
            fused: (bands, rows, columns).
            reference: the same shape.
            mask: bool (rows, columns), True where both are valid.
        """
        if min(mask.shape) < SUPPORT:
            return
        use = full_windows(mask, (SUPPORT, SUPPORT))
        x, y = (zero_masked(image, mask) for image in (fused, reference))
        highest, lowest = F.max_pool2d(y, SUPPORT, stride=1), -F.max_pool2d(-y, SUPPORT, stride=1)
        x, y = x[:, 1:-1, 1:-1], y[:, 1:-1, 1:-1]
        outside = (torch.maximum(x - highest, lowest - x).clamp_min(0))[:, use].sum(dim=1)
        sums = (outside, y[:, use].sum(dim=1), y[:, use].square().sum(dim=1))
        if not self._count:
            self._outside, self._sum, self._squares = (torch.zeros_like(one) for one in sums)
        self._outside, self._sum, self._squares = (
            total + one for total, one in zip((self._outside, self._sum, self._squares), sums, strict=True)
        )
        self._count += int(use.sum())

    def compute(self) -> float:
        """The mean so far, NaN if no pixel counted."""
        if not self._count:
            return math.nan
        mean = self._sum / self._count
        deviation = (self._squares / self._count - mean.square()).clamp_min(0).sqrt()
        known = deviation > 1e-6 * mean.abs()
        shares = 100 * self._outside[known] / self._count / deviation[known]
        return float(shares.mean()) if known.any() else math.nan
