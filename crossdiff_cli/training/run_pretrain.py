"""Stage 1 from scenes on disk to a weight file on disk."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from crossdiff_cli.errors import OutputError, TrainingError
from crossdiff_cli.model.crossdiff import Architecture, CrossDiff
from crossdiff_cli.model.device import choose_device, network_dtype
from crossdiff_cli.model.weights import digest, load, save
from crossdiff_cli.options import PretrainOptions, SceneSources, TrainingOptions
from crossdiff_cli.training.distributed import Workers, joined
from crossdiff_cli.training.loop import OnCheckpoint, Progress
from crossdiff_cli.training.patches import PatchSampler
from crossdiff_cli.training.pretrain import Pretext, pretrain
from crossdiff_cli.training.scenes import load_scenes, resolve
from crossdiff_cli.training.setup import make_folder, plan_of, provenance, training_scenes
from crossdiff_cli.training.validation import ValidationSet, validate

_log = logging.getLogger(__name__)


def run_pretrain(
    sources: SceneSources, folder: Path, options: PretrainOptions, architecture: Architecture | None = None
) -> Path:
    """Train both encoders; return the weight file, whose head is untrained, or that of `options.weights`.

    `architecture` is that of untrained encoders; those of `options.weights` keep their own. Under `torchrun` several
    processes train together; the first one writes.

    Raises:
        TrainingError: no usable scene, a damaged checkpoint or a diverged loss.
    """
    budget = options.budget
    with joined(choose_device(options.device).type) as workers:
        device = _device(options.device, workers)
        pretext = Pretext(
            prediction_type=options.prediction_type,
            condition_dropout=options.condition_dropout,
            branch=options.branch,
            device=device,
            dtype=network_dtype(device, options.precision),
        )
        scenes = training_scenes(sources, budget, options.weights)
        held = _held(sources, budget) if workers.first else None
        make_folder(folder)
        torch.manual_seed(budget.seed)
        model, earlier = _begin(options, architecture or Architecture())
        model.channels_last().to(device)
        plan = plan_of(
            budget, folder / "pretrain.checkpoint", scenes, _identity(pretext, model.architecture, options.weights)
        )
        on_checkpoint = _journal(folder / "pretrain.jsonl", model, held, pretext, budget, workers)
        sampler = PatchSampler(scenes, budget.patch, budget.batch)
        pretrain(model, sampler, plan, budget.groups, pretext, workers=workers, on_checkpoint=on_checkpoint)
        target = folder / "encoders.safetensors"
        if workers.first:
            facts = provenance(budget, sources, scenes, options.weights, earlier.get("pretrain", {}))
            facts |= {"prediction_type": pretext.prediction_type, "branch": pretext.branch}
            save(model, target, earlier | {"pretrain": facts})
        return target


def _begin(options: PretrainOptions, architecture: Architecture) -> tuple[CrossDiff, dict[str, Any]]:
    """The networks to train, and what is known of their training and their head's so far."""
    prediction_type = options.prediction_type
    if options.weights is None:
        return CrossDiff(replace(architecture, prediction_type=prediction_type)), {}
    model, facts = load(options.weights)
    if model.architecture.prediction_type != prediction_type:
        raise TrainingError(
            "it was trained with another --prediction-type",
            path=options.weights,
            found=model.architecture.prediction_type,
            expected=prediction_type,
        )
    if model.p2m is None:
        raise TrainingError("it holds no encoders to go on with", path=options.weights)
    return model.requires_grad_(True).train(), facts


def _device(name: str, workers: Workers) -> torch.device:
    device = choose_device(name)
    if device.type == "cuda" and workers.count > 1:
        device = torch.device("cuda", workers.local_rank)
        torch.cuda.set_device(device)
    return device


def _held(sources: SceneSources, budget: TrainingOptions) -> ValidationSet | None:
    entries = resolve(sources.held_out or sources.scenes, "validation")
    if not entries:
        _log.info("no scenes of split `validation`: the pretext task is not validated")
        return None
    return ValidationSet.of(load_scenes(entries, strict=sources.strict), budget.patch, 1)


def _journal(
    path: Path,
    model: CrossDiff,
    held: ValidationSet | None,
    pretext: Pretext,
    budget: TrainingOptions,
    workers: Workers,
) -> OnCheckpoint:
    """Appends a JSON line at every checkpoint: losses, throughput, errors on held-out scenes by timestep bucket."""

    def on_checkpoint(progress: Progress) -> None:
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
            raise OutputError("it cannot be written", path=path, found=error.strerror) from error

    return on_checkpoint


def _identity(pretext: Pretext, architecture: Architecture, start: Path | None) -> dict[str, str]:
    """What a checkpoint of stage 1 has to agree with, besides the budget and the scenes."""
    return {
        "prediction_type": pretext.prediction_type,
        "condition dropout": str(pretext.condition_dropout),
        "branch": pretext.branch,
        "start": digest(start) if start else "untrained",
        "architecture": json.dumps(architecture.as_dict()),
    }
