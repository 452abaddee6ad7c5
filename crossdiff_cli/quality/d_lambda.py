"""D_lambda after Khan: how far the result, low-passed by the MTF of each band, is from the interpolated MS.

Khan et al. (2009, doi 10.1109/TGRS.2009.2029094). Sees colour shifts of whole regions. Misses everything above the
MS Nyquist frequency: false detail, halos finer than an MS pixel, and a result that was never sharpened.
"""

from torch import Tensor

from crossdiff_cli.quality.q2n import Q2n


class DLambda:
    """D_lambda = 1 - Q2n(low-passed result, ms_up) over 32 x 32 blocks; 0 is best."""

    def __init__(self) -> None:
        """Start empty."""
        self._q2n = Q2n()

    def update(self, fused_low: Tensor, ms_up: Tensor, mask: Tensor, inner: Tensor | None = None) -> None:
        """Add a window.

        Args:
            fused_low: (bands, rows, columns), the result low-passed by the MTF of each band, on the PAN grid.
            ms_up: the same shape, the MS interpolated to the PAN grid.
            mask: bool (rows, columns), True where both are valid.
            inner: `Window.inner_blocks` of the window.
        """
        self._q2n.update(fused_low, ms_up, mask, inner)

    def compute(self, *, inner: bool = False) -> float:
        """The distortion so far, in [0, 1], NaN if no block counted."""
        return 1.0 - self._q2n.compute(inner=inner)
