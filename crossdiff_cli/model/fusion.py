"""The fusion head: frozen feature pyramids, PAN and MS in; how much PAN detail each band takes out."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossdiff_cli.imaging.memory import may_overwrite
from crossdiff_cli.model.blocks import Conditioning, ResBlock, add_projected, compact, convolve, in_place, silu
from crossdiff_cli.model.sensor_stage import SensorStage
from crossdiff_cli.model.spectral import BandOutput, BandStem, Spectrum
from crossdiff_cli.model.upsample import upsample2


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

    def forward(self, p2m: Tensor, m2p: Tensor | None, onto: Tensor | None = None) -> Tensor:
        """One or two (B, width_in, H, W) to (B, width, H, W).

        What it is to be added to, `onto`, is overwritten where no gradient is asked for.
        """
        # One after the other: both at once would be the largest image of all.
        value, gate = (self._half(half, p2m, m2p) for half in range(2))
        if may_overwrite():
            gate = gate.sigmoid_()
            return value.mul_(gate) if onto is None else onto.addcmul_(value, gate)
        gated = value * torch.sigmoid(gate)
        return gated if onto is None else onto + gated

    def _half(self, half: int, p2m: Tensor, m2p: Tensor | None) -> Tensor:
        assert self.p2m.bias is not None
        weight, bias = (parameter.chunk(2)[half].to(p2m.dtype) for parameter in (self.p2m.weight, self.p2m.bias))
        out = F.conv2d(p2m, weight, bias)
        if self.m2p is None or m2p is None:
            return out
        return add_projected(out, m2p, self.m2p.weight.chunk(2)[half])


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
    ) -> None:
        """`feature_widths` of one pyramid, `widths` of the head at 1/2, 1/4 and 1/8 of the PAN grid.

        `stage_nm` are the centre wavelengths of the bands of a `SensorStage`; without them the head has none.

        Without `m2p` it takes the features of P2M alone. Without `encoders` it works on PAN and MS alone: the control
        of the encoders' worth.
        """
        super().__init__()
        self.widths = widths
        condition_width = 2 * widths[0]
        self.conditioning = Conditioning(condition_width)
        self.band_stem = BandStem(widths[0])
        self.pan_stem = nn.Conv2d(2, widths[0], 6, stride=2, padding=2)
        self.gates = (
            nn.ModuleList(Gate(f, w, m2p=m2p) for f, w in zip(feature_widths, widths, strict=True))
            if encoders
            else None
        )
        self.decoded = nn.Conv2d((1 + m2p) * decoder_width, widths[0], 1) if encoders else None
        self.ups = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(widths))
        self.blocks = nn.ModuleList(ResBlock(width, condition_width) for width in widths)
        self.out = BandOutput(widths[0], maps=4, zero=True)
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
        coarse = None if features is None else self.coarse_features(features.p2m, features.m2p, spectrum)
        detail = pan - pan_low
        gain, residual = self.injection_maps(features, coarse, pan, detail, ms_up, beta, spectrum)
        hrms = self.inject(gain, residual, detail, ms_up)
        dtype = torch.float32 if features is None else features.decoded.dtype
        return self.refine(hrms, ms_up, detail, pan, spectrum, dtype)

    def coarse_features(self, p2m: list[Tensor], m2p: list[Tensor] | None, spectrum: Spectrum) -> Tensor:
        """The levels below the first, of all pyramids: (B, widths[0], H/4, W/4)."""
        assert self.gates is not None
        condition = self._condition(p2m[0], spectrum)
        h: Tensor | None = None
        for level in reversed(range(1, len(self.widths))):
            below = None if h is None else upsample2(h)
            h = self.gates[level](p2m[level], None if m2p is None else m2p[level], below)
            h = convolve(self.ups[level - 1], self.blocks[level](h, condition))
        assert h is not None
        return h

    def injection_maps(
        self,
        features: EncoderOutputs | None,
        coarse: Tensor | None,
        pan: Tensor,
        detail: Tensor,
        ms_up: Tensor,
        beta: Tensor,
        spectrum: Spectrum,
    ) -> tuple[Tensor, Tensor]:
        """Gain and residual, (B, C, H/2, W/2) each, float32; `coarse` is what `coarse_features` gives."""
        h = self.blocks[0](self._sum(features, coarse, pan, detail, ms_up, spectrum), self._condition(detail, spectrum))
        g, c, w, residual = self.out(silu(h), spectrum).unbind(dim=1)
        gain = torch.addcmul(1 + g, c, beta - 1)
        if features is not None:
            predicted_gain, predicted_residual = features.prediction.unbind(dim=1)
            gain = torch.addcmul(gain, 1 + w, predicted_gain)
            residual = torch.addcmul(residual, 1 + w, predicted_residual)
        return gain, residual

    def _sum(
        self,
        features: EncoderOutputs | None,
        coarse: Tensor | None,
        pan: Tensor,
        detail: Tensor,
        ms_up: Tensor,
        spectrum: Spectrum,
    ) -> Tensor:
        """All that is known, (B, widths[0], H/2, W/2)."""
        dtype = torch.float32 if features is None else features.decoded.dtype
        images = compact(torch.cat([ms_up, pan, detail.mean(dim=1, keepdim=True)], dim=1), dtype)
        kernels = self.band_stem.beside(self.pan_stem, spectrum)
        bias = self.pan_stem.bias
        assert bias is not None
        if self.decoded is not None:
            assert self.decoded.bias is not None
            bias = bias + self.decoded.bias
        h = F.conv2d(images, kernels.to(dtype), bias.to(dtype), stride=2, padding=2)
        if features is not None and coarse is not None:
            assert self.decoded is not None and self.gates is not None
            h = add_projected(h, features.decoded, self.decoded.weight)
            finest = None if features.m2p is None else features.m2p[0]
            h = self.gates[0](features.p2m[0], finest, h).add_(upsample2(coarse))
        return h

    def inject(self, gain: Tensor, residual: Tensor, detail: Tensor, ms_up: Tensor) -> Tensor:
        """What is done at the PAN's own resolution, with what `injection_maps` gives."""
        injected = upsample2(residual)
        injected = torch.addcmul(injected, upsample2(gain), detail, out=in_place(injected))
        return torch.add(injected, ms_up, out=in_place(injected))

    def refine(
        self, hrms: Tensor, ms_up: Tensor, detail: Tensor, pan: Tensor, spectrum: Spectrum, dtype: torch.dtype
    ) -> Tensor:
        """What the sensor stage makes of what `inject` gives; the same where there is none, or none for these bands."""
        if self.stage is None or not self.stage.fits(spectrum.center_nm):
            return hrms
        refined: Tensor = self.stage(hrms, ms_up, detail, pan, spectrum.center_nm.argsort(), dtype)
        return refined

    def _condition(self, image: Tensor, spectrum: Spectrum) -> Tensor:
        return self.conditioning(torch.ones(image.shape[0], device=image.device), spectrum)
