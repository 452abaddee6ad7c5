"""Stage 1: teach P2M and M2P to predict one image from the other, along the diffusion chain."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Generator, Tensor, nn

from crossdiff_cli.imaging.injection import prepare
from crossdiff_cli.model.crossdiff import CrossDiff, cleaned
from crossdiff_cli.model.diffusion import Prediction
from crossdiff_cli.model.spectral import Spectrum
from crossdiff_cli.model.unet import UNet
from crossdiff_cli.options import Branch, PredictionType
from crossdiff_cli.training.distributed import Workers
from crossdiff_cli.training.loop import OnCheckpoint, Plan, fit
from crossdiff_cli.training.patches import Example, PatchSampler

_AS_USED = 0.5
"""Share of samples without noise at the feature timestep, which is how the fusion head uses the encoders."""


@dataclass(frozen=True, slots=True)
class Pretext:
    """How the cross-prediction is asked for."""

    prediction_type: PredictionType = "x0"
    condition_dropout: float = 0.1
    """Share of samples whose condition is replaced by its mean."""
    branch: Branch = "both"
    """Which encoder learns."""
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


Batches = list[Example]


def pretrain(
    model: CrossDiff,
    sampler: PatchSampler,
    plan: Plan,
    groups: int,
    pretext: Pretext | None = None,
    *,
    workers: Workers | None = None,
    on_checkpoint: OnCheckpoint | None = None,
) -> None:
    """Train both encoders, with their light decoders, on cross-prediction.

    P2M sees pairs one ratio down, where x_0 is the original MS; M2P sees those and full-resolution pairs, where x_0 is
    the PAN.

    Args:
        model: its `p2m` and `m2p` are trained in place.
        sampler: source of batches.
        plan: steps and rates.
        groups: scenes per step.
        pretext: prediction type, dropout, device and precision.
        workers: the processes that train together.
        on_checkpoint: called at every checkpoint.

    Raises:
        TrainingError: as `loop.fit`.
    """
    assert model.p2m is not None and model.m2p is not None
    pretext = pretext or Pretext()
    prediction = Prediction(pretext.prediction_type, model.architecture.schedule())

    branches = {"p2m": model.p2m, "m2p": model.m2p}
    learning = {name: unet for name, unet in branches.items() if pretext.branch in (name, "both")}

    def draw(generator: Generator) -> Batches:
        kinds = (pretext.branch == "p2m" or group % 2 == 0 or group % 4 == 1 for group in range(groups))
        return [sampler.draw(generator, reduced=reduced) for reduced in kinds]

    def step(batches: Batches, generator: Generator) -> dict[str, Tensor]:
        losses: dict[str, list[Tensor]] = {name: [] for name in learning}
        for example in batches:
            asked = tasks(model, example.to(pretext.device))
            for name, task in asked.items():
                if name not in losses:
                    continue
                losses[name].append(_loss(task, prediction, pretext, generator))
        return {name: _mean(values) for name, values in losses.items()}

    fit(nn.ModuleDict(learning), draw, step, plan, workers=workers, on_checkpoint=on_checkpoint)


def tasks(model: CrossDiff, example: Example) -> dict[str, Task]:
    """Return the tasks of both branches for an example; P2M has one only where the example has a reference."""
    assert model.p2m is not None and model.m2p is not None
    pan, ms, _ = cleaned(example.pan, example.ms, example.sensor_model)
    pan_low, ms_up, _ = prepare(pan, ms, example.sensor_model)
    timesteps, spectrum = model.architecture, example.spectrum
    pan_blur = pan_low.mean(dim=1, keepdim=True)
    found = {"m2p": Task(model.m2p, timesteps.m2p_timestep, pan, pan_blur, ms_up, None, spectrum)}
    if example.reference is not None:
        detail = pan - pan_low
        found["p2m"] = Task(model.p2m, timesteps.p2m_timestep, example.reference, ms_up, pan, detail, spectrum)
    return found


def predict(task: Task, prediction: Prediction, x_t: Tensor, timestep: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the branch's output d for x_t (B, C, H, W) at `timestep` (B,) int64, in float32.

    P2M corrects MTF-GLP: an untrained network returns the part of the PAN detail that is missing from x_t.
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
    return correction + _each(prediction.injection(timestep), x_t) * task.detail


def _loss(task: Task, prediction: Prediction, pretext: Pretext, generator: Generator) -> Tensor:
    """Mean absolute error of what is predicted (ResShift, 2307.12348, eq. 9, with an L1 norm), at random timesteps."""
    batch, schedule = task.x_0.shape[0], prediction.schedule

    def chance(share: float) -> Tensor:
        return torch.rand(batch, generator=generator) < share

    timestep = torch.randint(1, schedule.timesteps + 1, (batch,), generator=generator)
    as_used, hidden = chance(_AS_USED), chance(pretext.condition_dropout)
    timestep = torch.where(as_used, task.feature_timestep, timestep)
    task = replace(
        task,
        condition=_dropped(task.condition, hidden),
        detail=None if task.detail is None else _dropped(task.detail, hidden),
    )
    eps = _dropped(torch.randn(task.x_0.shape, generator=generator).to(task.x_0), as_used)
    x_t = schedule.add_noise(task.x_0, task.prior, timestep, eps)
    found = predict(task, prediction, x_t, timestep, pretext.dtype)
    return (found - prediction.target(task.x_0, x_t, eps)).abs().mean()


def _dropped(image: Tensor, which: Tensor) -> Tensor:
    """`image` (B, C, H, W) with the samples of `which` (B,) replaced by zero, the mean of normalised images."""
    return image * _each(~which, image)


def _each(values: Tensor, like: Tensor) -> Tensor:
    """A value of each sample (B,), for images (B, C, H, W) on the device of `like`; numbers in its type."""
    values = values.to(like.device) if values.dtype == torch.bool else values.to(like)
    return values[:, None, None, None]


def _mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean() if values else torch.zeros(())
