"""SensorStage: what the fusion head gets for the bands of one sensor when it is adapted to it."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossdiff_cli.model.blocks import convolve

_WIDTH = 32
_BLOCKS = 2
_TOLERANCE_NM = 40.0
"""How far a band may lie from the one that the stage was fitted to."""


class SensorStage(nn.Module):
    """Adds to each band what a residual network at the PAN grid makes of all bands and the PAN; untrained, nothing.

    The head serves any bands by kernels made from wavelengths, at half of the PAN grid. What the bands of one sensor
    have in common beyond that (their noise, their correlation) is learned here, with ordinary kernels, in the order of
    the wavelengths.
    """

    RADIUS = 2 + 2 * _BLOCKS
    """Reach in PAN pixels."""

    def __init__(self, center_nm: Sequence[float]) -> None:
        """`center_nm` are the centre wavelengths of the bands, rising."""
        super().__init__()
        bands = len(center_nm)
        self.center_nm = tuple(center_nm)
        self.stem = nn.Conv2d(3 * bands + 1, _WIDTH, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1) for _ in range(2 * _BLOCKS))
        self.out = nn.Conv2d(_WIDTH, bands, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type] # the stubs make every bias optional

    def fits(self, center_nm: Tensor) -> bool:
        """Whether these bands (C,), in any order, are those that the stage was fitted to."""
        found = sorted(center_nm.tolist())
        return len(found) == len(self.center_nm) and all(
            abs(a - b) <= _TOLERANCE_NM for a, b in zip(found, self.center_nm, strict=True)
        )

    def forward(
        self, hrms: Tensor, ms_up: Tensor, detail: Tensor, pan: Tensor, order: Tensor, dtype: torch.dtype
    ) -> Tensor:
        """Return `hrms` (B, C, H, W), refined; other images as in `FusionHead.forward`.

        Args:
            hrms: what the head makes of the window.
            ms_up: the MS on the PAN grid.
            detail: the PAN beyond the resolution of each band.
            pan: (B, 1, H, W).
            order: (C,), the places of the bands in the order of their wavelengths.
            dtype: precision of the convolutions.
        """
        images = [image[:, order] for image in (hrms - ms_up, ms_up, detail)]
        h = convolve(self.stem, torch.cat([*images, pan], dim=1).to(dtype))
        for first, second in zip(self.blocks[0::2], self.blocks[1::2], strict=True):
            h = h + convolve(second, F.silu(convolve(first, F.silu(h))))
        refined = convolve(self.out, F.silu(h)).float()
        return hrms + refined[:, order.argsort()]
