"""What both stages are told, and what they begin with: the budget, the sources, the scenes, the plan."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossdiff_cli import __version__
from crossdiff_cli.errors import OutputError, TrainingError
from crossdiff_cli.geometry.window import STRIDE
from crossdiff_cli.model.device import keep_memory
from crossdiff_cli.model.weights import digest
from crossdiff_cli.system.weight_files import bundled_weights
from crossdiff_cli.training.loop import Plan
from crossdiff_cli.training.resimulate import reimaged
from crossdiff_cli.training.scenes import load_scenes, resolve
from crossdiff_cli.training.training_scene import TrainingScene

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Budget:
    """How much is trained."""

    steps: int
    patch: int = 96
    """Side of a window, a multiple of the network's stride."""
    batch: int = 4
    """Windows per scene and step."""
    groups: int = 4
    """Scenes per step."""
    rate: float = 5e-4
    seed: int = 0
    checkpoint_every: int = 250


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the scenes are."""

    scenes: tuple[str, ...] = ()
    """Manifests, folders, and PAN and MS files in turn."""
    held_out: tuple[str, ...] = ()
    """Manifests (split `validation`) to validate on; the manifests of `scenes` when there is none."""
    sensor: str | None = None
    """Sensor of the scenes that do not say theirs; None detects it."""
    bands: tuple[str, ...] | None = None
    """Names of the MS bands in file order, likewise."""
    strict: bool = False
    """Whether a scene that cannot be read ends the run."""
    reimage: int = 0
    """How many times each scene is sharpened and imaged again by a made-up sensor."""


def training_scenes(sources: Sources, budget: Budget, weights: Path | None) -> list[TrainingScene]:
    """Read what is trained on, re-imaged scenes among it, which `weights` sharpen (None: the shipped ones).

    Raises:
        TrainingError: no usable scene, or windows that do not fit the network.
        WeightsError: scenes are to be re-imaged and the weights cannot be used.
    """
    if budget.patch % STRIDE:
        raise TrainingError(f"--patch {budget.patch} is no multiple of {STRIDE}")
    keep_memory()
    scenes = load_scenes(resolve(sources.scenes, "train", sources.sensor, sources.bands), strict=sources.strict)
    if sources.reimage:
        scenes = [*scenes, *reimaged(scenes, sources.reimage, budget.seed, weights)]
    _log.info(
        "%d scenes, %.1f Mpx of PAN", len({scene.name for scene in scenes}), sum(scene.pixels for scene in scenes) / 1e6
    )
    return scenes


def plan_of(budget: Budget, checkpoint: Path, scenes: Sequence[TrainingScene], identity: Mapping[str, str]) -> Plan:
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
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}") from error


def provenance(
    budget: Budget, sources: Sources, scenes: Sequence[TrainingScene], weights: Path | None, before: dict[str, Any]
) -> dict[str, Any]:
    """What the metadata of a weight file say of its training, the one `before` it and what re-imaged its scenes."""
    earlier: dict[str, Any] = {"before": before} if before else {}
    if sources.reimage:
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
