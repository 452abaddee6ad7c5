"""The optimiser loop of both stages: warm-up and cosine, clipping, EMA, batches drawn ahead, checkpoint and resume."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from torch import Generator, Tensor, nn
from tqdm import tqdm

from crossdiff_cli.errors import TrainingError
from crossdiff_cli.training.checkpoint import State, resume, save
from crossdiff_cli.training.distributed import Workers

_log = logging.getLogger(__name__)

_WARM_UP = 100

Batch = TypeVar("Batch")
Draw = Callable[[Generator], Batch]
"""Draws a batch; it depends on the generator alone. Runs in a thread of its own, one step ahead."""
Step = Callable[[Batch, Generator], dict[str, Tensor]]
"""Returns named losses of a batch; their sum is minimised."""


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
    run: Mapping[str, str] = field(default_factory=dict)
    """What else makes this run another: a checkpoint of a different one is refused."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands."""

    step: int
    losses: dict[str, float]
    """Running means."""
    steps_per_s: float
    waiting: float
    """Share of the time spent waiting for batches."""


OnCheckpoint = Callable[[Progress], None]
"""Called at every checkpoint, while the module holds its averaged parameters (EMA)."""


def fit(
    module: nn.Module,
    draw: Draw[Batch],
    step: Step[Batch],
    plan: Plan,
    *,
    workers: Workers | None = None,
    on_checkpoint: OnCheckpoint | None = None,
    selector_state: Mapping[str, Tensor] | None = None,
) -> None:
    """Train the parameters of `module` that require gradients; at the end it holds their exponential moving average.

    The draws of step n depend on (seed, n, process) alone, and what `on_checkpoint` remembers in `selector_state` is
    part of the checkpoints, so a resumed run goes on as if it had not stopped.

    Raises:
        TrainingError: the loss is not finite, or the checkpoint cannot be written, is damaged or of another run.
    """
    workers = workers or Workers()
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
    ema = {name: p.detach().clone() for name, p in parameters.items()}
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=plan.learning_rate, betas=(0.9, 0.99), weight_decay=plan.weight_decay
    )
    state = State(parameters, ema, optimizer, selector_state or {})
    run = {**plan.run, "seed": str(plan.seed), "steps": str(plan.steps)}
    first = resume(plan.checkpoint, run, state) if plan.checkpoint else 0
    mean: dict[str, float] = {}
    quiet = not (workers.first and _log.isEnabledFor(logging.INFO)) or None
    started, waited = time.monotonic(), 0.0
    bar = tqdm(range(first, plan.steps), initial=first, total=plan.steps, unit="step", mininterval=5, disable=quiet)
    with _ahead(draw, plan, workers, first) as batches:
        for n in bar:
            for group in optimizer.param_groups:
                group["lr"] = plan.learning_rate * _schedule(n, plan.steps)
            asked = time.monotonic()
            batch = next(batches)
            waited += time.monotonic() - asked
            losses = step(batch, _generator(plan, n, workers, purpose=1))
            _descend(losses, n, optimizer, parameters, plan, workers)
            _average(ema, parameters, min(plan.ema_decay, (1 + n) / (10 + n)))
            for name, value in losses.items():
                now = float(value.detach())
                mean[name] = 0.98 * mean.get(name, now) + 0.02 * now
            bar.set_postfix({name: f"{value:.4f}" for name, value in mean.items()}, refresh=False)
            if (n + 1) % plan.checkpoint_every == 0 or n + 1 == plan.steps:
                seconds = time.monotonic() - started
                progress = Progress(n + 1, dict(mean), (n + 1 - first) / seconds, waited / seconds)
                _tell(progress, workers)
                try:
                    if on_checkpoint is not None and workers.first:
                        with _averaged(state):
                            on_checkpoint(progress)
                finally:
                    if plan.checkpoint and workers.first:
                        save(plan.checkpoint, n + 1, run, state)
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(ema[name])


@contextmanager
def _ahead(draw: Draw[Batch], plan: Plan, workers: Workers, first: int) -> Iterator[Iterator[Batch]]:
    """Batches from step `first` on, each drawn by one thread while the step before it is computed."""

    def prepared(n: int) -> Batch:
        return draw(_generator(plan, n, workers, purpose=0))

    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as pool:

        def batches() -> Iterator[Batch]:
            following = pool.submit(prepared, first)
            for n in range(first, plan.steps):
                batch = following.result()
                if n + 1 < plan.steps:
                    following = pool.submit(prepared, n + 1)
                yield batch

        try:
            yield batches()
        finally:
            pool.shutdown(cancel_futures=True)


def _generator(plan: Plan, step: int, workers: Workers, purpose: int) -> Generator:
    """Randomness for `purpose` (0 drawing, 1 training) of a step in this process."""
    return Generator().manual_seed(((plan.seed * 1_000_003 + step) * 2 + purpose) * workers.count + workers.rank)


def _descend(
    losses: dict[str, Tensor],
    n: int,
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, nn.Parameter],
    plan: Plan,
    workers: Workers,
) -> None:
    total = torch.stack(list(losses.values())).sum()
    shared = total.detach().clone()
    workers.average([shared])
    if not torch.isfinite(shared):
        kept = f"; the last good state is {plan.checkpoint}" if plan.checkpoint and plan.checkpoint.exists() else ""
        raise TrainingError(
            f"the loss is not finite at step {n}", cure=f"lower the learning rate ({plan.learning_rate:g}){kept}"
        )
    optimizer.zero_grad(set_to_none=True)
    total.backward()  # type: ignore[no-untyped-call]
    workers.average_gradients(parameters.values())
    nn.utils.clip_grad_norm_(parameters.values(), plan.clip)
    optimizer.step()


def _average(ema: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter], decay: float) -> None:
    with torch.no_grad():
        for name, p in parameters.items():
            ema[name].lerp_(p, 1 - decay)


@contextmanager
def _averaged(state: State) -> Iterator[None]:
    """Within, the parameters are the averaged ones; they are put back."""
    kept = {name: p.detach().clone() for name, p in state.parameters.items()}
    with torch.no_grad():
        for name, p in state.parameters.items():
            p.copy_(state.ema[name])
    try:
        yield
    finally:
        with torch.no_grad():
            for name, p in state.parameters.items():
                p.copy_(kept[name])


def _schedule(step: int, steps: int) -> float:
    warm = min(1.0, (step + 1) / min(_WARM_UP, max(1, steps // 10)))
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _tell(progress: Progress, workers: Workers) -> None:
    if workers.first:
        losses = ", ".join(f"{name} {value:.5f}" for name, value in progress.losses.items())
        _log.info(
            "step %d: %s, %.2f steps/s, %.1f %% of the time waiting for data",
            progress.step, losses, progress.steps_per_s, 100 * progress.waiting,
        )  # fmt: skip
