"""Windows held out of training, and the figures by which one head is preferred to another."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from crossdiff_cli.fuse import fuse
from crossdiff_cli.model.crossdiff import CrossDiff
from crossdiff_cli.quality.assess import assess_arrays
from crossdiff_cli.quality.report import QualityReport
from crossdiff_cli.survey import Statistics
from crossdiff_cli.training.patches import Example, windows_of
from crossdiff_cli.training.training_scene import TrainingScene

_log = logging.getLogger(__name__)

EDGE = 16
"""What is sharpened but not judged around a window, in PAN pixels."""
SIZES = (288, 224, 160, 96, 64)
"""Sides of the windows that are tried, in PAN pixels: whole blocks of the metrics inside the edge."""
PER_SCENE = 3
_SHARE = 0.25
_SHARPNESS = 1.05
"""How much D_rho may grow where HQNR is gained: HQNR alone is won by not sharpening."""


@dataclass(frozen=True, slots=True)
class JudgedWindow:
    """One window to be sharpened and scored in the unit of its MS."""

    scene: str
    sensor: str
    example: Example
    statistics: Statistics

    def report(self, model: CrossDiff) -> QualityReport:
        """Figures of the window without its edge."""
        e = self.example
        with torch.inference_mode():
            hrms = fuse(model, e.pan, e.ms, e.sampling, e.spectrum, rounds=1)
        inside = slice(EDGE, -EDGE)
        unit = self.statistics.denormalise_ms
        pan = e.pan[0] * self.statistics.pan_std + self.statistics.pan_mean
        return assess_arrays(
            unit(hrms[0])[:, inside, inside],
            pan[:, inside, inside],
            unit(e.ms[0]),
            e.sampling.ratio,
            (e.sampling.offset[0] - EDGE, e.sampling.offset[1] - EDGE),
            e.sampling.gains,
            reference=None if e.reference is None else unit(e.reference[0])[:, inside, inside],
        )


@dataclass(frozen=True, slots=True)
class Score:
    """Means over held-out windows."""

    hqnr: float
    d_rho: float

    def beats(self, other: "Score", start: "Score") -> bool:
        """Whether HQNR is higher than `other`'s, and the picture not softer than at the `start`."""
        return self.hqnr > other.hqnr and self.d_rho <= _SHARPNESS * start.d_rho + 1e-4


def score(model: CrossDiff, windows: Sequence[JudgedWindow]) -> Score:
    """Judge a model at full resolution."""
    training = model.training
    model.eval()
    reports = [window.report(model) for window in windows]
    model.train(training)
    hqnr = [r.hqnr for r in reports if r.hqnr is not None]
    d_rho = [r.d_rho for r in reports if r.d_rho is not None]
    return Score(sum(hqnr) / max(1, len(hqnr)), sum(d_rho) / max(1, len(d_rho)))


def hold_out(scene: TrainingScene) -> tuple[TrainingScene, list[JudgedWindow]]:
    """Keep the right-hand quarter of a scene from training; windows of it are judged.

    Returns:
        The scene with that quarter masked, and up to `PER_SCENE` windows, none where the quarter is too small; then the
        scene is returned as it is.
    """
    cut_ms = round((1 - _SHARE) * scene.ms_mask.shape[1])
    cut_pan = round(scene.sampling.offset[1] + cut_ms * scene.sampling.ratio[1])
    ms_mask, pan_mask = scene.ms_mask.clone(), scene.pan_mask.clone()
    ms_mask[:, :cut_ms], pan_mask[:, :cut_pan] = False, False
    kept = replace(scene, ms_mask=ms_mask, pan_mask=pan_mask, reference=None)
    for size in SIZES:
        examples = windows_of(kept, size, PER_SCENE)
        if examples:
            windows = [JudgedWindow(scene.name, scene.sensor, e, scene.statistics) for e in examples]
            rest = replace(scene, ms_mask=scene.ms_mask & ~ms_mask, pan_mask=scene.pan_mask & ~pan_mask)
            return rest, windows
    _log.warning("%s is too small to hold windows out of training", scene.name)
    return scene, []
