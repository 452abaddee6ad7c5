"""CrossDiff: two frozen encoders and a fusion head (arXiv 2401.05153)."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossdiff_cli.model.fusion import Features, FusionHead
from crossdiff_cli.model.region import STRIDE, STRIP, Part, Region, compact
from crossdiff_cli.model.schedule import NoiseSchedule
from crossdiff_cli.model.spectral import Spectrum
from crossdiff_cli.model.unet import UNet

_TOWARDS_X_0 = {"x0": 1.0, "v": -1.0, "eps": 0.0}
"""What P2M's correction at t = T means for x_0, by objective; noise says nothing of it there."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """All hyper-parameters needed to build the networks; stored in the metadata of every weight file."""

    widths: tuple[int, ...] = (48, 96, 160)
    """Encoder channels at 1/2, 1/4 and 1/8 of the PAN grid."""
    blocks: tuple[int, ...] = (1, 2, 2)
    """Residual blocks per level."""
    decoder_width: int = 48
    """Channels of the light decoder."""
    head_widths: tuple[int, ...] = (48, 48, 64)
    """Fusion head channels per level."""
    timesteps: int = 1000
    """T of the noise schedule."""
    kappa: float = 0.2
    """Noise at the end of the residual-shift chain, in band standard deviations."""
    p2m_timestep: int = 1000
    """Timestep whose features are taken from P2M: T, where the chain ends in the upsampled MS."""
    m2p_timestep: int = 200
    """Timestep whose features are taken from M2P, fed with the PAN itself."""
    m2p_features: bool = True
    """Whether the head takes the features of M2P beside those of P2M."""
    objective: str = "x0"
    """What the encoders were asked for: x0, eps or v."""

    def as_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Architecture":
        """Inverse of `as_dict`, from JSON lists to tuples."""
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)

    def schedule(self) -> NoiseSchedule:
        """The forward chain of both branches."""
        return NoiseSchedule.residual_shift(self.timesteps, self.kappa)


class CrossDiff(nn.Module):
    """PAN and upsampled MS to HRMS: deterministic, one pass, no sampling."""

    def __init__(self, architecture: Architecture, *, encoders: bool = True) -> None:
        """Build untrained networks; without `encoders` only the head (a control)."""
        super().__init__()
        a = architecture
        self.architecture = a
        self.p2m = UNet("ms", a.widths, a.blocks, a.decoder_width) if encoders else None
        self.m2p = UNet("pan", a.widths, a.blocks, a.decoder_width) if encoders else None
        self.head = self.untrained_head()

    def untrained_head(self) -> FusionHead:
        """A head for these encoders, or for none."""
        a = self.architecture
        return FusionHead(a.widths, a.decoder_width, a.head_widths, encoders=self.p2m is not None, m2p=a.m2p_features)

    def take_m2p(self, taken: bool) -> None:
        """Let the head take M2P's features or not: its weights for them are cut away, or begin at zero."""
        known, name = self.head.state_dict(), "decoded.weight"
        self.architecture = replace(self.architecture, m2p_features=taken)
        self.head = self.untrained_head()
        state = {key: known.get(key, torch.zeros_like(value)) for key, value in self.head.state_dict().items()}
        more = self.architecture.decoder_width * (1 + taken) - known[name].shape[1]
        state[name] = F.pad(known[name], (0, 0, 0, 0, 0, more))  # M2P's inputs are the last
        self.head.load_state_dict(state)

    def channels_last(self) -> Self:
        """Lay the weights out as convolutions run fastest."""
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stubs lack it
        return self

    @property
    def radius(self) -> int:
        """Receptive field of the whole network in PAN pixels."""
        if self.p2m is None:
            return self.head.radius
        # The head takes the pyramids at every level, what is decoded from them at its first.
        return max(self.p2m.radius + self.head.radius, self.p2m.decoded_radius + self.head.fine_radius)

    def features(
        self, pan: Tensor, ms_up: Tensor, spectrum: Spectrum, dtype: torch.dtype = torch.float32
    ) -> Features | None:
        """Encode noise-free images at the feature timesteps, in the precision `dtype`: same input, same features."""
        if self.p2m is None or self.m2p is None:
            return None
        p2m_time, m2p_time = self._timesteps(pan)
        pan, ms_up = pan.to(dtype), ms_up.to(dtype)
        p2m = self.p2m.encode(ms_up, p2m_time, pan, spectrum)
        m2p = self.m2p.encode(pan, m2p_time, ms_up, spectrum) if self.architecture.m2p_features else None
        return self.decoded(p2m, m2p, spectrum)

    def _timesteps(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Those of the features of P2M and M2P, as fractions of T."""
        a = self.architecture
        t = torch.ones(image.shape[0], device=image.device)
        return t * (a.p2m_timestep / a.timesteps), t * (a.m2p_timestep / a.timesteps)

    def decoded(self, p2m: list[Tensor], m2p: list[Tensor] | None, spectrum: Spectrum) -> Features:
        """The pyramids, through the light decoders."""
        assert self.p2m is not None and self.m2p is not None
        assert self.p2m.ms_out is not None
        mine = self.p2m.decode(p2m)
        everything = mine if m2p is None else torch.cat([mine, self.m2p.decode(m2p)], dim=1)
        correction = _TOWARDS_X_0[self.architecture.objective] * self.p2m.ms_out(mine, spectrum)
        return Features(p2m, m2p, everything, correction)

    def forward(
        self,
        pan: Tensor,
        pan_low: Tensor,
        ms_up: Tensor,
        beta: Tensor,
        spectrum: Spectrum,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Fuse one window; shapes as in `FusionHead.forward`, height and width multiples of `unet.STRIDE`.

        `dtype` is the precision of the convolutions; what is done at the PAN's own resolution stays in float32.
        """
        features = self.features(pan, ms_up, spectrum, dtype)
        hrms: Tensor = self.head(features, pan, pan_low, ms_up, beta, spectrum)
        return hrms

    def part(
        self,
        pan: Part,
        pan_low: Part,
        ms_up: Part,
        beta: Part,
        spectrum: Spectrum,
        window: Region,
        keep: Region,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """As `forward` of a window, but only a part of it: for inference, with little memory.

        Each stage is computed where later ones need it, and the large ones in strips. The result is that of `forward`
        where `keep` lies `radius` pixels inside the window.

        Returns:
            (B, C, rows, columns) of `keep`, float32.
        """
        inner = keep.grown(self.head.radius, window)
        p2m: list[Tensor] = []
        m2p: list[Tensor] | None = None
        coarse: Tensor | None = None
        if self.p2m is not None and self.m2p is not None:
            p2m_time, m2p_time = self._timesteps(spectrum.center_nm[None])
            images = compact(torch.cat([ms_up(window), pan(window)], dim=1), dtype)
            p2m = self.p2m.encode_part(images, p2m_time, spectrum, window, inner)
            if self.architecture.m2p_features:
                m2p = self.m2p.encode_part(images, m2p_time, spectrum, window, inner)
            del images
            coarse = self.head.coarse(p2m, m2p, spectrum)
        out: Tensor | None = None
        for strip in keep.strips(STRIP):
            # Upsampling the coarsest level reaches one of its pixels farther than the stage itself.
            outer = strip.grown(self.head.fine_radius + STRIDE, inner)
            local = outer.within(inner)
            detail, up = pan(outer) - pan_low(outer), ms_up(outer)
            gain, residual = self._maps(p2m, m2p, coarse, local, pan(outer), detail, up, beta(outer), spectrum)
            fused = self.head.fine(gain, residual, detail, up)
            out = fused.new_empty(*fused.shape[:2], *keep.shape) if out is None else out
            strip.within(keep).of(out).copy_(strip.within(outer).of(fused))
        assert out is not None
        return out

    def _maps(
        self,
        p2m: list[Tensor],
        m2p: list[Tensor] | None,
        coarse: Tensor | None,
        part: Region,
        pan: Tensor,
        detail: Tensor,
        ms_up: Tensor,
        beta: Tensor,
        spectrum: Spectrum,
    ) -> tuple[Tensor, Tensor]:
        """What `FusionHead.fine` starts from; all else that is made of the `part` of the pyramids is gone with this."""
        if coarse is None:
            return self.head.maps(None, None, pan, detail, ms_up, beta, spectrum)

        def cut(pyramid: list[Tensor]) -> list[Tensor]:
            return [compact(part.of(x, 2 ** (level + 1))) for level, x in enumerate(pyramid)]

        features = self.decoded(cut(p2m), None if m2p is None else cut(m2p), spectrum)
        return self.head.maps(features, part.of(coarse, 4), pan, detail, ms_up, beta, spectrum)
