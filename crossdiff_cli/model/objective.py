"""What a UNet is asked for: x_0, the noise or the velocity of the chain, and how much each timestep counts."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from crossdiff_cli.model.schedule import NoiseSchedule

Objective = Literal["x0", "eps", "v"]
OBJECTIVES: tuple[str, ...] = get_args(Objective)

_SMALLEST_SIGNAL = 0.05
"""Share of x_0 in x_t under which predicted noise no longer says what x_0 is."""
_LEAST_WEIGHT = 0.2
"""Where the noise hides x_0 the chain's prior still shows it, so that no timestep counts less than this."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the network's correction d stands for, in the chain x_t = s x_0 + h prior + sigma eps.

    x0: d is x_0 - base, where `base` is x_t, or in a chain that ends in the condition that and what x_t shows beside it
    at a coarse scale, so that none of its fine noise gets into x_0. eps: d is eps. v: d is v = (x_t - x_0) / (1 - s),
    the velocity of the straight path from x_0 to the noised prior (flow matching; with s = 1 - eta of the
    residual-shift chain).
    """

    objective: Objective
    schedule: NoiseSchedule
    min_snr: float | None = None
    """gamma of min-SNR weighting (2303.09556); None counts all timesteps alike."""

    def target(self, x_0: Tensor, x_t: Tensor, base: Tensor, eps: Tensor, timestep: Tensor) -> Tensor:
        """What d should be, of the shape of `x_0` (B, C, H, W)."""
        if self.objective == "eps":
            return eps
        if self.objective == "v":
            return (x_t - x_0) / (1 - self._at(self.schedule.signal, timestep, x_0)).clamp_min(_SMALLEST_SIGNAL)
        return x_0 - base

    def x_0(self, correction: Tensor, x_t: Tensor, prior: Tensor, base: Tensor, timestep: Tensor) -> Tensor:
        """x_0 as the correction d implies it.

        By the noise it is unknown where the signal has gone; the division stops at a signal of `_SMALLEST_SIGNAL`.
        """
        if self.objective == "eps":
            signal, shift, sigma = (
                self._at(c, timestep, x_t) for c in (self.schedule.signal, self.schedule.shift, self.schedule.sigma)
            )
            return (x_t - shift * prior - sigma * correction) / signal.clamp_min(_SMALLEST_SIGNAL)
        if self.objective == "v":
            away = (1 - self._at(self.schedule.signal, timestep, x_t)).clamp_min(_SMALLEST_SIGNAL)
            return x_t - away * correction
        return base + correction

    def injection(self, timestep: Tensor) -> Tensor:
        """What of the detail (x_0 - prior) d holds, (B,): the share of the prior in x_t for x0, -1 for v, 0 for eps."""
        if self.objective == "x0":
            return self.schedule.shift[timestep.cpu()]
        return torch.full((len(timestep),), -1.0 if self.objective == "v" else 0.0)

    def weight(self, timestep: Tensor) -> Tensor:
        """Weight of each sample's loss on x_0, (B,): min(SNR, gamma) / gamma, not under `_LEAST_WEIGHT`."""
        if self.min_snr is None or self.objective != "x0":
            return torch.ones(len(timestep))
        signal, sigma = self.schedule.signal[timestep], self.schedule.sigma[timestep]
        snr = (signal / sigma.clamp_min(1e-6)).square()
        return (snr.clamp(max=self.min_snr) / self.min_snr).clamp_min(_LEAST_WEIGHT)

    @staticmethod
    def _at(coefficients: Tensor, timestep: Tensor, like: Tensor) -> Tensor:
        return coefficients[timestep.cpu(), None, None, None].to(like)
