"""Error of the pretext task on held-out scenes, by timestep."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator

from crossdiff_cli.errors import TrainingError
from crossdiff_cli.model.crossdiff import CrossDiff
from crossdiff_cli.model.diffusion import Prediction
from crossdiff_cli.training.patches import Example, PatchSampler
from crossdiff_cli.training.pretrain import Pretext, predict, tasks
from crossdiff_cli.training.training_scene import TrainingScene

BUCKETS = 5
_INNER = (..., slice(8, -8), slice(8, -8))
"""Pixels that count: at the border of a window the network sees its padding."""


@dataclass(frozen=True, slots=True)
class ValidationSet:
    """Fixed windows of held-out scenes."""

    examples: tuple[tuple[str, Example], ...]
    """Name of the scene, and windows one ratio down with their reference."""

    @classmethod
    def of(cls, scenes: Sequence[TrainingScene], size: int, batch: int) -> "ValidationSet":
        """One batch of windows of every scene that is large enough.

        Raises:
            TrainingError: none is.
        """
        found = []
        for scene in scenes:
            sampler = PatchSampler([scene], size, batch, jitter_px=0.0, augment=False)
            try:
                example = sampler.draw(Generator().manual_seed(0), reduced=True)
            except TrainingError:
                continue
            if example.reference is not None:
                found.append((scene.name, example))
        if not found:
            raise TrainingError(
                "no held-out scene has enough valid MS pixels for validation",
                expected=f"{size} x {size}",
                cure="give larger scenes, or a smaller --patch",
            )
        return cls(tuple(found))


@torch.no_grad()
def validate(model: CrossDiff, held: ValidationSet, pretext: Pretext) -> dict[str, list[float]]:
    """Mean error of the predicted x_0 over that of the prior, by branch and timestep bucket (low noise first).

    Above 1 the prediction is worse than the upsampled MS (or the low-passed PAN). The noise is the same each time.
    """
    prediction = Prediction(pretext.prediction_type, model.architecture.schedule())
    edges = torch.linspace(0, prediction.schedule.timesteps, BUCKETS + 1).long()
    sums: dict[str, list[list[float]]] = {}
    for _, example in held.examples:
        on_device = example.to(pretext.device)
        for name, task in tasks(model, on_device).items():
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
                x_0 = prediction.x_0(correction, x_t, task.prior, timestep)
                row.append(float((x_0 - task.x_0)[_INNER].abs().mean()) / max(baseline, 1e-6))
    return {name: [float(np.mean(row)) for row in rows] for name, rows in sums.items()}
