"""D_s: whether each band relates to PAN at the fine scale as it did at the coarse one.

Alparone et al. (2008, doi 10.14358/PERS.74.2.193), with the coarse scale taken on the PAN grid as in the toolbox of
Vivone et al. (2021). Sees too little and too much detail. A result that was never sharpened is punished only
mildly, and a band that PAN does not predict is punished for being right.
"""

import torch
from torch import Tensor

from crossdiff_cli.quality.blocks import BlockMean, block_moments, q_index


class DS:
    """D_s = mean over bands of |Q(result, PAN) - Q(ms_up, PAN reduced and brought back up)|; 0 is best."""

    def __init__(self) -> None:
        """Start empty."""
        self._fine, self._coarse = BlockMean(), BlockMean()

    def update(
        self, fused: Tensor, pan: Tensor, ms_up: Tensor, pan_low: Tensor, mask: Tensor, inner: Tensor | None = None
    ) -> None:
        """Add a window.

        Args:
            fused: (bands, rows, columns).
            pan: (1, rows, columns).
            ms_up: as `fused`.
            pan_low: as `pan`, reduced to the MS grid and interpolated back.
            mask: bool (rows, columns), True where all four are valid.
            inner: `Window.inner_blocks` of the window.
        """
        for mean, image, guide in ((self._fine, fused, pan), (self._coarse, ms_up, pan_low)):
            moments = block_moments(image, guide, mask)
            mean.update(q_index(moments, paired=False)[:, :, 0], moments.enough, inner)

    def per_band(self, *, inner: bool = False) -> Tensor:
        """|difference of the two indices| of each band, float64 (bands,)."""
        return (self._fine.compute(inner=inner) - self._coarse.compute(inner=inner)).abs()

    def compute(self, *, inner: bool = False) -> float:
        """The distortion so far, NaN if no block counted."""
        return float(torch.mean(self.per_band(inner=inner)))
