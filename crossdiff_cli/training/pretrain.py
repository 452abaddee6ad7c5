"""Stage 1: teach P2M and M2P to predict one image from the other, along the diffusion chain."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import torch
from torch import Generator, Tensor, nn

from crossdiff_cli.fuse import prepare
from crossdiff_cli.model.crossdiff import CrossDiff
from crossdiff_cli.model.spectral import Spectrum
from crossdiff_cli.model.unet import UNet
from crossdiff_cli.training.distributed import Workers
from crossdiff_cli.training.loop import Plan, Watch, fit
from crossdiff_cli.training.objective import Objective, Prediction
from crossdiff_cli.training.patches import Example, Sampler

_AS_USED = 0.5
"""Share of samples without noise at the timestep whose features are used: as the encoders are used later."""


Branch = Literal["both", "p2m", "m2p"]
BRANCHES: tuple[str, ...] = get_args(Branch)


@dataclass(frozen=True, slots=True)
class Pretext:
    """How the cross-prediction is asked for."""

    objective: Objective = "x0"
    min_snr: float | None = None
    """gamma of min-SNR weighting, for x0; None counts all timesteps alike."""
    condition_dropout: float = 0.1
    """Share of samples whose condition is replaced by its mean."""
    prior_dropout: float = 0.1
    """Share of samples whose chain ends in the mean instead of the prior, at late timesteps, so that images can be
    drawn from the condition alone."""
    branch: Branch = "both"
    """Which encoder learns."""
    octave_down: bool = True
    """Whether P2M learns from pairs one ratio down, whose x_0 is the original MS; else x_0 is the upsampled MS, as
    published."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True, slots=True)
class Task:
    """One prediction: a branch, what it should find, what it starts from and what it is shown."""

    unet: UNet
    feature_timestep: int
    x_0: Tensor
    """(B, C, H, W), normalised."""
    prior: Tensor
    condition: Tensor
    detail: Tensor | None
    """(B, C, H, W), what the PAN shows beyond each band's resolution; P2M only."""
    spectrum: Spectrum


Batches = list[Example]


def pretrain(
    model: CrossDiff,
    sampler: Sampler,
    plan: Plan,
    groups: int,
    pretext: Pretext | None = None,
    *,
    workers: Workers | None = None,
    watch: Watch | None = None,
) -> None:
    """Train both encoders, with their light decoders, on cross-prediction.

    P2M sees pairs one ratio down, where x_0 is the original MS; M2P sees those and full-resolution pairs, where x_0 is
    the PAN.

    Args:
        model: its `p2m` and `m2p` are trained in place.
        sampler: source of batches.
        plan: steps and rates.
        groups: scenes per step.
        pretext: objective, dropout, device and precision.
        workers: the processes that train together.
        watch: told of every checkpoint.

    Raises:
        TrainingError: as `loop.fit`.
    """
    assert model.p2m is not None and model.m2p is not None
    pretext = pretext or Pretext()
    prediction = Prediction(pretext.objective, model.architecture.schedule(), pretext.min_snr)

    branches = {"p2m": model.p2m, "m2p": model.m2p}
    learning = {name: unet for name, unet in branches.items() if pretext.branch in (name, "both")}

    def draw(generator: Generator) -> Batches:
        kinds = (pretext.branch == "p2m" or group % 2 == 0 or group % 4 == 1 for group in range(groups))
        return [sampler.draw(generator, reduced=reduced) for reduced in kinds]

    def step(batches: Batches, generator: Generator) -> dict[str, Tensor]:
        losses: dict[str, list[Tensor]] = {name: [] for name in learning}
        for example in batches:
            asked = tasks(model, example.to(pretext.device), octave_down=pretext.octave_down)
            for name, task in asked.items():
                if name not in losses:
                    continue
                losses[name].append(_loss(task, prediction, pretext, generator))
        return {name: _mean(values) for name, values in losses.items()}

    fit(nn.ModuleDict(learning), draw, step, plan, workers=workers, watch=watch)


def tasks(model: CrossDiff, example: Example, *, octave_down: bool = True) -> dict[str, Task]:
    """What both branches can be asked of an example: P2M only where the MS it should find is known."""
    assert model.p2m is not None and model.m2p is not None
    pan_low, ms_up, _ = prepare(example.pan, example.ms, example.sampling)
    timesteps, spectrum = model.architecture, example.spectrum
    found = {
        "m2p": Task(
            model.m2p, timesteps.m2p_timestep, example.pan, pan_low.mean(dim=1, keepdim=True), ms_up, None, spectrum
        )
    }
    target = example.reference if octave_down else ms_up
    if target is not None:
        prior = ms_up if octave_down else torch.zeros_like(ms_up)
        found["p2m"] = Task(
            model.p2m, timesteps.p2m_timestep, target, prior, example.pan, example.pan - pan_low, spectrum
        )
    return found


def predict(task: Task, prediction: Prediction, x_t: Tensor, timestep: Tensor, dtype: torch.dtype) -> Tensor:
    """The branch's correction d for x_t (B, C, H, W) at `timestep` (B,) int64, in float32.

    P2M corrects MTF-GLP: before any training d is the share of the PAN detail that is missing from x_t.
    """
    layout = torch.channels_last
    with torch.autocast(x_t.device.type, dtype, enabled=dtype != torch.float32):
        output = task.unet(
            x_t.contiguous(memory_format=layout),
            (timestep / prediction.schedule.timesteps).to(x_t.device),
            task.condition.contiguous(memory_format=layout),
            task.detail,
            task.spectrum,
        )
    correction: Tensor = output.float()
    if task.detail is None:
        return correction
    return correction + prediction.injection(timestep).to(x_t)[:, None, None, None] * task.detail


def _loss(task: Task, prediction: Prediction, pretext: Pretext, generator: Generator) -> Tensor:
    """Mean absolute error of what is predicted (ResShift, eq. 9, with an L1 norm), at random timesteps."""
    batch, schedule = task.x_0.shape[0], prediction.schedule

    def chance(share: float) -> Tensor:
        return torch.rand(batch, generator=generator) < share

    timestep = torch.randint(1, schedule.timesteps + 1, (batch,), generator=generator)
    as_used, no_prior, no_condition = (
        chance(share) for share in (_AS_USED, pretext.prior_dropout, pretext.condition_dropout)
    )
    late = torch.randint(schedule.timesteps // 2, schedule.timesteps + 1, (batch,), generator=generator)
    timestep = torch.where(as_used, task.feature_timestep, torch.where(no_prior, late, timestep))
    noisy, no_prior = ~as_used, no_prior & ~as_used
    eps = (torch.randn(task.x_0.shape, generator=generator) * noisy[:, None, None, None]).to(task.x_0)
    prior = _dropped(task.prior, no_prior)
    x_t = schedule.add_noise(task.x_0, prior, timestep, eps)
    hidden = no_condition & ~no_prior
    shown = replace(
        task,
        prior=prior,
        condition=_dropped(task.condition, hidden),
        detail=None if task.detail is None else _dropped(task.detail, hidden),
    )
    found = predict(shown, prediction, x_t, timestep, pretext.dtype)
    error = (found - prediction.target(task.x_0, x_t, eps, timestep)).abs().mean(dim=(1, 2, 3))
    return (error * prediction.weight(timestep).to(error)).mean()


def _dropped(image: Tensor, which: Tensor) -> Tensor:
    """`image` (B, C, H, W) with the samples of `which` (B,) replaced by zero, the mean of normalised images."""
    return image * (~which).to(image)[:, None, None, None]


def _mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean() if values else torch.zeros(())
