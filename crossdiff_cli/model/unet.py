"""Conditional UNet of the cross-predictive pretext task: `encode` gives the features, `decode` and `correct` the rest.

One class, used twice. P2M: the target is the MS, the condition the PAN. M2P: the target is the PAN, the condition the
MS. The encoder is deep and the decoder light (1x1 laterals, bilinear sums), so that the prediction has to be made in
the encoder.
"""

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossdiff_cli.geometry.window import STRIDE
from crossdiff_cli.model.blocks import Conditioning, ResBlock, convolve, upsample2
from crossdiff_cli.model.spectral import BandOutput, BandStem, Spectrum

Target = Literal["ms", "pan"]

STEM_RADIUS = 3
"""Reach of the first layers, in PAN pixels."""


class UNet(nn.Module):
    """Predicts how x_t of `target` is to be corrected, from it and the other image, both on the PAN grid."""

    def __init__(
        self,
        target: Target,
        widths: tuple[int, ...],
        blocks: tuple[int, ...],
        decoder_width: int,
        *,
        quality: bool = False,
    ) -> None:
        """`widths` and `blocks` give channels and residual blocks at 1/2, 1/4 and 1/8 of the PAN grid.

        With `quality` it is told the MTF and noise of PAN and MS.
        """
        super().__init__()
        self.target = target
        self.widths = widths
        self.blocks = blocks
        condition_width = 2 * widths[0]
        self.conditioning = Conditioning(condition_width, quality=quality)
        self.band_stem = BandStem(widths[0], quality=quality)
        self.pan_stem = nn.Conv2d(1, widths[0], 6, stride=2, padding=2)
        self.levels = nn.ModuleList(
            nn.ModuleList(ResBlock(width, condition_width) for _ in range(count))
            for width, count in zip(widths, blocks, strict=True)
        )
        self.downs = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(widths))
        self.laterals = nn.ModuleList(nn.Conv2d(width, decoder_width, 1) for width in widths)
        self.ms_out = BandOutput(decoder_width, maps=2, zero=True, quality=quality) if target == "ms" else None
        self.pan_out = nn.Conv2d(decoder_width, 4, 1) if target == "pan" else None

    @property
    def receptive_field_radius(self) -> int:
        """Receptive field: no input farther than this many PAN pixels can change a feature."""
        scales = [2 ** (level + 1) for level in range(len(self.widths))]
        return STRIDE + sum(s * n * ResBlock.RADIUS for s, n in zip(scales, self.blocks, strict=True))

    @property
    def decoded_radius(self) -> int:
        """Receptive field of what is decoded: upsampling reaches one pixel of every level but the first."""
        return self.receptive_field_radius + sum(2 ** (level + 1) for level in range(1, len(self.widths)))

    def encode(self, x_t: Tensor, timestep: Tensor, condition: Tensor, spectrum: Spectrum) -> list[Tensor]:
        """Return the feature pyramid [(B, widths[0], H/2, W/2), (.., H/4, W/4), (.., H/8, W/8)].

        Args:
            x_t: the noised target, (B, C, H, W) or (B, 1, H, W), normalised to mean 0 and deviation 1 per band.
            timestep: (B,) in [-1, 1], as a fraction of T; negative in a chain that ends in the condition.
            condition: the other image, on the same grid.
            spectrum: wavelengths of the C bands and the ratio.
        """
        images = (x_t, condition) if self.target == "ms" else (condition, x_t)
        embedding = self.conditioning(timestep, spectrum)
        h = self._stem(torch.cat(images, dim=1), spectrum)
        pyramid: list[Tensor] = []
        for level, blocks in enumerate(self.levels):
            h = convolve(self.downs[level - 1], h) if level else h
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, embedding)
            pyramid.append(h)
        return pyramid

    def _stem(self, images: Tensor, spectrum: Spectrum) -> Tensor:
        """Apply the first layer to MS and PAN, (B, C + 1, H, W): half of the grid."""
        bias = self.pan_stem.bias
        assert bias is not None
        kernels = self.band_stem.beside(self.pan_stem, spectrum)
        return F.conv2d(images, kernels.to(images.dtype), bias.to(images.dtype), stride=2, padding=2)

    def decode(self, pyramid: list[Tensor]) -> Tensor:
        """The light decoder: all levels projected and summed at half the PAN grid, (B, decoder_width, H/2, W/2)."""
        levels = [convolve(lateral, features) for lateral, features in zip(self.laterals, pyramid, strict=True)]
        h = levels.pop()
        while levels:
            h = upsample2(h) + levels.pop()
        return F.silu(h)

    def correct(self, decoded: Tensor, detail: Tensor | None, spectrum: Spectrum) -> Tensor:
        """What the network adds to x_t, of the shape of the target, beyond the detail that MTF-GLP would inject.

        P2M: a gain on `detail` (B, C, H, W), what the PAN shows beyond each band's resolution, and a residual. M2P: a
        residual alone. Untrained, the gain and P2M's residual are zero.
        """
        if self.ms_out is not None:
            gain, residual = map(upsample2, self.ms_out(decoded, spectrum).unbind(dim=1))
            return residual if detail is None else gain * detail + residual
        assert self.pan_out is not None
        return F.pixel_shuffle(convolve(self.pan_out, decoded), 2)

    def forward(
        self, x_t: Tensor, timestep: Tensor, condition: Tensor, detail: Tensor | None, spectrum: Spectrum
    ) -> Tensor:
        """The decoded correction, of the shape of `x_t`; arguments as `encode` and `correct`."""
        return self.correct(self.decode(self.encode(x_t, timestep, condition, spectrum)), detail, spectrum)
