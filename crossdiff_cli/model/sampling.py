"""Drawing images from a trained UNet: deterministic DDIM steps along the chain."""

from collections.abc import Callable

import torch
from torch import Tensor

from crossdiff_cli.model.schedule import NoiseSchedule

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""x_t (B, C, H, W) and timestep (B,) int64 to the predicted x_0."""


def draw(denoise: Denoiser, schedule: NoiseSchedule, prior: Tensor, eps: Tensor, steps: int) -> Tensor:
    """Draw x_0 in `steps` evaluations, from x_T = s_T x_0 + h_T prior + sigma_T eps with s_T = 0 (DDIM, 2010.02502).

    From x_t and the predicted x_0 the noise follows, eps = (x_t - s_t x_0 - h_t prior) / sigma_t, and with it the state
    at the next smaller timestep. Same `eps`, same image.

    Args:
        denoise: predicts x_0.
        schedule: the chain.
        prior: (B, C, H, W), what the chain ends in; zeros to draw from the condition alone.
        eps: (B, C, H, W), standard normal.
        steps: evaluations, evenly spaced over 1 to T.
    """
    timesteps = torch.linspace(schedule.timesteps, 0, steps + 1).round().long()
    x_t = schedule.shift[-1] * prior + schedule.sigma[-1] * eps
    for now, after in zip(timesteps[:-1].tolist(), timesteps[1:].tolist(), strict=True):
        x_0 = denoise(x_t, torch.full((len(prior),), now))
        signal, shift, sigma = (float(c[now]) for c in (schedule.signal, schedule.shift, schedule.sigma))
        noise = (x_t - signal * x_0 - shift * prior) / sigma
        x_t = schedule.signal[after] * x_0 + schedule.shift[after] * prior + schedule.sigma[after] * noise
    return x_t
