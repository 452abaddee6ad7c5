"""Resimulated scenes: a sharpened pair is the reference and is degraded anew by another, simulated sensor.

Real textures with a known answer at full scale. The truth is only as good as the weights that sharpened it, but its PAN
and MS are exact images of it.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Generator, Tensor

from crossdiff_cli.geometry.grid import GridMapping
from crossdiff_cli.geometry.window import STRIDE
from crossdiff_cli.imaging.resample import EXPAND_RADIUS, degrade
from crossdiff_cli.imaging.sensor_model import SensorModel
from crossdiff_cli.model.crossdiff import CrossDiff
from crossdiff_cli.model.weights import load
from crossdiff_cli.system.weight_files import bundled_weights
from crossdiff_cli.training.simulated_pan import draw_mixture, draw_pan_range, standardised
from crossdiff_cli.training.training_scene import TrainingScene

_CORE, _HALO = 256, 96
"""Window of sharpening and what surrounds it; the truth need not obey the tile law."""
_GAIN_JITTER = 0.05
_NOISE = 0.02
"""Largest standard deviation of the added noise, in deviations of the image."""


@torch.inference_mode()
def sharpen_scene(model: CrossDiff, scene: TrainingScene) -> Tensor:
    """The scene sharpened by `model`, with one back-projection: (1, C, H, W), normalised."""
    height, width = scene.pan_mask.shape
    hrms = torch.zeros(1, scene.ms.shape[1], height, width)
    size = _CORE + 2 * _HALO
    size += -size % STRIDE
    for row in range(0, height, _CORE):
        for col in range(0, width, _CORE):
            origin, window, source = [], [], []
            for axis, start in enumerate((row, col)):
                first = max(0, min(start - _HALO, (height, width)[axis] - size))
                stop = min(first + size, (height, width)[axis])
                stop -= (stop - first) % STRIDE
                ratio, offset = scene.sensor_model.grid.ratio[axis], scene.sensor_model.grid.offset[axis]
                low = max(0, math.floor((first - offset) / ratio) - EXPAND_RADIUS - 1)
                high = min(scene.ms_mask.shape[axis], math.ceil((stop - offset) / ratio) + EXPAND_RADIUS + 1)
                origin.append((first, offset + low * ratio - first))
                window.append(slice(first, stop))
                source.append(slice(low, high))
            grid = replace(scene.sensor_model.grid, offset=(origin[0][1], origin[1][1]))
            fused = model.fuse(
                scene.pan[:, :, window[0], window[1]],
                scene.ms[:, :, source[0], source[1]],
                replace(scene.sensor_model, grid=grid),
                scene.spectrum,
            )
            rows, cols = (slice(s, min(s + _CORE, w.stop)) for s, w in zip((row, col), window, strict=True))
            hrms[:, :, rows, cols] = fused[
                :,
                :,
                rows.start - origin[0][0] : rows.stop - origin[0][0],
                cols.start - origin[1][0] : cols.stop - origin[1][0],
            ]
    return hrms


def resimulated(scenes: Sequence[TrainingScene], times: int, seed: int, weights: Path | None) -> list[TrainingScene]:
    """Every scene sharpened by `weights` (None: the shipped ones) and resimulated `times` times by sensors of `seed`.

    Raises:
        WeightsError: they cannot be used, or the installation has none.
    """
    model, generator = load(weights or bundled_weights())[0].channels_last(), Generator().manual_seed(seed)
    made = []
    for scene in scenes:
        hrms = sharpen_scene(model, scene)
        made += [resimulate(scene, hrms, generator) for _ in range(times)]
    return made


def resimulate(scene: TrainingScene, hrms: Tensor, generator: Generator) -> TrainingScene:
    """Image the truth `hrms` (1, C, H, W) by a random sensor: PAN response, ratio, grid phase, MTFs and noise.

    Returns:
        A scene on the PAN grid of `scene`, with `hrms` as its reference.
    """

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand(1, generator=generator))

    def noise(x: Tensor) -> Tensor:
        return x + uniform(0.0, _NOISE) * torch.randn(x.shape, generator=generator)

    pan_nm = draw_pan_range(generator)
    pan = draw_mixture(hrms, scene.spectrum.center_nm, pan_nm, generator)
    unexplained = uniform(0.0, 0.4)
    pan = (1 - unexplained) * pan + unexplained * scene.pan
    pan = noise(standardised(pan, scene.pan_mask))

    ratio = float(torch.tensor([2.0, 3.0, 4.0, scene.spectrum.ratio])[torch.randint(4, (1,), generator=generator)])
    offset = (uniform(-ratio, 0.0), uniform(-ratio, 0.0))
    gains = tuple(min(0.45, max(0.1, g + _GAIN_JITTER * uniform(-1, 1))) for g in scene.sensor_model.nyquist_gains)
    height, width = scene.pan_mask.shape
    small = (math.ceil((height - offset[0]) / ratio), math.ceil((width - offset[1]) / ratio))
    mask = degrade(scene.pan_mask[None, None].float(), small, (ratio, ratio), offset, [0.3])[0, 0] > 0.999
    return replace(
        scene,
        name=f"{scene.name}, resimulated",
        pan=pan,
        ms=noise(degrade(hrms, small, (ratio, ratio), offset, gains)),
        ms_mask=mask,
        sensor_model=SensorModel(GridMapping((ratio, ratio), offset), gains),
        spectrum=replace(scene.spectrum, ratio=ratio, pan_nm=pan_nm),
        reference=hrms,
    )
