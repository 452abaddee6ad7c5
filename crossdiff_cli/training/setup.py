"""What both stages start from: scenes, plan, result folder and provenance."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crossdiff_cli import __version__
from crossdiff_cli.errors import OutputError, TrainingError
from crossdiff_cli.geometry.window import STRIDE
from crossdiff_cli.model.device import tune_allocator
from crossdiff_cli.model.weights import digest
from crossdiff_cli.options import SceneSources, TrainingOptions
from crossdiff_cli.system.weight_files import bundled_weights
from crossdiff_cli.training.loop import Plan
from crossdiff_cli.training.resimulate import resimulated
from crossdiff_cli.training.scenes import load_scenes, resolve
from crossdiff_cli.training.training_scene import TrainingScene

_log = logging.getLogger(__name__)


def training_scenes(sources: SceneSources, budget: TrainingOptions, weights: Path | None) -> list[TrainingScene]:
    """Read what is trained on, resimulated scenes among it, which `weights` sharpen (None: the shipped ones).

    Raises:
        TrainingError: no usable scene, or windows that do not fit the network.
        WeightsError: scenes are to be resimulated and the weights cannot be used.
    """
    if budget.patch % STRIDE:
        raise TrainingError("--patch does not fit the network", found=budget.patch, expected=f"a multiple of {STRIDE}")
    tune_allocator()
    scenes = load_scenes(resolve(sources.scenes, "train", sources.sensor, sources.bands), strict=sources.strict)
    if sources.resimulate:
        pairs = [scene for scene in scenes if not scene.simulated]
        scenes = [*scenes, *resimulated(pairs, sources.resimulate, budget.seed, weights)]
    _log.info(
        "%d scenes, %.1f Mpx of PAN", len({scene.name for scene in scenes}), sum(scene.pixels for scene in scenes) / 1e6
    )
    return scenes


def plan_of(
    budget: TrainingOptions, checkpoint: Path, scenes: Sequence[TrainingScene], identity: Mapping[str, str]
) -> Plan:
    """The plan of the loop, which knows by budget, scenes and `identity` whether a checkpoint is of the same run."""
    return Plan(
        steps=budget.steps,
        learning_rate=budget.rate,
        seed=budget.seed,
        checkpoint=checkpoint,
        checkpoint_every=budget.checkpoint_every,
        run={
            "scenes": ", ".join(sorted({scene.name for scene in scenes})),
            "windows": f"{budget.groups} x {budget.batch} of {budget.patch} px",
            "rate": str(budget.rate),
            **identity,
        },
    )


def make_folder(folder: Path) -> None:
    """Make a folder for results.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError("the folder cannot be made", path=folder, found=error.strerror) from error


def provenance(
    budget: TrainingOptions,
    sources: SceneSources,
    scenes: Sequence[TrainingScene],
    weights: Path | None,
    before: dict[str, Any],
) -> dict[str, Any]:
    """Return the metadata of a weight file: its training, the one `before` it, and what resimulated its scenes."""
    earlier: dict[str, Any] = {"before": before} if before else {}
    if sources.resimulate:
        earlier["reimaged_by"] = digest(weights or bundled_weights())
    return earlier | {
        "version": __version__,
        "steps": budget.steps,
        "patch": budget.patch,
        "batch": budget.batch,
        "groups": budget.groups,
        "seed": budget.seed,
        "scenes": sorted({scene.name for scene in scenes}),
    }
