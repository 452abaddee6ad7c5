"""The optimiser loop of both stages: warm-up and cosine, clipping, EMA, checkpoint and resume."""

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Generator, Tensor, nn
from tqdm import tqdm

from crossdiff_cli.errors import TrainingError

_log = logging.getLogger(__name__)

_WARM_UP = 100


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast to train."""

    steps: int
    learning_rate: float = 5e-4
    weight_decay: float = 1e-3
    ema_decay: float = 0.998
    clip: float = 1.0
    seed: int = 0
    checkpoint: Path | None = None
    """Where the state is kept, and resumed from when it exists."""
    checkpoint_every: int = 250


Step = Callable[[Generator], dict[str, Tensor]]
"""Draws a batch with the generator and returns named losses; their sum is minimised."""


def fit(module: nn.Module, step: Step, plan: Plan) -> None:
    """Train the parameters of `module` that require gradients; at the end it holds their exponential moving average.

    The draws of step n depend on (seed, n) alone, so a resumed run goes on as if it had not stopped.

    Raises:
        TrainingError: the loss is not finite, or the checkpoint is damaged or of another run.
    """
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
    ema = {name: p.detach().clone() for name, p in parameters.items()}
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=plan.learning_rate, betas=(0.9, 0.99), weight_decay=plan.weight_decay
    )
    first = _resume(plan, parameters, ema, optimizer)
    mean: dict[str, float] = {}
    started, bar = (
        time.monotonic(),
        tqdm(range(first, plan.steps), initial=first, total=plan.steps, unit="step", mininterval=5),
    )
    for n in bar:
        generator = Generator().manual_seed(plan.seed * 1_000_003 + n)
        for group in optimizer.param_groups:
            group["lr"] = plan.learning_rate * _schedule(n, plan.steps)
        losses = step(generator)
        total = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(total):
            kept = f"; the last good state is {plan.checkpoint}" if plan.checkpoint else ""
            raise TrainingError(
                f"the loss is not finite at step {n}: lower the learning rate ({plan.learning_rate:g}){kept}"
            )
        optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters.values(), plan.clip)
        optimizer.step()
        decay = min(plan.ema_decay, (1 + n) / (10 + n))
        with torch.no_grad():
            for name, p in parameters.items():
                ema[name].lerp_(p, 1 - decay)
        for name, value in losses.items():
            now = float(value.detach())
            mean[name] = 0.98 * mean.get(name, now) + 0.02 * now
        bar.set_postfix({name: f"{value:.4f}" for name, value in mean.items()}, refresh=False)
        if plan.checkpoint and ((n + 1) % plan.checkpoint_every == 0 or n + 1 == plan.steps):
            _save(plan, n + 1, parameters, ema, optimizer)
            rate = (n + 1 - first) / (time.monotonic() - started)
            _log.info("step %d: %s, %.2f steps/s", n + 1, {k: round(v, 5) for k, v in mean.items()}, rate)
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(ema[name])


def _schedule(step: int, steps: int) -> float:
    warm = min(1.0, (step + 1) / min(_WARM_UP, max(1, steps // 10)))
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _save(
    plan: Plan, step: int, parameters: dict[str, nn.Parameter], ema: dict[str, Tensor], optimizer: torch.optim.Optimizer
) -> None:
    assert plan.checkpoint is not None
    state: dict[str, Tensor] = {}
    for name, p in parameters.items():
        state[f"parameter.{name}"], state[f"ema.{name}"] = p.detach(), ema[name]
        for key in ("exp_avg", "exp_avg_sq"):
            state[f"{key}.{name}"] = optimizer.state[p][key]
    temporary = plan.checkpoint.with_name(f".{plan.checkpoint.name}.tmp")
    metadata = {"step": str(step), "seed": str(plan.seed), "steps": str(plan.steps)}
    save_file({k: v.contiguous() for k, v in state.items()}, temporary, {"run": json.dumps(metadata)})
    temporary.replace(plan.checkpoint)


def _resume(
    plan: Plan, parameters: dict[str, nn.Parameter], ema: dict[str, Tensor], optimizer: torch.optim.Optimizer
) -> int:
    if plan.checkpoint is None or not plan.checkpoint.exists():
        return 0
    try:
        with safe_open(plan.checkpoint, framework="pt") as file:
            run = json.loads(file.metadata()["run"])
            state = {name: file.get_tensor(name) for name in file.keys()}
        step = int(run["step"])
        if (run["seed"], run["steps"]) != (str(plan.seed), str(plan.steps)):
            raise TrainingError(
                f"{plan.checkpoint} is of a run with seed {run['seed']} and {run['steps']} steps, not {plan.seed} and "
                f"{plan.steps}: go on with those, or remove it"
            )
        with torch.no_grad():
            for name, p in parameters.items():
                p.copy_(state[f"parameter.{name}"])
                ema[name].copy_(state[f"ema.{name}"])
                optimizer.state[p] = {
                    "step": torch.tensor(float(step)),
                    "exp_avg": state[f"exp_avg.{name}"].clone(memory_format=torch.preserve_format),
                    "exp_avg_sq": state[f"exp_avg_sq.{name}"].clone(memory_format=torch.preserve_format),
                }
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise TrainingError(
            f"{plan.checkpoint} is damaged or of another network ({error}): remove it to start anew"
        ) from error
    _log.info("resumed %s at step %d", plan.checkpoint, step)
    return step
