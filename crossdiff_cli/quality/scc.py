"""SCC: correlation of the Laplacians of result and reference in sliding 8 x 8 windows. Is the fine detail right?

The local form of Zhou et al. (1998, doi 10.1080/014311698215973), as in sewar and torchmetrics but without the windows
that hang over the border. The global, uncentred Sobel form of the toolbox of Vivone et al. (2021) gives higher figures.
"""

import math

import torch
from torch import Tensor

from crossdiff_cli.quality.blocks import FLAT
from crossdiff_cli.quality.sliding import full_windows, window_sums
from crossdiff_cli.quality.windows import zero_masked

SIZE = 8
"""Side of the correlation window, in pixels of the Laplacian."""

SUPPORT = SIZE + 2
"""Side of the part of the image that one window reads, in pixels."""


class Scc:
    """Mean local correlation of the Laplacians over windows on valid pixels and over bands; 1 is best.

    A window that is flat in both images is left out; one that is flat in either counts as zero.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._total, self._count = 0.0, 0

    def update(self, fused: Tensor, reference: Tensor, mask: Tensor) -> None:
        """Add all whole windows; to stream, let the arrays overlap by `SUPPORT` - 1 rows and columns.

        Args:
            fused: (bands, rows, columns).
            reference: the same shape.
            mask: bool (rows, columns), True where both are valid.
        """
        if min(mask.shape) < SUPPORT:
            return
        x, y = (zero_masked(image, mask) for image in (fused, reference))
        floor_x, floor_y = (FLAT**2 * window_sums(z * z, (SUPPORT, SUPPORT)) / SUPPORT**2 for z in (x, y))
        x, y = _laplacian(x), _laplacian(y)
        n, size = SIZE * SIZE, (SIZE, SIZE)
        mean_x, mean_y = window_sums(x, size) / n, window_sums(y, size) / n
        var_x, var_y = window_sums(x * x, size) / n - mean_x**2, window_sums(y * y, size) / n - mean_y**2
        cov = window_sums(x * y, size) / n - mean_x * mean_y
        rough_x, rough_y = var_x > floor_x, var_y > floor_y
        use = full_windows(mask, (SUPPORT, SUPPORT)) & (rough_x | rough_y)
        self._total += float(torch.where(rough_x & rough_y, cov / (var_x * var_y).sqrt(), 0.0)[use].sum())
        self._count += int(use.sum())

    def compute(self) -> float:
        """The mean so far, NaN if no window counted."""
        return self._total / self._count if self._count else math.nan


def _laplacian(image: Tensor) -> Tensor:
    """Eight times each pixel minus its eight neighbours, inside the border."""
    return 9.0 * image[:, 1:-1, 1:-1] - window_sums(image, (3, 3))
