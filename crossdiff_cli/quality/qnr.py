"""QNR and HQNR: spectral and spatial distortion without a reference in one figure.

QNR (Alparone et al. 2008, doi 10.14358/PERS.74.2.193) compares the Q index between bands before and after; a PAN copied
to every band can pass it where the bands are alike. HQNR (Aiazzi et al. 2014) takes Khan's D_lambda instead.
Both can be won by not sharpening at all.
"""

import torch
from torch import Tensor

from crossdiff_cli.quality.blocks import BlockMean, block_moments, q_index


def quality_without_reference(spectral: float, spatial: float) -> float:
    """(1 - D_lambda)(1 - D_s): HQNR with Khan's D_lambda, QNR with that of `InterBand`. In [0, 1], 1 is best."""
    return (1.0 - spectral) * (1.0 - spatial)


class InterBand:
    """The D_lambda of QNR: mean change of the Q index between pairs of bands, ms_up against the result; 0 is best."""

    def __init__(self) -> None:
        """Start empty."""
        self._fused, self._ms = BlockMean(), BlockMean()

    def update(self, fused: Tensor, ms_up: Tensor, mask: Tensor, inner: Tensor | None = None) -> None:
        """Add a window; arguments as in `Q2n.update`."""
        for mean, image in ((self._fused, fused), (self._ms, ms_up)):
            moments = block_moments(image, image, mask)
            mean.update(q_index(moments, paired=False), moments.enough, inner)

    def compute(self, *, inner: bool = False) -> float:
        """The distortion so far; 0 for a single band, NaN if no block counted."""
        change = (self._fused.compute(inner=inner) - self._ms.compute(inner=inner)).abs()
        if change.ndim == 0:
            return float(change)
        pairs = len(change) * (len(change) - 1) / 2
        return float(torch.triu(change, diagonal=1).sum() / max(pairs, 1))
