"""Windows held out of training, and the figures by which one head is preferred to another."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from crossdiff_cli.imaging.back_projection import ITERATIONS
from crossdiff_cli.imaging.normalisation import Normalisation
from crossdiff_cli.model.crossdiff import CrossDiff
from crossdiff_cli.quality.assess import assess_arrays
from crossdiff_cli.quality.report import QualityReport
from crossdiff_cli.training.loop import Progress
from crossdiff_cli.training.patches import Example, windows_of
from crossdiff_cli.training.training_scene import TrainingScene
from crossdiff_cli.training.wald import wald_pair

_log = logging.getLogger(__name__)

EDGE = 16
"""What is sharpened but not judged around a window, in PAN pixels."""
SIZES = (288, 224, 160, 96, 64)
"""Sides of the windows that are tried, in PAN pixels: whole blocks of the metrics inside the edge."""
PER_SCENE = 3
"""Windows at full resolution that are judged of a scene; of more than `_MANY` scenes one each."""
_MANY = 6
_SHARE = 0.25
ROOM_FOR_TRUTH = 450
"""MS pixels along the longer side from which on the quarter held out has room for a window one ratio down."""
_SHARPNESS = 1.05
"""How much D_rho may grow: HQNR alone is won by not sharpening."""
INTERPOLATION_FACTORS = (1.0, 0.5, 0.25)
"""Factors alpha of the judged heads alpha fitted + (1 - alpha) initial: interpolated weights generalise better than
either (WiSE-FT, Wortsman et al. 2022, "Robust fine-tuning of zero-shot models")."""
_UNKNOWN = -1.0
"""ERGAS, among figures that are kept, where there is none."""
_HQNR_LOSS = 0.005
"""How much HQNR may fall where ERGAS one ratio down does."""


@dataclass(frozen=True, slots=True)
class JudgedWindow:
    """One window to be sharpened and scored in the unit of its MS."""

    scene: str
    sensor: str
    example: Example
    normalisation: Normalisation

    def report(self, model: CrossDiff, iterations: int = ITERATIONS) -> QualityReport:
        """Figures of the window without its edge, after `iterations` back-projections."""
        e = self.example.to(next(model.head.parameters()).device)
        with torch.inference_mode():
            hrms = model.fuse(e.pan, e.ms, e.sensor_model, e.spectrum, iterations).cpu()
        e = self.example
        inside = slice(EDGE, -EDGE)
        unit = self.normalisation.denormalise_ms
        pan = e.pan[0] * self.normalisation.pan_std + self.normalisation.pan_mean
        return assess_arrays(
            unit(hrms[0])[:, inside, inside],
            pan[:, inside, inside],
            unit(e.ms[0]),
            e.sensor_model.grid.ratio,
            (e.sensor_model.grid.offset[0] - EDGE, e.sensor_model.grid.offset[1] - EDGE),
            e.sensor_model.nyquist_gains,
            reference=None if e.reference is None else unit(e.reference[0])[:, inside, inside],
        )


@dataclass(frozen=True, slots=True)
class Score:
    """Means over held-out windows."""

    hqnr: float
    d_rho: float
    ergas: float | None = None
    """One ratio down, against the MS; None where the held-out part is too small for that."""

    def __str__(self) -> str:
        """The figures with their names."""
        truth = "" if self.ergas is None else f", ERGAS one ratio down {self.ergas:.3f}"
        return f"HQNR {self.hqnr:.4f}, D_rho {self.d_rho:.4f}{truth}"

    def beats(self, other: "Score", start: "Score") -> bool:
        """Whether ERGAS one ratio down is lower than `other`'s; without a truth, whether HQNR is higher.

        With a truth HQNR may not fall by more than `_HQNR_LOSS` against the `start`; without one D_rho may not rise,
        which would be a softer picture.
        """
        if self.ergas is None or other.ergas is None:
            return self.hqnr > other.hqnr and self.d_rho <= _SHARPNESS * start.d_rho + 1e-4
        return self.ergas < other.ergas and self.hqnr >= start.hqnr - _HQNR_LOSS


def score(model: CrossDiff, windows: Sequence[JudgedWindow]) -> Score:
    """Judge a model at full resolution, and where a window has a reference against that."""
    training = model.training
    model.eval()
    reports = [window.report(model) for window in windows]
    model.train(training)
    full = [r for r, w in zip(reports, windows, strict=True) if w.example.reference is None]
    hqnr, d_rho = _mean([r.hqnr for r in full]), _mean([r.d_rho for r in full])
    return Score(hqnr or 0.0, d_rho or 0.0, _mean([r.ergas for r in reports]))


def _mean(figures: Sequence[float | None]) -> float | None:
    known = [figure for figure in figures if figure is not None]
    return sum(known) / len(known) if known else None


def gain(before: Score, after: Score, windows: int) -> str:
    """Say what was gained on held-out windows."""
    truth = ""
    if before.ergas is not None and after.ergas is not None:
        truth = f", ERGAS one ratio down {before.ergas:.3f} -> {after.ergas:.3f}"
    same = ": no step was better, the head is as it was" if before == after else ""
    return (
        f"HQNR {before.hqnr:.4f} -> {after.hqnr:.4f}, D_rho {before.d_rho:.4f} -> {after.d_rho:.4f}{truth} "
        f"on {windows} windows not trained on{same}"
    )


class CheckpointSelector:
    """The best head so far by held-out windows; the one it began with counts too."""

    def __init__(self, model: CrossDiff, windows: Sequence[JudgedWindow]) -> None:
        """Judge the head as it is; without windows the last head is kept."""
        self._model, self._windows = model, windows
        self.start = score(model, windows)
        self._first = self._state()
        self.state = {"figures": torch.zeros(3, dtype=torch.float64)}
        """The best head and its figures, changed in place: what a run that was stopped has to know to go on."""
        self.state |= {f"head.{name}": value.clone() for name, value in self._first.items()}
        self._keep(self.start)

    @property
    def best(self) -> Score:
        """Figures of the best head."""
        hqnr, d_rho, ergas = self.state["figures"].tolist()
        return Score(hqnr, d_rho, None if ergas == _UNKNOWN else ergas)

    def on_checkpoint(self, progress: Progress) -> None:
        """Judge the head of this moment, and its mean with the one it began with."""
        if not self._windows:
            return
        fitted = self._state()
        for factor in INTERPOLATION_FACTORS:
            self._put(self._interpolated(factor, fitted))
            found = score(self._model, self._windows)
            _log.info("step %d, interpolation factor %.2f: %s on held-out windows", progress.step, factor, found)
            if found.beats(self.best, self.start):
                self._keep(found)
        self._put(fitted)

    def settle(self) -> None:
        """Put the best head into the model."""
        if self._windows:
            self._put({name: self.state[f"head.{name}"] for name in self._first})

    def _keep(self, found: Score) -> None:
        figures = (found.hqnr, found.d_rho, _UNKNOWN if found.ergas is None else found.ergas)
        self.state["figures"].copy_(torch.tensor(figures, dtype=torch.float64))
        for name, value in self._model.head.state_dict().items():
            self.state[f"head.{name}"].copy_(value)

    def _interpolated(self, factor: float, fitted: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: factor * value + (1 - factor) * self._first[name] for name, value in fitted.items()}

    def _put(self, head: dict[str, torch.Tensor]) -> None:
        self._model.head.load_state_dict(head)

    def _state(self) -> dict[str, torch.Tensor]:
        return {name: value.detach().clone() for name, value in self._model.head.state_dict().items()}


def split(scenes: Sequence[TrainingScene], every: int) -> tuple[list[TrainingScene], list[JudgedWindow]]:
    """What to train on, and windows to judge by that are kept from it.

    Of a scene in parts every `every`-th part is judged in its middle; of one in fewer `hold_out` keeps a quarter. What
    was imaged anew from a scene is split as that was; nothing is judged on images without a PAN.
    """
    rest, windows = [], []
    per_scene = PER_SCENE if len(scenes) <= _MANY else 1
    for scene in scenes:
        if scene.simulated:
            rest.append(scene)
            continue
        if scene.parts >= every and scene.part % every == every - 1:
            windows += windows_to_judge(scene, 1)
            continue
        trained, judged = (scene, []) if scene.parts >= every else hold_out(scene, per_scene)
        rest.append(trained)
        windows += judged
    return rest, windows


def hold_out(scene: TrainingScene, count: int = PER_SCENE) -> tuple[TrainingScene, list[JudgedWindow]]:
    """Keep the right-hand quarter of a scene, the lower one where it is taller than wide, from training, to be judged.

    Returns:
        The scene with that quarter masked, and up to `count` windows at full resolution and one with the MS as
        reference one ratio down where there is room; none where the quarter is too small, then the scene is returned
        as it is.
    """
    axis = int(scene.pan_mask.shape[1] >= scene.pan_mask.shape[0])
    cut_ms = round((1 - _SHARE) * scene.ms_mask.shape[axis])
    cut_pan = round(scene.sensor_model.grid.offset[axis] + cut_ms * scene.sensor_model.grid.ratio[axis])
    ms_mask, pan_mask = scene.ms_mask.clone(), scene.pan_mask.clone()
    ms_mask.narrow(axis, 0, cut_ms).fill_(False)
    pan_mask.narrow(axis, 0, cut_pan).fill_(False)
    windows = windows_to_judge(replace(scene, ms_mask=ms_mask, pan_mask=pan_mask), count)
    if not windows:
        _log.warning("%s is too small to hold windows out of training", scene.name)
        return scene, []
    return replace(scene, ms_mask=scene.ms_mask & ~ms_mask, pan_mask=scene.pan_mask & ~pan_mask), windows


def windows_to_judge(scene: TrainingScene, count: int) -> list[JudgedWindow]:
    """Up to `count` windows at full resolution and one with the MS as reference one ratio down, where there is room."""
    full = replace(scene, reference=None)
    examples = next(filter(None, (windows_of(full, size, count) for size in SIZES)), [])
    if examples:
        down = wald_pair(full, scene.spectrum.ratio, (-0.5, -0.5))
        examples = [*examples, *next(filter(None, (windows_of(down, size, 1) for size in SIZES)), [])]
    return [JudgedWindow(scene.name, scene.sensor, example, scene.normalisation) for example in examples]
