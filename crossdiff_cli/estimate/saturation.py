"""Estimate the DN at which each band saturates from the sample windows: many pixels share the largest value."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from crossdiff_cli.estimate.matching import SampleWindow

_MIN_PIXELS = 16
"""Pixels of the largest value below which it is no saturation."""
_SPIKE = 4.0
"""Least ratio of their number to the mean number of pixels of each of the next lower values."""
_LOWER = 8
"""Number of the next lower values that are compared."""


def saturation_levels(samples: Sequence[SampleWindow]) -> tuple[float, ...]:
    """Return the DN at which each band of `samples` saturates; infinite for a band that shows no saturation."""
    return tuple(_level([view.ms[band][view.mask] for view in samples]) for band in range(len(samples[0].ms)))


def _level(parts: Sequence[Tensor]) -> float:
    values = torch.cat([part.flatten() for part in parts])
    if not values.numel() or not (largest := float(values.max())) > 0:
        return math.inf
    if int((values == largest).sum()) < _MIN_PIXELS:
        return math.inf
    counts = torch.unique(values, return_counts=True)[1].double()
    lower = counts[:-1][-_LOWER:]
    return largest if len(lower) and float(counts[-1]) >= _SPIKE * float(lower.mean()) else math.inf
