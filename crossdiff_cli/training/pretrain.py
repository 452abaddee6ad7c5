"""Stage 1: teach P2M and M2P to predict one image from the other, along the diffusion chain."""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from crossdiff_cli.fuse import prepare
from crossdiff_cli.model.crossdiff import CrossDiff
from crossdiff_cli.model.schedule import NoiseSchedule
from crossdiff_cli.model.spectral import Spectrum
from crossdiff_cli.model.unet import UNet
from crossdiff_cli.training.loop import Plan, fit
from crossdiff_cli.training.patches import Sampler

_NOISE_FREE = 0.25
"""Share of samples without noise: features are taken from noise-free input, so it has to be trained on."""
_AT_FEATURE_TIMESTEP = 0.25
"""Share of samples at the timestep whose features are used."""


def pretrain(model: CrossDiff, sampler: Sampler, plan: Plan, groups: int) -> None:
    """Train both encoders, with their light decoders, on cross-prediction.

    P2M sees pairs one ratio down, where x_0 is the original MS; M2P sees those and full-resolution pairs, where x_0 is
    the PAN.

    Args:
        model: its `p2m` and `m2p` are trained in place.
        sampler: source of batches.
        plan: steps and rates.
        groups: scenes per step.
    """
    assert model.p2m is not None and model.m2p is not None
    p2m, m2p, schedule = model.p2m, model.m2p, model.architecture.schedule()
    features = (model.architecture.p2m_timestep, model.architecture.m2p_timestep)

    def step(generator: Generator) -> dict[str, Tensor]:
        losses: dict[str, list[Tensor]] = {"p2m": [], "m2p": []}
        for group in range(groups):
            reduced = group % 2 == 0
            example = sampler.draw(generator, reduced=reduced or group % 4 == 1)
            pan_low, ms_up, _ = prepare(example.pan, example.ms, example.sampling)
            pan, prior = example.pan, pan_low.mean(dim=1, keepdim=True)
            if example.reference is not None:
                losses["p2m"].append(
                    _loss(p2m, schedule, features[0], example.reference, ms_up, pan, example.spectrum, generator)
                )
            losses["m2p"].append(_loss(m2p, schedule, features[1], pan, prior, ms_up, example.spectrum, generator))
        return {name: _mean(values) for name, values in losses.items()}

    fit(nn.ModuleDict({"p2m": p2m, "m2p": m2p}), step, plan)


def _loss(
    unet: UNet,
    schedule: NoiseSchedule,
    feature_timestep: int,
    x_0: Tensor,
    prior: Tensor,
    condition: Tensor,
    spectrum: Spectrum,
    generator: Generator,
) -> Tensor:
    """Mean absolute error of the predicted x_0 (ResShift, eq. 9, with an L1 norm)."""
    batch = x_0.shape[0]
    timestep = torch.randint(1, schedule.timesteps + 1, (batch,), generator=generator)
    chosen = torch.rand(batch, generator=generator) < _AT_FEATURE_TIMESTEP
    timestep = torch.where(chosen, feature_timestep, timestep)
    noisy = torch.rand(batch, generator=generator) >= _NOISE_FREE
    eps = torch.randn(x_0.shape, generator=generator) * noisy[:, None, None, None]
    x_t = schedule.add_noise(x_0, prior, timestep, eps)
    layout = torch.channels_last
    predicted = unet(
        x_t.contiguous(memory_format=layout),
        timestep / schedule.timesteps,
        condition.contiguous(memory_format=layout),
        spectrum,
    )
    return (predicted - x_0).abs().mean()


def _mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean() if values else torch.zeros(())
