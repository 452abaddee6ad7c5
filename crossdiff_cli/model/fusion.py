"""The fusion head: frozen feature pyramids, PAN and MS in; how much PAN detail each band takes out."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossdiff_cli.model.blocks import Conditioning, ResBlock, convolve, upsample2
from crossdiff_cli.model.sensor_stage import SensorStage
from crossdiff_cli.model.spectral import BandOutput, BandStem, Spectrum


@dataclass(frozen=True, slots=True)
class EncoderOutputs:
    """What the frozen encoders say of a window."""

    p2m: list[Tensor]
    """(B, width, H/2, W/2), (.., H/4, W/4), (.., H/8, W/8)."""
    m2p: list[Tensor] | None
    """The same of M2P; None where the head does not take it."""
    decoded: Tensor
    """(B, decoder_width, H/2, W/2), or twice as many channels with M2P: the light decoders."""
    prediction: Tensor
    """(B, 2, C, H/2, W/2), float32: what P2M would add to the detail of MTF-GLP, as a gain on it and a residual."""


class Gate(nn.Module):
    """1x1 projection of the encoders' features, each channel weighted by a sigmoid gate of the same pixel."""

    def __init__(self, width_in: int, width: int, *, m2p: bool) -> None:
        """`width_in` features of each encoder to `width` channels."""
        super().__init__()
        self.p2m = nn.Conv2d(width_in, 2 * width, 1)
        self.m2p = nn.Conv2d(width_in, 2 * width, 1, bias=False) if m2p else None

    def forward(self, p2m: Tensor, m2p: Tensor | None) -> Tensor:
        """One or two (B, width_in, H, W) to (B, width, H, W)."""
        both = convolve(self.p2m, p2m)
        if self.m2p is not None and m2p is not None:
            both = both + convolve(self.m2p, m2p)
        value, gate = both.chunk(2, dim=1)
        return value * torch.sigmoid(gate)


class FusionHead(nn.Module):
    """hrms = ms_up + (1 + g + c (beta - 1) + (1 + w) g') * detail + r + (1 + w) r'.

    g, c, w and the residual r are found per band at half the PAN grid, where P2M's gain g' and residual r' are, and the
    two sums are interpolated.

    Untrained, g = c = w = r = 0 and the head gives what P2M predicts, or MTF-GLP without encoders: the PAN detail with
    gain std(ms) / std(pan). With c = 1 it is the locally regressed MTF-GLP.
    """

    def __init__(
        self,
        feature_widths: tuple[int, ...],
        decoder_width: int,
        widths: tuple[int, ...],
        *,
        encoders: bool = True,
        m2p: bool = True,
        stage_nm: Sequence[float] = (),
        quality: bool = False,
    ) -> None:
        """`feature_widths` of one pyramid, `widths` of the head at 1/2, 1/4 and 1/8 of the PAN grid.

        `stage_nm` are the centre wavelengths of the bands of a `SensorStage`; without them the head has none. With
        `quality` it is told the MTF and noise of PAN and MS.

        Without `m2p` it takes the features of P2M alone. Without `encoders` it works on PAN and MS alone: the control
        of the encoders' worth.
        """
        super().__init__()
        self.widths = widths
        condition_width = 2 * widths[0]
        self.conditioning = Conditioning(condition_width, quality=quality)
        self.band_stem = BandStem(widths[0], quality=quality)
        self.pan_stem = nn.Conv2d(2, widths[0], 6, stride=2, padding=2)
        self.gates = (
            nn.ModuleList(Gate(f, w, m2p=m2p) for f, w in zip(feature_widths, widths, strict=True))
            if encoders
            else None
        )
        self.decoded = nn.Conv2d((1 + m2p) * decoder_width, widths[0], 1) if encoders else None
        self.ups = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(widths))
        self.blocks = nn.ModuleList(ResBlock(width, condition_width) for width in widths)
        self.out = BandOutput(widths[0], maps=4, zero=True, quality=quality)
        self.stage = SensorStage(stage_nm) if stage_nm else None

    @property
    def receptive_field_radius(self) -> int:
        """Reach of the head beyond its input features, in PAN pixels: blocks, upsampling and `inject_radius`."""
        scales = [2 ** (level + 1) for level in range(1, len(self.widths))]
        return sum(s * (ResBlock.RADIUS + 1) for s in scales) + self.inject_radius

    @property
    def inject_radius(self) -> int:
        """Reach beyond features at 1/2 of the PAN grid, in PAN pixels: block, stem, interpolation and sensor stage."""
        return 2 * ResBlock.RADIUS + 4 + 2 + (SensorStage.RADIUS if self.stage is not None else 0)

    def forward(
        self,
        features: EncoderOutputs | None,
        pan: Tensor,
        pan_low: Tensor,
        ms_up: Tensor,
        beta: Tensor,
        spectrum: Spectrum,
    ) -> Tensor:
        """Fuse one window.

        Args:
            features: of the encoders, or None for the control without them.
            pan: (B, 1, H, W), normalised.
            pan_low: (B, C, H, W), the PAN at the resolution of each MS band.
            ms_up: (B, C, H, W), the MS on the PAN grid, normalised.
            beta: (B, C, H/2, W/2), local regression gain of each MS band on the PAN.
            spectrum: wavelengths and ratio.

        Returns:
            (B, C, H, W), normalised.
        """
        detail = pan - pan_low
        gain, residual = self._maps(features, pan, detail, ms_up, beta, spectrum)
        hrms = ms_up + upsample2(gain) * detail + upsample2(residual)
        if self.stage is None or not self.stage.fits(spectrum.center_nm):
            return hrms
        dtype = torch.float32 if features is None else features.decoded.dtype
        refined: Tensor = self.stage(hrms, ms_up, detail, pan, spectrum.center_nm.argsort(), dtype)
        return refined

    def _maps(
        self,
        features: EncoderOutputs | None,
        pan: Tensor,
        detail: Tensor,
        ms_up: Tensor,
        beta: Tensor,
        spectrum: Spectrum,
    ) -> tuple[Tensor, Tensor]:
        """Gain and residual, (B, C, H/2, W/2) each, float32."""
        condition = self.conditioning(torch.ones(pan.shape[0], device=pan.device), spectrum)
        h = self._stem(torch.cat([ms_up, pan, detail.mean(dim=1, keepdim=True)], dim=1), features, spectrum)
        if features is not None:
            h = h + self._encoded(features, condition)
        g, c, w, residual = self.out(F.silu(self.blocks[0](h, condition)), spectrum).unbind(dim=1)
        gain = 1 + g + c * (beta - 1)
        if features is not None:
            predicted_gain, predicted_residual = features.prediction.unbind(dim=1)
            gain = gain + (1 + w) * predicted_gain
            residual = residual + (1 + w) * predicted_residual
        return gain, residual

    def _stem(self, images: Tensor, features: EncoderOutputs | None, spectrum: Spectrum) -> Tensor:
        """MS, PAN and mean detail, (B, C + 2, H, W), to (B, widths[0], H/2, W/2) in the precision of the features."""
        dtype = torch.float32 if features is None else features.decoded.dtype
        kernels, bias = self.band_stem.beside(self.pan_stem, spectrum), self.pan_stem.bias
        assert bias is not None
        return F.conv2d(images.to(dtype), kernels.to(dtype), bias.to(dtype), stride=2, padding=2)

    def _encoded(self, features: EncoderOutputs, condition: Tensor) -> Tensor:
        """All levels of the pyramids, and what is decoded from them: (B, widths[0], H/2, W/2)."""
        assert self.gates is not None and self.decoded is not None
        below: Tensor | None = None
        for level in reversed(range(len(self.widths))):
            h: Tensor = self.gates[level](features.p2m[level], None if features.m2p is None else features.m2p[level])
            h = h if below is None else h + upsample2(below)
            if level:
                below = convolve(self.ups[level - 1], self.blocks[level](h, condition))
        return h + convolve(self.decoded, features.decoded)
