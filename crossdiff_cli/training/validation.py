"""How well the pretext task is solved on scenes held out: errors by timestep, and drawn pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from crossdiff_cli.errors import OutputError, TrainingError
from crossdiff_cli.io.png import png
from crossdiff_cli.model.crossdiff import CrossDiff
from crossdiff_cli.model.objective import Prediction
from crossdiff_cli.model.sampling import Denoiser, draw
from crossdiff_cli.system.atomic import replacing
from crossdiff_cli.training.patches import Example, Sampler
from crossdiff_cli.training.pretrain import Pretext, Task, predict, tasks
from crossdiff_cli.training.training_scene import TrainingScene

BUCKETS = 5
_INNER = (..., slice(8, -8), slice(8, -8))
"""Pixels that count: at the border of a window the network sees its padding."""
_DRAWS = 10
"""DDIM steps of a picture drawn from the condition alone."""
_GAP = 4
_COLOURS_NM = (660.0, 555.0, 480.0)
_CONTRAST = 2.2
"""Deviations from the mean that are shown black and white."""


@dataclass(frozen=True, slots=True)
class Held:
    """Fixed windows of held-out scenes."""

    examples: tuple[tuple[str, Example], ...]
    """Name of the scene, and windows one ratio down with their reference."""

    @classmethod
    def of(cls, scenes: Sequence[TrainingScene], size: int, batch: int) -> "Held":
        """One batch of windows of every scene that is large enough.

        Raises:
            TrainingError: none is.
        """
        found = []
        for scene in scenes:
            sampler = Sampler([scene], size, batch, jitter_px=0.0, augment=False)
            try:
                example = sampler.draw(Generator().manual_seed(0), reduced=True)
            except TrainingError:
                continue
            if example.reference is not None:
                found.append((scene.name, example))
        if not found:
            raise TrainingError(
                f"no held-out scene has {size} x {size} valid MS pixels for validation: give larger ones, or a smaller "
                "--patch"
            )
        return cls(tuple(found))


@torch.no_grad()
def validate(model: CrossDiff, held: Held, pretext: Pretext) -> dict[str, list[float]]:
    """Mean error of the predicted x_0 over that of the prior, by branch and timestep bucket (low noise first).

    Above 1 the prediction is worse than the upsampled MS (or the low-passed PAN). The noise is the same each time.
    """
    prediction = Prediction(pretext.objective, model.architecture.schedule())
    edges = torch.linspace(0, prediction.schedule.timesteps, BUCKETS + 1).long()
    sums: dict[str, list[list[float]]] = {}
    for _, example in held.examples:
        on_device = example.to(pretext.device)
        for name, task in tasks(model, on_device, octave_down=pretext.octave_down).items():
            generator = Generator().manual_seed(1)
            baseline = float((task.prior - task.x_0)[_INNER].abs().mean())
            rows = sums.setdefault(name, [[] for _ in range(BUCKETS)])
            for bucket, row in enumerate(rows):
                timestep = torch.randint(
                    int(edges[bucket]) + 1, int(edges[bucket + 1]) + 1, (len(task.x_0),), generator=generator
                )
                eps = torch.randn(task.x_0.shape, generator=generator).to(task.x_0)
                x_t = prediction.schedule.add_noise(task.x_0, task.prior, timestep, eps)
                correction = predict(task, prediction, x_t, timestep, pretext.dtype)
                x_0 = prediction.x_0(correction, x_t, task.prior, x_t, timestep)
                row.append(float((x_0 - task.x_0)[_INNER].abs().mean()) / max(baseline, 1e-6))
    return {name: [float(np.mean(row)) for row in rows] for name, rows in sums.items()}


@torch.no_grad()
def pictures(model: CrossDiff, held: Held, pretext: Pretext, target: Path, count: int) -> None:
    """Draw MS from PAN and PAN from MS for the first window of `count` scenes; one row each in a PNG.

    A row shows PAN | MS drawn from the PAN alone | upsampled MS | MS restored from it and the PAN | MS | PAN drawn from
    the MS alone. Restored is without noise, as the encoders are used later.

    Raises:
        OutputError: `target` cannot be written.
    """
    prediction = Prediction(pretext.objective, model.architecture.schedule())
    rows = []
    for _, example in held.examples[:count]:
        found = tasks(model, example.to(pretext.device), octave_down=True)
        p2m, m2p = found["p2m"], found["m2p"]
        shown = [
            p2m.condition,
            _drawn(p2m, prediction, pretext),
            p2m.prior,
            _restored(p2m, prediction, pretext),
            p2m.x_0,
            _drawn(m2p, prediction, pretext),
        ]
        gap = np.full((3, example.pan.shape[2], _GAP), 255, np.uint8)
        cells = [cell for image in shown for cell in (_levels(image[0], example), gap)]
        rows.append(np.concatenate(cells[:-1], axis=2))
    try:
        with replacing(target) as temporary:
            temporary.write_bytes(png(np.concatenate(rows, axis=1)))
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror}") from error


def _drawn(task: Task, prediction: Prediction, pretext: Pretext) -> Tensor:
    """x_0 from the condition alone, one of those that the noise chooses among."""
    alone = task.with_condition_alone(torch.ones(len(task.x_0), dtype=torch.bool))
    eps = alone.noise(prediction.schedule, Generator().manual_seed(2))
    return draw(_denoiser(alone, prediction, pretext), prediction.schedule, alone.prior, eps, _DRAWS)


def _restored(task: Task, prediction: Prediction, pretext: Pretext) -> Tensor:
    """x_0 from the prior and the condition, in one step without noise."""
    timestep = torch.full((len(task.x_0),), prediction.schedule.timesteps)
    return _denoiser(task, prediction, pretext)(task.prior, timestep)


def _denoiser(task: Task, prediction: Prediction, pretext: Pretext) -> Denoiser:
    def denoise(x_t: Tensor, timestep: Tensor) -> Tensor:
        correction = predict(task, prediction, x_t, timestep, pretext.dtype)
        base = task.base(prediction.schedule, x_t, timestep)
        return prediction.x_0(correction, x_t, task.prior, base, timestep)

    return denoise


def _levels(image: Tensor, example: Example) -> NDArray[np.uint8]:
    """Grey levels (3, H, W) of one normalised image (C, H, W): true colour as near as its bands allow."""
    if len(image) > 1:
        center = example.spectrum.center_nm.cpu()
        image = image[[int((center - nm).abs().argmin()) for nm in _COLOURS_NM]]
    level = ((image.clamp(-_CONTRAST, _CONTRAST) / _CONTRAST + 1) * 127.5).round()
    return np.asarray(level.expand(3, -1, -1).byte().cpu().numpy())
