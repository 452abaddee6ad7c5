"""Q2n: the hypercomplex quality index (Q4, Q8, ...) for any number of bands.

Garzelli and Nencini (2009, doi 10.1109/LGRS.2009.2022650). A pixel of C bands is a hypercomplex number of 2^n >= C
parts. In each block the index is |cov(x, y*)| scaled by the variances and the means; the product is bilinear, so the
hypercomplex covariance follows from the real covariances of all pairs of bands.
"""

from functools import lru_cache

import torch
from torch import Tensor

from crossdiff_cli.quality.blocks import FLAT, BlockMean, BlockMoments, block_moments


@lru_cache
def product_signs(parts: int) -> Tensor:
    """Signs of the Cayley-Dickson products of units: e_i e_j = signs[i, j] e_(i xor j), `parts` a power of two."""
    if parts == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    half = parts // 2
    s = product_signs(half)
    conjugate = -torch.ones(half, dtype=torch.float64)
    conjugate[0] = 1.0
    # (a, b)(c, d) = (ac - d* b, da + b c*)
    out = torch.empty(parts, parts, dtype=torch.float64)
    out[:half, :half] = s
    out[:half, half:] = s.T
    out[half:, :half] = s * conjugate
    out[half:, half:] = -s.T * conjugate
    return out


def block_q2n(m: BlockMoments) -> Tensor:
    """Q2n of each block, (blocks,), in [0, 1]: x is the result, y the reference, whose statistics normalise both."""
    bands = m.mean_y.shape[1]
    parts = 1 << (bands - 1).bit_length()
    deviation, level = m.var_y.sqrt(), m.mean_y.abs()
    scale = torch.where(deviation > FLAT * level, deviation, torch.where(level > 0, level, 1.0))
    mean_x = (m.mean_x - m.mean_y) / scale + 1.0
    # The reference has mean one in every part by the normalisation, padded parts are one in both images.
    power_x, power_y = (mean_x**2).sum(1) + (parts - bands), float(parts)
    luminance = 2.0 * (power_x * power_y).sqrt() / (power_x + power_y)
    spread = ((m.var_x + m.var_y) / scale**2).sum(1)
    cov = m.cov / scale[:, :, None] / scale[:, None, :]
    structure = torch.where(spread > FLAT**2, 2.0 * _hypercomplex_norm(cov, parts) / spread, 1.0)
    return luminance * structure


def _hypercomplex_norm(cov: Tensor, parts: int) -> Tensor:
    """|sum over pixels of x y*| from the (blocks, bands, bands) covariances."""
    bands = cov.shape[1]
    signs = product_signs(parts)[:bands, :bands].clone()
    signs[:, 1:] *= -1.0
    index = torch.arange(bands)
    target = (index[:, None] ^ index).flatten()
    total = cov.new_zeros(len(cov), parts).index_add_(1, target, (cov * signs).flatten(1))
    return (total**2).sum(1).sqrt()


class Q2n:
    """Mean Q2n over 32 x 32 blocks; 1 for identical images. Fed by windows whose corners lie on block corners."""

    def __init__(self) -> None:
        """Start empty."""
        self._mean = BlockMean()

    def update(self, fused: Tensor, reference: Tensor, mask: Tensor, inner: Tensor | None = None) -> None:
        """Add a window.

        Args:
            fused: (bands, rows, columns).
            reference: the same shape.
            mask: bool (rows, columns), True where both are valid.
            inner: `Window.inner_blocks` of the window, to tell the border blocks.
        """
        moments = block_moments(fused, reference, mask)
        self._mean.update(block_q2n(moments), moments.enough, inner)

    def compute(self, *, inner: bool = False) -> float:
        """The index so far, NaN if no block counted; `inner` leaves the border blocks of the scene out."""
        return float(self._mean.compute(inner=inner))
