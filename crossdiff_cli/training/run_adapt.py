"""Stage 2 from scenes on disk to a weight file on disk: the head that held-out windows prefer is kept."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from crossdiff_cli.errors import OutputError, TrainingError, WeightsError
from crossdiff_cli.io.target import check_target
from crossdiff_cli.model.crossdiff import CrossDiff
from crossdiff_cli.model.device import choose_device, network_dtype
from crossdiff_cli.model.weights import digest, load, save
from crossdiff_cli.options import AdaptOptions, LossWeights, SceneSources, TrainingOptions
from crossdiff_cli.system.paths import exists
from crossdiff_cli.system.weight_files import bundled_weights
from crossdiff_cli.training.adapt import adapt
from crossdiff_cli.training.distributed import world_size
from crossdiff_cli.training.patches import PatchSampler, fitting_pairs, fitting_patch
from crossdiff_cli.training.selection import ROOM_FOR_TRUTH, CheckpointSelector, JudgedWindow, Score, score, split
from crossdiff_cli.training.setup import make_folder, plan_of, provenance, training_scenes
from crossdiff_cli.training.training_scene import TrainingScene

_log = logging.getLogger(__name__)

_HELD_OUT = 4
"""Of the parts of a large scene every fourth is judged, not trained on."""


@dataclass(frozen=True, slots=True)
class AdaptResult:
    """What was done."""

    output: Path
    scenes: tuple[str, ...]
    windows: int
    """How many windows were held out."""
    before: Score | None
    """Of the head it began with, on those windows; None where there are none."""
    after: Score | None


def run_adapt(sources: SceneSources, target: Path, options: AdaptOptions) -> AdaptResult:
    """Train the head on frozen encoders and write both to `target`.

    Raises:
        DeviceError: no such device.
        TrainingError: several processes, no usable scene, a damaged checkpoint or a diverged loss.
        WeightsError: weights that cannot be used.
        OutputError: `target` holds a better head, or cannot be written.
    """
    if world_size() > 1:
        raise TrainingError(
            "adapt trains in one process",
            found=f"{world_size()} processes of torchrun",
            cure="start it without torchrun",
        )
    budget, source = options.budget, options.weights or bundled_weights()
    device = choose_device(options.device)
    model, facts = _begin(source, options)
    make_folder(target.parent)
    check_target(target, overwrite=True, kinds=(".safetensors",))
    scenes = training_scenes(sources, budget, options.weights)
    windows: list[JudgedWindow] = []
    if options.select:
        scenes, windows = split(scenes, _HELD_OUT)
    one_sensor = len({scene.sensor for scene in scenes}) == 1
    if one_sensor and options.stage:
        _add_stage(model, scenes, budget.seed)
    model.channels_last().to(device)
    choice = _selector(model, windows)
    budget, losses, own_ratio = _fitting(budget, options.losses, scenes, one_sensor=one_sensor)
    identity = {
        "start": "untrained" if options.restart else digest(source),
        "features": "both" if model.architecture.m2p_features else "p2m",
        "stage": ", ".join(f"{center:.0f}" for center in model.architecture.stage_nm) or "none",
        "losses": str(losses),
    }
    plan = plan_of(budget, target.with_suffix(".checkpoint"), scenes, identity)
    sampler = PatchSampler(scenes, budget.patch, budget.batch, one_sensor=own_ratio)
    adapt(
        model, sampler, plan, budget.groups, losses, dtype=network_dtype(device, "auto"),
        on_checkpoint=choice.on_checkpoint, selector_state=choice.state,
    )  # fmt: skip
    choice.settle()
    if windows and exists(target) and not options.force:
        _refuse_a_loss(target, choice.best, windows, device)
    before = {} if options.restart else facts.get("adapt", {})
    learned = provenance(budget, sources, scenes, options.weights, before)
    save(model, target, {**facts, "adapt": learned | {"encoders": digest(source)}})
    target.with_suffix(".checkpoint").unlink(missing_ok=True)
    target.with_suffix(".checkpoint.previous").unlink(missing_ok=True)
    names = tuple(dict.fromkeys(scene.name for scene in scenes))
    if not windows:
        return AdaptResult(target, names, 0, None, None)
    return AdaptResult(target, names, len(windows), choice.start, choice.best)


def _begin(source: Path, options: AdaptOptions) -> tuple[CrossDiff, dict[str, Any]]:
    """The networks with the head to fit, and what is known of their training so far."""
    model, facts = load(source)
    if options.features is not None:
        if model.p2m is None:
            raise WeightsError("it holds no encoders whose features a head could take", path=source)
        model.with_m2p_features(options.features == "both")
    if options.restart:
        torch.manual_seed(options.budget.seed)
        model.head = model.untrained_head()
    return model, facts


def _selector(model: CrossDiff, windows: list[JudgedWindow]) -> CheckpointSelector:
    """What judges the heads; a warning where it has no truth to judge by."""
    selector = CheckpointSelector(model, windows)
    if windows and selector.start.ergas is None:
        _log.warning(
            "the scenes are too small to judge the head against the truth one ratio down: it is chosen by HQNR alone, "
            "which can be won by inventing; some %d MS pixels along the longer side of one scene would do",
            ROOM_FOR_TRUTH,
        )
    return selector


def _add_stage(model: CrossDiff, scenes: list[TrainingScene], seed: int) -> None:
    """Give the head a stage for the bands of these scenes, where all have the same and it has none for them."""
    spectra = [sorted(scene.spectrum.center_nm.tolist()) for scene in scenes]
    stage = model.head.stage
    if any(spectrum != spectra[0] for spectrum in spectra) or (
        stage is not None and stage.fits(scenes[0].spectrum.center_nm)
    ):
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.add_sensor_stage(spectra[0])


def _fitting(
    budget: TrainingOptions, losses: LossWeights, scenes: list[TrainingScene], *, one_sensor: bool
) -> tuple[TrainingOptions, LossWeights, bool]:
    """Return patches and loss terms for which the scenes are large enough, and whether Wald pairs keep the ratio."""
    patch, own_ratio = fitting_pairs(scenes, budget.patch, one_sensor=one_sensor) if losses.supervised else (0, False)
    if not patch and losses.supervised:
        _log.warning(
            "no scene is large enough for patches one ratio down: the head is fitted without the supervised term"
        )
        losses = replace(losses, supervised=0.0)
    if not patch:
        patch = fitting_patch(scenes, budget.patch, reduced=False)
    if 0 < patch < budget.patch:
        _log.info("the scenes are small: patches of %d pixels instead of %d", patch, budget.patch)
    return replace(budget, patch=patch or budget.patch), losses, own_ratio


def _refuse_a_loss(target: Path, found: Score, windows: list[JudgedWindow], device: torch.device) -> None:
    try:
        existing = score(load(target, device)[0], windows)
    except WeightsError as error:
        raise OutputError(
            "it exists and is not a head", path=target, found=str(error), cure="name another file, or --force"
        ) from error
    if existing.beats(found, found):
        raise OutputError(
            "it holds a better head by the held-out windows",
            path=target,
            found=existing,
            expected=f"worse than {found}",
            cure="--force overwrites it",
        )
