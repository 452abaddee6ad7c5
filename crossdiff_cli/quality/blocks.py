"""Means, variances and covariances of two images block by block, the block-wise Q index, and means over blocks."""

from dataclasses import dataclass

import torch
from torch import Tensor

from crossdiff_cli.quality.windows import BLOCK, BLOCK_VALID, block_pixels, zero_masked

FLAT = 1e-6
"""Relative spread below which pixels count as flat: less than one DN in a 16-bit block, more than rounding."""


@dataclass(frozen=True, slots=True)
class BlockMoments:
    """First and second moments of two images x and y in each block, over valid pixels, float64.

    Attributes:
        count: valid pixels, (blocks,).
        mean_x: (blocks, bands of x).
        mean_y: (blocks, bands of y).
        var_x: variance with N - 1, as `mean_x`.
        var_y: as `mean_y`.
        cov: covariance of each band of x with each of y, (blocks, bands of x, bands of y).
    """

    count: Tensor
    mean_x: Tensor
    mean_y: Tensor
    var_x: Tensor
    var_y: Tensor
    cov: Tensor

    @property
    def enough(self) -> Tensor:
        """Which blocks hold enough valid pixels to count: bool (blocks,)."""
        return self.count >= BLOCK_VALID * BLOCK * BLOCK


def block_moments(x: Tensor, y: Tensor, mask: Tensor) -> BlockMoments:
    """Moments of x (bands, rows, columns) and y (other bands, rows, columns) where `mask` (rows, columns) is True."""
    valid = block_pixels(mask[None].double())
    count = valid.sum((1, 2))
    n = count.clamp(min=2)[:, None]

    def centred(image: Tensor) -> tuple[Tensor, Tensor]:
        pixels = block_pixels(zero_masked(image, mask))
        mean = pixels.sum(2) / n
        return mean, (pixels - mean[:, :, None]) * valid

    mean_x, x_0 = centred(x)
    mean_y, y_0 = centred(y)
    var_x, var_y = ((z**2).sum(2) / (n - 1) for z in (x_0, y_0))
    return BlockMoments(count, mean_x, mean_y, var_x, var_y, x_0 @ y_0.mT / (n - 1)[:, None])


def q_index(m: BlockMoments, *, paired: bool) -> Tensor:
    """The universal image quality index of Wang and Bovik (2002, doi 10.1109/97.995823) in each block.

    Args:
        m: moments of x and y.
        paired: compare band i of x with band i of y; else every band of x with every band of y.

    Returns:
        (blocks, bands) or (blocks, bands of x, bands of y). Flat against flat leaves the luminance term alone.
    """
    if paired:
        mean_x, mean_y, var_x, var_y = m.mean_x, m.mean_y, m.var_x, m.var_y
        cov = m.cov.diagonal(dim1=1, dim2=2)
    else:
        mean_x, var_x = m.mean_x[:, :, None], m.var_x[:, :, None]
        mean_y, var_y, cov = m.mean_y[:, None], m.var_y[:, None], m.cov
    power, spread = mean_x**2 + mean_y**2, var_x + var_y
    luminance = torch.where(power > 0, 2 * mean_x * mean_y / power, 1.0)
    structure = torch.where(spread > FLAT**2 * power, 2 * cov / spread, 1.0)
    return luminance * structure


class BlockMean:
    """Running mean of a per-block figure, over all blocks and over those off the border of the scene."""

    def __init__(self) -> None:
        """Start empty."""
        self._sums: list[Tensor | float] = [0.0, 0.0]
        self._counts = [0, 0]

    def update(self, values: Tensor, enough: Tensor, inner: Tensor | None = None) -> None:
        """Add blocks.

        Args:
            values: (blocks, ...), one figure or tensor of figures a block.
            enough: bool (blocks,), the blocks that count.
            inner: bool (block rows, block columns), the blocks off the border; None if none is known to be on it.
        """
        off_border = enough if inner is None else enough & inner.flatten()
        for i, use in enumerate((enough, off_border)):
            self._sums[i] = self._sums[i] + values[use].sum(0)
            self._counts[i] += int(use.sum())

    def compute(self, *, inner: bool = False) -> Tensor:
        """Mean over the blocks so far, float64; NaN if none counted."""
        total = torch.as_tensor(self._sums[inner], dtype=torch.float64)
        return total / self._counts[inner] if self._counts[inner] else torch.full_like(total, torch.nan)
