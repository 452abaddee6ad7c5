"""CrossDiff: two frozen encoders and a fusion head (arXiv 2401.05153)."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossdiff_cli.geometry.grid import Pixels
from crossdiff_cli.imaging.back_projection import (
    ITERATIONS,
    WIENER_RADIUS,
    back_project,
    back_projection_radius,
    denoise_pan,
)
from crossdiff_cli.imaging.injection import BETA_RADIUS, prepare
from crossdiff_cli.imaging.intensity import REACH, correct_intensity
from crossdiff_cli.imaging.resample import EXPAND_RADIUS, mtf_radius
from crossdiff_cli.imaging.sensor_model import SensorModel, pan_on_ms_grid
from crossdiff_cli.model.diffusion import NoiseSchedule
from crossdiff_cli.model.fusion import EncoderOutputs, FusionHead
from crossdiff_cli.model.spectral import Spectrum
from crossdiff_cli.model.unet import UNet

TOWARDS_X_0 = {"x0": 1.0, "v": -1.0, "eps": 0.0}
"""Factor by which P2M's output at t = T becomes a prediction of x_0, by prediction type; for eps there is none."""


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
    stage_nm: tuple[float, ...] = ()
    """Centre wavelengths, rising, of the bands that the head's sensor stage was fitted to; empty without a stage."""
    image_quality: bool = True
    """Whether the networks are told the MTF and noise of PAN and MS."""
    prediction_type: str = "x0"
    """What the encoders were asked for: x0, eps or v."""

    def as_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Architecture":
        """Inverse of `as_dict`, from JSON lists to tuples.

        Older files call `prediction_type` `objective`, and without `image_quality` they have none.
        """
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        if "objective" in plain:
            plain["prediction_type"] = plain.pop("objective")
        plain.setdefault("image_quality", False)
        return cls(**plain)

    def schedule(self) -> NoiseSchedule:
        """The forward chain of both branches."""
        return NoiseSchedule.residual_shift(self.timesteps, self.kappa)


class CrossDiff(nn.Module):
    """Two encoders and the fusion head: PAN and upsampled MS to HRMS in one deterministic pass."""

    def __init__(self, architecture: Architecture, *, encoders: bool = True) -> None:
        """Build untrained networks; without `encoders` only the head (a control)."""
        super().__init__()
        a = architecture
        self.architecture = a
        self.p2m = UNet("ms", a.widths, a.blocks, a.decoder_width, quality=a.image_quality) if encoders else None
        self.m2p = UNet("pan", a.widths, a.blocks, a.decoder_width, quality=a.image_quality) if encoders else None
        self.head = self.untrained_head()

    def untrained_head(self) -> FusionHead:
        """A head for these encoders, or for none."""
        a = self.architecture
        return FusionHead(
            a.widths,
            a.decoder_width,
            a.head_widths,
            encoders=self.p2m is not None,
            m2p=a.m2p_features,
            stage_nm=a.stage_nm,
            quality=a.image_quality,
        )

    def add_sensor_stage(self, center_nm: Sequence[float]) -> None:
        """Give the head an untrained stage for bands at these wavelengths, in place of any that it has."""
        known = {name: value for name, value in self.head.state_dict().items() if not name.startswith("stage.")}
        self.architecture = replace(self.architecture, stage_nm=tuple(sorted(center_nm)))
        self.head = self.untrained_head()
        self.head.load_state_dict(self.head.state_dict() | known)

    def with_m2p_features(self, taken: bool) -> None:
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
    def receptive_field_radius(self) -> int:
        """Receptive field of the whole network in PAN pixels."""
        if self.p2m is None:
            return self.head.receptive_field_radius
        # The head takes the pyramids at every level, what is decoded from them at its first.
        return max(
            self.p2m.receptive_field_radius + self.head.receptive_field_radius,
            self.p2m.decoded_radius + self.head.inject_radius,
        )

    def features(
        self, pan: Tensor, ms_up: Tensor, spectrum: Spectrum, dtype: torch.dtype = torch.float32
    ) -> EncoderOutputs | None:
        """Encode noise-free images at the feature timesteps, in the precision `dtype`: same input, same features."""
        if self.p2m is None or self.m2p is None:
            return None
        p2m_time, m2p_time = self.feature_timesteps(pan)
        pan, ms_up = pan.to(dtype), ms_up.to(dtype)
        p2m = self.p2m.encode(ms_up, p2m_time, pan, spectrum)
        m2p = self.m2p.encode(pan, m2p_time, ms_up, spectrum) if self.architecture.m2p_features else None
        return self.decoded(p2m, m2p, spectrum)

    def feature_timesteps(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Those of the features of P2M and M2P, as fractions of T."""
        a = self.architecture
        t = torch.ones(image.shape[0], device=image.device)
        return t * (a.p2m_timestep / a.timesteps), t * (a.m2p_timestep / a.timesteps)

    def decoded(self, p2m: list[Tensor], m2p: list[Tensor] | None, spectrum: Spectrum) -> EncoderOutputs:
        """The pyramids, through the light decoders."""
        assert self.p2m is not None and self.m2p is not None
        assert self.p2m.ms_out is not None
        mine = self.p2m.decode(p2m)
        everything = mine if m2p is None else torch.cat([mine, self.m2p.decode(m2p)], dim=1)
        prediction = TOWARDS_X_0[self.architecture.prediction_type] * self.p2m.ms_out(mine, spectrum)
        return EncoderOutputs(p2m, m2p, everything, prediction)

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

    def fuse(
        self,
        pan: Tensor,
        ms: Tensor,
        sensor_model: SensorModel,
        spectrum: Spectrum,
        iterations: int = ITERATIONS,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Fuse one window, the whole method in one call, differentiable.

        Args:
            pan: (B, 1, H, W), normalised; H and W are multiples of the network's stride.
            ms: (B, C, h, w), normalised.
            sensor_model: grid mapping, MTF and noise of the window.
            spectrum: wavelengths and ratio.
            iterations: of back-projection.
            dtype: precision of the convolutions; everything around them is float32.

        Returns:
            (B, C, H, W), normalised, float32.
        """
        pan, ms, pan_ms = cleaned(pan, ms, sensor_model)
        pan_low, ms_up, beta = prepare(pan, ms, sensor_model)
        hrms = self(pan, pan_low, ms_up, beta, spectrum, dtype)
        return back_project(hrms, pan, ms, pan_ms, sensor_model, iterations)

    def halo(self, ratio: Pixels, nyquist_gains: Sequence[float], iterations: int) -> int:
        """Return the receptive-field radius of the whole fusion, in PAN pixels: the halo of a tile."""
        largest = max(ratio)
        degraded = max(mtf_radius(gain, largest) for gain in nyquist_gains) + 1
        around = math.ceil((BETA_RADIUS + 1 + REACH + EXPAND_RADIUS) * largest)
        beta = degraded + around + 4  # found at half of the grid and interpolated
        ms_up = math.ceil((REACH + EXPAND_RADIUS) * largest) + degraded
        network = max(self.receptive_field_radius + ms_up, self.head.inject_radius + beta)
        return WIENER_RADIUS + network + back_projection_radius(ratio, nyquist_gains, iterations)


def cleaned(pan: Tensor, ms: Tensor, sensor_model: SensorModel) -> tuple[Tensor, Tensor, Tensor]:
    """Suppress noise of the PAN, and aliasing and noise of the MS that the PAN does not show, before they are fused.

    Args:
        pan: (B, 1, H, W), normalised.
        ms: (B, C, h, w), normalised.
        sensor_model: of the window.

    Returns:
        PAN, MS, and the PAN on the MS grid (B, C, h, w).
    """
    pan = denoise_pan(pan, sensor_model)
    pan_ms = pan_on_ms_grid(pan, (ms.shape[2], ms.shape[3]), sensor_model)
    ms = correct_intensity(ms, pan_ms, sensor_model.intensity, sensor_model.ms_noise, sensor_model.saturation)
    return pan, ms, pan_ms
