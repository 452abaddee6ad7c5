"""The two stages from a manifest on disk to a weight file on disk."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from crossdiff_cli import __version__
from crossdiff_cli.device import keep_memory
from crossdiff_cli.errors import OutputError, TrainingError
from crossdiff_cli.model.crossdiff import Architecture, CrossDiff
from crossdiff_cli.model.fusion import FusionHead
from crossdiff_cli.model.unet import STRIDE
from crossdiff_cli.model.weights import DEFAULT_NAME, default_weights, digest, load, save
from crossdiff_cli.training.adapt import LossWeights, adapt
from crossdiff_cli.training.loop import Plan
from crossdiff_cli.training.manifest import read_manifest
from crossdiff_cli.training.patches import Sampler, load_scene
from crossdiff_cli.training.pretrain import pretrain

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


def run_pretrain(manifest: Path, folder: Path, budget: Budget) -> Path:
    """Train both encoders from scratch; return the weight file, whose head is untrained.

    Raises:
        TrainingError: no usable scene, a damaged checkpoint or a diverged loss.
    """
    sampler = _sampler(manifest, budget)
    _make(folder)
    torch.manual_seed(budget.seed)
    model = CrossDiff(Architecture()).channels_last()
    pretrain(model, sampler, _plan(folder / "pretrain.checkpoint", budget), budget.groups)
    target = folder / "encoders.safetensors"
    save(model, target, {"pretrain": _provenance(sampler, budget)})
    return target


def run_adapt(manifest: Path, folder: Path, weights: Path | None, budget: Budget, *, restart: bool) -> Path:
    """Train the head on frozen encoders; return the weight file.

    Raises:
        TrainingError, WeightsError: as above, or weights that cannot be used.
    """
    source = weights or default_weights()
    model, provenance = load(source)
    sampler = _sampler(manifest, budget)
    _make(folder)
    if restart:
        torch.manual_seed(budget.seed)
        a = model.architecture
        model.head = FusionHead(a.widths, a.head_widths, encoders=model.p2m is not None)
    model.channels_last()
    adapt(model, sampler, _plan(folder / "adapt.checkpoint", budget), budget.groups, LossWeights())
    target = folder / DEFAULT_NAME
    save(model, target, {**provenance, "adapt": {**_provenance(sampler, budget), "encoders": digest(source)}})
    return target


def _sampler(manifest: Path, budget: Budget) -> Sampler:
    if budget.patch % STRIDE:
        raise TrainingError(f"--patch {budget.patch} is no multiple of {STRIDE}")
    keep_memory()
    scenes = [load_scene(entry) for entry in read_manifest(manifest, "train")]
    _log.info("%d scenes, %.1f Mpx of PAN", len(scenes), sum(scene.pixels for scene in scenes) / 1e6)
    return Sampler(scenes, budget.patch, budget.batch)


def _plan(checkpoint: Path, budget: Budget) -> Plan:
    return Plan(steps=budget.steps, learning_rate=budget.rate, seed=budget.seed, checkpoint=checkpoint)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}") from error


def _provenance(sampler: Sampler, budget: Budget) -> dict[str, Any]:
    return {
        "version": __version__,
        "steps": budget.steps,
        "patch": budget.patch,
        "batch": budget.batch,
        "groups": budget.groups,
        "seed": budget.seed,
        "scenes": sorted(scene.name for scene in sampler.scenes),
    }
