"""An encoder bound to a scene: the pyramid of a window, made strip by strip."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from crossdiff_cli.geometry.window import Window
from crossdiff_cli.inference.layers import Conv, MakeBlock, upsample2
from crossdiff_cli.inference.workspace import Workspace
from crossdiff_cli.model.blocks import ResBlock
from crossdiff_cli.model.spectral import Spectrum
from crossdiff_cli.model.unet import STEM_RADIUS, UNet

Part = Callable[[Window], Tensor]
"""An image of a window that is made where it is asked for: (1, C, rows, columns)."""


class BoundEncoder:
    """A `UNet` for one timestep and one set of bands."""

    def __init__(
        self, unet: UNet, timestep: Tensor, spectrum: Spectrum, dtype: torch.dtype, make_block: MakeBlock
    ) -> None:
        """Fold `unet` for the timestep (1,) of its features, as a fraction of T."""
        condition = unet.conditioning(timestep, spectrum)
        kernels = unet.band_stem.beside(unet.pan_stem, spectrum)
        self.dtype = dtype
        self.widths = unet.widths
        self._stem = Conv(kernels, unet.pan_stem.bias, dtype, stride=2, padding=2)
        self._levels = [
            [make_block(block, condition, dtype) for block in level]  # type: ignore[attr-defined]
            for level in unet.levels
        ]
        self._downs = [Conv.of(down, dtype) for down in unet.downs]
        # Interpolation keeps what is the same everywhere: the biases of all levels go in at the coarsest.
        biases = [lateral.bias for lateral in unet.laterals]
        self._laterals = [Conv(lateral.weight, None, dtype) for lateral in list(unet.laterals)[:-1]]  # type: ignore[arg-type]
        self._last_lateral = Conv.of(unet.laterals[-1], dtype, bias=torch.stack(biases).sum(dim=0))  # type: ignore[arg-type]
        self._reach = [
            2 ** (level + 1) * ResBlock.RADIUS * count + (0 if level else STEM_RADIUS)
            for level, count in enumerate(unet.blocks)
        ]

    def encode(
        self, images: Part, window: Window, inner: Window, rows: int, workspace: Workspace, name: str
    ) -> list[Tensor]:
        """Encode a window strip by strip and return the pyramid of `inner`; memory is bounded by the strip.

        Every level is computed where it is returned and where the levels after it look.

        Args:
            images: MS and PAN of a part of the window, (1, C + 1, rows, columns), in the precision of the network.
            window: what can be looked at.
            inner: what is asked for.
            rows: of the PAN grid in a strip of the first level; others have as many pixels.
            workspace: holds the pyramid.
            name: of the pyramid.
        """

        def buffer(name: str, like: Tensor, part: Window, scale: int) -> Tensor:
            rows, columns = part.shape
            shape = (len(like), like.shape[1], rows // scale, columns // scale)
            return workspace.empty(name, shape, like.dtype, like.device)

        below: Tensor | None = None
        pyramid = []
        source = window
        for level, area in enumerate(self._areas(inner, window)):
            scale, last = 2 ** (level + 1), level == len(self._levels) - 1
            above, below, kept = below, None, None
            for strip in area.strips(rows * 2**level):
                outer = strip.grown_within(self._reach[level], source)
                h = self._stem(images(outer)) if above is None else outer.relative_to(source).crop(above, scale).clone()
                for block in self._levels[level]:
                    h = block(h)
                h = strip.relative_to(outer).crop(h, scale)
                kept = buffer(f"{name} {level}", h, inner, scale) if kept is None else kept
                shared = strip.intersection(inner)
                if shared is not None:
                    shared.relative_to(inner).crop(kept, scale).copy_(shared.relative_to(strip).crop(h, scale))
                if not last:
                    h = self._downs[level](h)
                    below = buffer(f"below {level}", h, area, 2 * scale) if below is None else below
                    strip.relative_to(area).crop(below, 2 * scale).copy_(h)
            assert kept is not None
            pyramid.append(kept)
            source = area
        return pyramid

    def decode(self, pyramid: list[Tensor]) -> Tensor:
        """Sum all levels, projected, at half the PAN grid: (1, decoder_width, H/2, W/2)."""
        h = self._last_lateral(pyramid[-1])
        for features, lateral in zip(pyramid[-2::-1], self._laterals[::-1], strict=True):
            h = lateral.onto(features, upsample2(h))
        return F.silu(h, inplace=True)

    def _areas(self, inner: Window, window: Window) -> list[Window]:
        """Return where each level has to be known, so that all are in `inner`."""
        areas = [inner]
        for reach in self._reach[:0:-1]:
            areas.insert(0, areas[0].grown_within(reach, window))
        return areas
