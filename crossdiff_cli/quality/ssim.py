"""SSIM: local likeness of brightness, contrast and structure (Wang et al. 2004, doi 10.1109/TIP.2003.819861)."""

import math

import torch
from torch import Tensor

from crossdiff_cli.quality.sliding import full_windows, slide
from crossdiff_cli.quality.windows import zero_masked

SIZE = 11
"""Side of the Gaussian window, in pixels."""

_SIGMA, _K1, _K2 = 1.5, 0.01, 0.03


class Ssim:
    """Mean SSIM over all whole 11 x 11 windows on valid pixels and over bands; 1 for identical images."""

    def __init__(self, data_range: float) -> None:
        """`data_range`: highest minus lowest value that the data can take, in DN."""
        self._c1, self._c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
        self._total, self._count = 0.0, 0

    def update(self, fused: Tensor, reference: Tensor, mask: Tensor) -> None:
        """Add all whole windows; to stream, let the arrays overlap by `SIZE` - 1 rows and columns.

        Args:
            fused: (bands, rows, columns).
            reference: the same shape.
            mask: bool (rows, columns), True where both are valid.
        """
        if min(mask.shape) < SIZE:
            return
        use = full_windows(mask, (SIZE, SIZE))
        x, y = (zero_masked(image, mask) for image in (fused, reference))
        mean_x, mean_y, xx, yy, xy = (_smooth(z) for z in (x, y, x * x, y * y, x * y))
        var_x, var_y = (xx - mean_x**2).clamp(min=0.0), (yy - mean_y**2).clamp(min=0.0)
        cov = xy - mean_x * mean_y
        luminance = (2 * mean_x * mean_y + self._c1) / (mean_x**2 + mean_y**2 + self._c1)
        ssim = luminance * (2 * cov + self._c2) / (var_x + var_y + self._c2)
        self._total += float(ssim[:, use].sum())
        self._count += int(use.sum()) * len(ssim)

    def compute(self) -> float:
        """The mean so far, NaN if no window counted."""
        return self._total / self._count if self._count else math.nan


def _smooth(image: Tensor) -> Tensor:
    x = torch.arange(SIZE, dtype=torch.float64) - SIZE // 2
    kernel = torch.exp(-0.5 * (x / _SIGMA) ** 2)
    kernel = kernel / kernel.sum()
    return slide(image, kernel, kernel)
