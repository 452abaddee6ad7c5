"""Noise schedules: how a clean image becomes x_t, as three coefficients per timestep."""

import math
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

_OCTAVES = 7
"""Scales of `octave_noise`: from single pixels to 64."""


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


def octave_noise(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Normal noise (B, C, H, W) of deviation 1 with as much in every octave, from single pixels to areas of 64.

    White noise leaves the mean of an area alone, so that it leaves no choice of its colour; this one does, at every
    scale that images have.
    """
    batch, channels, *sides = shape
    total = torch.zeros(shape)
    for scale in (2**octave for octave in range(_OCTAVES)):
        coarse = torch.randn((batch, channels, *(-(-side // scale) for side in sides)), generator=generator)
        # Bilinear interpolation leaves 2/3 of the variance along each side.
        total += coarse if scale == 1 else 1.5 * F.interpolate(coarse, size=sides, mode="bilinear")
    return total / math.sqrt(_OCTAVES)
