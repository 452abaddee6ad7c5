"""The state of a training run on disk: two files, so that one is always whole."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from crossdiff_cli.errors import TrainingError
from crossdiff_cli.system.atomic import replacing
from crossdiff_cli.system.paths import exists

_log = logging.getLogger(__name__)

_SHOWN = 100
"""Characters of a value that a message shows."""


@dataclass(frozen=True, slots=True)
class State:
    """What a run needs to go on as if it had not stopped; changed in place."""

    parameters: Mapping[str, nn.Parameter]
    ema: Mapping[str, Tensor]
    optimizer: torch.optim.Optimizer
    selector_state: Mapping[str, Tensor] = field(default_factory=dict)
    """What whoever watches the run has learned so far."""


def previous(path: Path) -> Path:
    """Where the checkpoint before the newest is kept."""
    return path.with_name(f"{path.name}.previous")


def save(path: Path, step: int, run: Mapping[str, str], state: State) -> None:
    """Write the state after `step` steps of `run`; the file before it becomes the previous one.

    Raises:
        TrainingError: it cannot be written, a full disk for one; the files of earlier steps are as they were.
    """
    tensors = {f"selector.{name}": value for name, value in state.selector_state.items()}
    for name, p in state.parameters.items():
        tensors[f"parameter.{name}"], tensors[f"ema.{name}"] = p.detach(), state.ema[name]
        for key in ("exp_avg", "exp_avg_sq"):
            tensors[f"{key}.{name}"] = state.optimizer.state[p].get(key, torch.zeros_like(p))
    try:
        with replacing(path) as temporary:
            save_file(
                {k: v.to("cpu").contiguous() for k, v in tensors.items()},
                temporary,
                {"run": json.dumps({**run, "step": str(step)})},
            )
            if path.exists():
                path.replace(previous(path))
    except (OSError, SafetensorError) as error:
        kept = f"; {path} holds an earlier step, start again from there" if path.exists() else ""
        raise TrainingError(
            f"the checkpoint of step {step} cannot be written",
            path=path,
            found=str(error),
            cure=f"make room on the disk{kept}",
        ) from error


def resume(path: Path, run: Mapping[str, str], state: State) -> int:
    """Fill `state` from the newest whole checkpoint and return its step; 0 where there is none.

    Raises:
        TrainingError: the checkpoint is of another run, or there are files but none is whole.
    """
    failures = []
    for candidate in (path, previous(path)):
        if not exists(candidate):
            continue
        try:
            step = _load(candidate, run, state)
        except (SafetensorError, OSError, LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            failures.append(f"{candidate} is damaged or of another network ({error})")
            continue
        for failure in failures:
            _log.warning("%s: going on from %s", failure, candidate)
        _log.info("resumed %s at step %d", candidate, step)
        return step
    if failures:
        raise TrainingError("; ".join(failures), cure="remove it to start anew")
    return 0


def _load(path: Path, run: Mapping[str, str], state: State) -> int:
    with safe_open(path, framework="pt") as file:
        stored = json.loads(file.metadata()["run"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    step = int(stored.pop("step"))
    for key in {*stored, *run}:
        if stored.get(key) != run.get(key):
            raise TrainingError(
                f"it is of another run: {key} differs",
                path=path,
                found=_short(stored.get(key)),
                expected=_short(run.get(key)),
                cure="go on with that run, or remove the file",
            )
    with torch.no_grad():
        for name, p in state.parameters.items():
            _check(name, [tensors[f"{kind}.{name}"] for kind in ("parameter", "ema", "exp_avg", "exp_avg_sq")], p)
            p.copy_(tensors[f"parameter.{name}"])
            state.ema[name].copy_(tensors[f"ema.{name}"])
            state.optimizer.state[p] = {
                "step": torch.tensor(float(step)),
                "exp_avg": tensors[f"exp_avg.{name}"].to(p).clone(memory_format=torch.preserve_format),
                "exp_avg_sq": tensors[f"exp_avg_sq.{name}"].to(p).clone(memory_format=torch.preserve_format),
            }
        for name, value in state.selector_state.items():
            _check(name, [tensors[f"selector.{name}"]], value)
            value.copy_(tensors[f"selector.{name}"])
    return step


def _check(name: str, stored: list[Tensor], wanted: Tensor) -> None:
    for tensor in stored:
        if tensor.shape != wanted.shape or not torch.isfinite(tensor).all():
            raise ValueError(f"{name} has another shape or holds numbers that are not finite")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
