"""Stage 1: teach P2M and M2P to predict one image from the other, along the diffusion chain."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from crossdiff_cli.imaging.injection import prepare
from crossdiff_cli.model.crossdiff import CrossDiff
from crossdiff_cli.model.objective import Objective, Prediction
from crossdiff_cli.model.schedule import NoiseSchedule, octave_noise
from crossdiff_cli.model.spectral import Spectrum
from crossdiff_cli.model.unet import UNet
from crossdiff_cli.training.distributed import Workers
from crossdiff_cli.training.loop import Plan, Watch, fit
from crossdiff_cli.training.patches import Example, Sampler

_AS_USED = 0.5
"""Share of samples with a prior that have no noise, at the timestep whose features are used: as they are used later."""
_COARSE_PX = 4
"""PAN pixels along a side whose mean is taken for the coarse part of x_t."""
_ALONE_SIGMA = 0.15
"""Deviation of the noise at the end of a chain that ends in the condition; the colours of 0.35 stayed in the result."""


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
    prior_dropout: float = 0.05
    """Share of samples whose chain ends in the condition instead of the prior, with more noise, so that images can be
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
    """(B, C, H, W), what the chain ends in."""
    condition: Tensor
    detail: Tensor | None
    """(B, C, H, W), what the PAN shows beyond each band's resolution; P2M only."""
    spectrum: Spectrum
    alone: Tensor
    """(B,) bool: samples of which nothing is known but the condition, which their chain ends in."""

    def with_condition_alone(self, which: Tensor) -> "Task":
        """The same with the condition, its mean over bands in every band, for the prior of the samples of `which`."""
        grey = self.condition.mean(dim=1, keepdim=True).expand_as(self.prior)
        return replace(self, prior=torch.where(_each(which, grey), grey, self.prior), alone=self.alone | which)

    def base(self, schedule: NoiseSchedule, x_t: Tensor, timestep: Tensor) -> Tensor:
        """What x_0 is found beside, of its shape: x_t; where the condition is alone, that and what x_t shows beside it.

        Of this the mean over a few pixels is believed, as far as its noise allows: by Wiener's rule (c_skip of EDM,
        2206.00364), for colours that deviate from grey as much as the noise at T does.
        """
        signal, sigma = (_each(c[timestep], x_t) for c in (schedule.signal, schedule.sigma / schedule.sigma[-1]))
        believed = signal / (signal**2 + sigma**2)
        coarse = F.interpolate(F.avg_pool2d(x_t - self.prior, _COARSE_PX), size=x_t.shape[-2:], mode="bilinear")
        return torch.where(_each(self.alone, x_t), self.prior + believed * coarse, x_t)

    def noise(self, schedule: NoiseSchedule, generator: Generator) -> Tensor:
        """eps, of the shape of `x_0`: white beside a prior, in all octaves and stronger beside the condition alone."""
        shape = tuple(self.x_0.shape)
        white, all_octaves = torch.randn(shape, generator=generator), octave_noise(shape, generator)
        stronger = _ALONE_SIGMA / float(schedule.sigma[-1])
        return torch.where(_each(self.alone, white), stronger * all_octaves, white).to(self.x_0)


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
    pan_low, ms_up, _ = prepare(example.pan, example.ms, example.sensor_model)
    timesteps, spectrum = model.architecture, example.spectrum
    nowhere = torch.zeros(len(ms_up), dtype=torch.bool)
    pan_blur = pan_low.mean(dim=1, keepdim=True)
    found = {"m2p": Task(model.m2p, timesteps.m2p_timestep, example.pan, pan_blur, ms_up, None, spectrum, nowhere)}
    target = example.reference if octave_down else ms_up
    if target is not None:
        prior = ms_up if octave_down else torch.zeros_like(ms_up)
        detail = example.pan - pan_low
        found["p2m"] = Task(model.p2m, timesteps.p2m_timestep, target, prior, example.pan, detail, spectrum, nowhere)
    return found


def predict(task: Task, prediction: Prediction, x_t: Tensor, timestep: Tensor, dtype: torch.dtype) -> Tensor:
    """The branch's correction d for x_t (B, C, H, W) at `timestep` (B,) int64, in float32.

    P2M corrects MTF-GLP: before any training d is the share of the PAN detail that is missing from x_t, and
    nothing beside the PAN alone, which has it. A chain that ends in the condition is told by negative timesteps.
    """
    layout = torch.channels_last
    told = torch.where(task.alone, -timestep, timestep) / prediction.schedule.timesteps
    with torch.autocast(x_t.device.type, dtype, enabled=dtype != torch.float32):
        output = task.unet(
            x_t.contiguous(memory_format=layout),
            told.to(x_t.device),
            task.condition.contiguous(memory_format=layout),
            task.detail,
            task.spectrum,
        )
    correction: Tensor = output.float()
    if task.detail is None:
        return correction
    return correction + _each(prediction.injection(timestep) * ~task.alone, x_t) * task.detail


def _loss(task: Task, prediction: Prediction, pretext: Pretext, generator: Generator) -> Tensor:
    """Mean absolute error of what is predicted (ResShift, eq. 9, with an L1 norm), at random timesteps."""
    batch, schedule = task.x_0.shape[0], prediction.schedule

    def chance(share: float) -> Tensor:
        return torch.rand(batch, generator=generator) < share

    timestep = torch.randint(1, schedule.timesteps + 1, (batch,), generator=generator)
    no_prior, as_used, no_condition = (
        chance(share) for share in (pretext.prior_dropout, _AS_USED, pretext.condition_dropout)
    )
    as_used &= ~no_prior
    timestep = torch.where(as_used, task.feature_timestep, timestep)
    hidden = no_condition & ~no_prior
    task = replace(
        task.with_condition_alone(no_prior),
        condition=_dropped(task.condition, hidden),
        detail=None if task.detail is None else _dropped(task.detail, hidden),
    )
    eps = _dropped(task.noise(schedule, generator), as_used)
    x_t = schedule.add_noise(task.x_0, task.prior, timestep, eps)
    found = predict(task, prediction, x_t, timestep, pretext.dtype)
    target = prediction.target(task.x_0, x_t, task.base(schedule, x_t, timestep), eps, timestep)
    error = (found - target).abs().mean(dim=(1, 2, 3))
    return (error * prediction.weight(timestep).to(error)).mean()


def _dropped(image: Tensor, which: Tensor) -> Tensor:
    """`image` (B, C, H, W) with the samples of `which` (B,) replaced by zero, the mean of normalised images."""
    return image * _each(~which, image)


def _each(values: Tensor, like: Tensor) -> Tensor:
    """A value of each sample (B,), for images (B, C, H, W) on the device of `like`; numbers in its type."""
    values = values.to(like.device) if values.dtype == torch.bool else values.to(like)
    return values[:, None, None, None]


def _mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean() if values else torch.zeros(())
