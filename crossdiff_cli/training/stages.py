"""The two stages from scenes on disk to a weight file on disk."""

import json
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from crossdiff_cli import __version__
from crossdiff_cli.device import Precision, choose_device, keep_memory, network_dtype
from crossdiff_cli.errors import OutputError, TrainingError
from crossdiff_cli.model.crossdiff import Architecture, CrossDiff
from crossdiff_cli.model.fusion import FusionHead
from crossdiff_cli.model.unet import STRIDE
from crossdiff_cli.model.weights import DEFAULT_NAME, default_weights, digest, load, save
from crossdiff_cli.training.adapt import LossWeights, adapt
from crossdiff_cli.training.distributed import Workers, joined
from crossdiff_cli.training.loop import Plan, Progress, Watch
from crossdiff_cli.training.patches import Sampler
from crossdiff_cli.training.pretrain import Pretext, pretrain
from crossdiff_cli.training.reimage import reimaged
from crossdiff_cli.training.scenes import load_scenes, resolve
from crossdiff_cli.training.validation import Held, pictures, validate

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
    strict: bool = False
    """Whether a scene that cannot be read ends the run."""
    reimage: int = 0
    """How many times each scene is sharpened by the shipped weights and imaged again by a made-up sensor."""


@dataclass(frozen=True, slots=True)
class PretrainOptions:
    """Everything `crossdiff pretrain` can be told, besides the scenes and the folder."""

    budget: Budget
    pretext: Pretext = field(default_factory=Pretext)
    architecture: Architecture = field(default_factory=Architecture)
    device: str = "auto"
    precision: Precision = "auto"
    samples: int = 0
    """Scenes that pictures are drawn of at the end."""


def run_pretrain(sources: Sources, folder: Path, options: PretrainOptions) -> Path:
    """Train both encoders from scratch; return the weight file, whose head is untrained.

    Under `torchrun` several processes train together; the first one writes.

    Raises:
        TrainingError: no usable scene, a damaged checkpoint or a diverged loss.
    """
    budget = options.budget
    with joined() as workers:
        device = _device(options.device, workers)
        pretext = replace(options.pretext, device=device, dtype=network_dtype(device, options.precision))
        sampler = _sampler(sources, budget, workers)
        held = _held(sources, budget) if workers.first else None
        _make(folder)
        torch.manual_seed(budget.seed)
        architecture = replace(options.architecture, objective=pretext.objective)
        model = CrossDiff(architecture).channels_last().to(device)
        plan = _plan(folder / "pretrain.checkpoint", budget, sampler)
        plan = replace(plan, run={**plan.run, **_identity(budget, pretext, architecture)})
        watch = _journal(folder / "pretrain.jsonl", model, held, pretext, budget, workers)
        pretrain(model, sampler, plan, budget.groups, pretext, workers=workers, watch=watch)
        target = folder / "encoders.safetensors"
        if workers.first:
            save(model, target, {"pretrain": {**_provenance(sampler, budget), "objective": pretext.objective}})
            if held is not None and options.samples:
                pictures(model, held, pretext, folder / "samples.png", options.samples)
        return target


def run_adapt(sources: Sources, folder: Path, weights: Path | None, budget: Budget, *, restart: bool) -> Path:
    """Train the head on frozen encoders; return the weight file.

    Raises:
        TrainingError, WeightsError: as above, or weights that cannot be used.
    """
    source = weights or default_weights()
    model, provenance = load(source)
    sampler = _sampler(sources, budget, Workers())
    _make(folder)
    if restart:
        torch.manual_seed(budget.seed)
        a = model.architecture
        model.head = FusionHead(a.widths, a.decoder_width, a.head_widths, encoders=model.p2m is not None)
    model.channels_last()
    adapt(model, sampler, _plan(folder / "adapt.checkpoint", budget, sampler), budget.groups, LossWeights())
    target = folder / DEFAULT_NAME
    save(model, target, {**provenance, "adapt": {**_provenance(sampler, budget), "encoders": digest(source)}})
    return target


def _device(name: str, workers: Workers) -> torch.device:
    device = choose_device(name)
    if device.type == "cuda" and workers.count > 1:
        device = torch.device("cuda", workers.local_rank)
        torch.cuda.set_device(device)
    return device


def _sampler(sources: Sources, budget: Budget, workers: Workers) -> Sampler:
    if budget.patch % STRIDE:
        raise TrainingError(f"--patch {budget.patch} is no multiple of {STRIDE}")
    keep_memory()
    scenes = load_scenes(resolve(sources.scenes, "train"), strict=sources.strict)
    if sources.reimage:
        scenes = [*scenes, *reimaged(scenes, sources.reimage, budget.seed)]
    if workers.first:
        _log.info("%d scenes, %.1f Mpx of PAN", len(scenes), sum(scene.pixels for scene in scenes) / 1e6)
    return Sampler(scenes, budget.patch, budget.batch)


def _held(sources: Sources, budget: Budget) -> Held | None:
    entries = resolve(sources.held_out or sources.scenes, "validation")
    if not entries:
        _log.info("no scenes of split `validation`: the pretext task is not validated")
        return None
    return Held.of(load_scenes(entries, strict=sources.strict), budget.patch, 1)


def _journal(
    path: Path, model: CrossDiff, held: Held | None, pretext: Pretext, budget: Budget, workers: Workers
) -> Watch:
    """Appends a JSON line at every checkpoint: losses, throughput, errors on held-out scenes by timestep bucket."""

    def watch(progress: Progress) -> None:
        patches = progress.steps_per_s * budget.groups * budget.batch * workers.count
        line: dict[str, Any] = {
            "step": progress.step,
            "losses": {name: round(value, 6) for name, value in progress.losses.items()},
            "patches_per_s": round(patches, 2),
            "waiting": round(progress.waiting, 4),
        }
        if held is not None:
            errors = validate(model, held, pretext)
            line["validation"] = {name: [round(e, 4) for e in row] for name, row in errors.items()}
            _log.info("held-out error relative to the prior, low noise first: %s", line["validation"])
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}") from error

    return watch


def _plan(checkpoint: Path, budget: Budget, sampler: Sampler) -> Plan:
    return Plan(
        steps=budget.steps,
        learning_rate=budget.rate,
        seed=budget.seed,
        checkpoint=checkpoint,
        checkpoint_every=budget.checkpoint_every,
        run={"scenes": ", ".join(sorted(scene.name for scene in sampler.scenes))},
    )


def _identity(budget: Budget, pretext: Pretext, architecture: Architecture) -> dict[str, str]:
    """What a checkpoint of stage 1 has to agree with, besides the scenes, the steps and the seed."""
    return {
        "windows": f"{budget.groups} x {budget.batch} of {budget.patch} px",
        "objective": f"{pretext.objective}, min-SNR {pretext.min_snr}",
        "architecture": json.dumps(architecture.as_dict()),
    }


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
