"""The diffusion chain: its noise schedule, and what a UNet predicts along it."""

import math
from dataclasses import dataclass
from typing import Self, get_args

import torch
from torch import Tensor

from crossdiff_cli.options import PredictionType

PREDICTION_TYPES: tuple[str, ...] = get_args(PredictionType)

_SMALLEST_SIGNAL = 0.05
"""Weight of x_0 in x_t below which predicted noise no longer determines x_0."""


@dataclass(frozen=True, slots=True)
class NoiseSchedule:
    """The forward chain x_t = signal_t x_0 + shift_t prior + sigma_t eps, for timesteps 0 (clean) to T.

    `prior` is what is known of x_0 before sampling: the upsampled MS for P2M, the low-passed PAN for M2P.
    """

    signal: Tensor
    """(T + 1,) weight of x_0."""
    shift: Tensor
    """(T + 1,) weight of the prior; zero in the DDPM chain."""
    sigma: Tensor
    """(T + 1,) standard deviation of the noise."""

    @property
    def timesteps(self) -> int:
        """T, the last timestep."""
        return len(self.sigma) - 1

    @classmethod
    def cosine(cls, timesteps: int) -> Self:
        """DDPM chain of the paper: alpha_bar(t) = cos^2((t/T + s) / (1 + s) pi/2), s = 0.008 (Nichol and Dhariwal)."""
        t = torch.arange(timesteps + 1, dtype=torch.float64) / timesteps
        alpha_bar = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
        alpha_bar = (alpha_bar / alpha_bar[0]).clamp(1e-5, 1.0)
        return cls(alpha_bar.sqrt().float(), torch.zeros(timesteps + 1), (1 - alpha_bar).sqrt().float())

    @classmethod
    def residual_shift(cls, timesteps: int, kappa: float) -> Self:
        """Chain that ends in the prior: x_t = x_0 + eta_t (prior - x_0) + kappa sqrt(eta_t) eps (ResShift, 2307.12348).

        eta_t = sin^2(pi t / 2T) rises from 0 to 1.
        """
        t = torch.arange(timesteps + 1, dtype=torch.float64) / timesteps
        eta = torch.sin(t * math.pi / 2) ** 2
        return cls((1 - eta).float(), eta.float(), (kappa * eta.sqrt()).float())

    def add_noise(self, x_0: Tensor, prior: Tensor, timestep: Tensor, eps: Tensor) -> Tensor:
        """Draw x_t: `x_0`, `prior` and `eps` are (B, C, H, W), `timestep` is (B,) int64."""
        signal, shift, sigma = (c.to(x_0)[timestep, None, None, None] for c in (self.signal, self.shift, self.sigma))
        return signal * x_0 + shift * prior + sigma * eps


@dataclass(frozen=True, slots=True)
class Prediction:
    """Meaning of the network's output d, for x_t = signal_t x_0 + shift_t prior + sigma_t eps.

    For the type x0, d = x_0 - x_t, so that an output of zero returns x_t; for eps, d = eps (DDPM, 2006.11239).
    """

    prediction_type: PredictionType
    schedule: NoiseSchedule

    def target(self, x_0: Tensor, x_t: Tensor, eps: Tensor) -> Tensor:
        """Return the d to be learned, of the shape of `x_0` (B, C, H, W)."""
        return eps if self.prediction_type == "eps" else x_0 - x_t

    def x_0(self, correction: Tensor, x_t: Tensor, prior: Tensor, timestep: Tensor) -> Tensor:
        """Return the x_0 (B, C, H, W) that the output `correction` implies at `timestep` (B,) int64.

        With eps the divisor is at least `_SMALLEST_SIGNAL`, since x_0 is undetermined at the end of the chain.
        """
        if self.prediction_type == "x0":
            return x_t + correction
        signal, shift, sigma = (
            c[timestep.cpu(), None, None, None].to(x_t)
            for c in (self.schedule.signal, self.schedule.shift, self.schedule.sigma)
        )
        return (x_t - shift * prior - sigma * correction) / signal.clamp_min(_SMALLEST_SIGNAL)

    def injection(self, timestep: Tensor) -> Tensor:
        """Return the factor (B,) of the detail (x_0 - prior) in d: the weight of the prior in x_t for x0, 0 for eps."""
        if self.prediction_type == "x0":
            return self.schedule.shift[timestep.cpu()]
        return torch.zeros(len(timestep))
