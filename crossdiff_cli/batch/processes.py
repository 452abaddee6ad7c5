"""Scenes in processes of this machine: one that is killed takes only its own scene with it."""

import logging
import multiprocessing
import signal
import threading
import time
import warnings
from collections.abc import Generator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from tqdm import tqdm

from crossdiff_cli.batch.manifest import Scene
from crossdiff_cli.batch.outcome import Outcome, attempt
from crossdiff_cli.model.weights import WeightStore
from crossdiff_cli.options import SharpenOptions
from crossdiff_cli.system.atomic import remove_leftovers
from crossdiff_cli.system.signals import orderly_end, undone_by

_log = logging.getLogger(__name__)

_GRACE_SECONDS = 20
"""How long a process may take to end orderly; SLURM kills 30 s after it asked."""
_SPAWN = multiprocessing.get_context("spawn")


def in_processes(
    scenes: Sequence[Scene],
    options: SharpenOptions,
    jobs: int,
    *,
    timeout: float | None = None,
    fail_fast: bool = False,
) -> Generator[Outcome, None, None]:
    """Sharpen the scenes, `jobs` at once, and yield each outcome when it is there.

    Closing the generator, or an exception thrown into it, ends the scenes that run: nothing of them stays.

    Args:
        scenes: in the order in which they begin.
        options: of all scenes.
        jobs: processes; they share the cores.
        timeout: seconds after which a scene is given up; None never does.
        fail_fast: begin no further scene after one has failed; those that run are finished.
    """
    waiting = list(reversed(scenes))
    import torch

    threads = max(1, torch.get_num_threads() // jobs)
    workers: list[_Worker] = []
    end = partial(_end_all, workers)
    with undone_by(end), ExitStack() as ending:
        ending.callback(end)
        while True:
            while waiting and len(workers) < jobs:
                number = min(set(range(jobs)) - {worker.number for worker in workers})
                numbered = replace(options, runtime=replace(options.runtime, worker=number))
                workers.append(_Worker(number, waiting.pop(), numbered, threads, timeout))
            if not workers:
                return
            for worker in _ready(workers):
                outcome = worker.outcome()
                if fail_fast and outcome.status == "failed":
                    waiting.clear()
                if worker.alive and waiting:
                    worker.give(waiting.pop())
                else:
                    worker.end(time.monotonic() + _GRACE_SECONDS)
                    worker.clear()
                    workers.remove(worker)
                yield outcome


class _Worker:
    """A process that sharpens one scene after the other, and keeps the networks."""

    def __init__(self, number: int, scene: Scene, options: SharpenOptions, threads: int, timeout: float | None) -> None:
        self.number = number
        self.connection, remote = _SPAWN.Pipe()
        self.alive = True
        self.deadline: float | None = None
        self._timeout = timeout
        verbose = {"verbose": _log.isEnabledFor(logging.DEBUG)}
        self._process = _SPAWN.Process(target=_work, args=(remote, options, threads), kwargs=verbose, daemon=True)
        # The process inherits the blocked signal: a Ctrl-C reaches this process alone, which ends the others in order.
        # Beginning the first would begin Python's resource tracker as well, and that unblocks the signal.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        remote.close()
        self.give(scene)

    def give(self, scene: Scene) -> None:
        self.scene, self._begun = scene, time.monotonic()
        self.deadline = None if self._timeout is None else self._begun + self._timeout
        with suppress(OSError):  # it is dead: `outcome` says so
            self.connection.send(scene)

    def outcome(self) -> Outcome:
        """What became of the scene, to be asked when the connection is ready or the time is over."""
        try:
            if self.connection.poll():
                return self.connection.recv()
            reason = f"not finished after {self._timeout:g} s (--timeout)"
            self._process.kill()
        except (EOFError, OSError):
            self._process.join()
            reason = _why(self._process.exitcode)
        self.alive = False
        self.clear()
        return Outcome(self.scene.name, "failed", reason, time.monotonic() - self._begun)

    def terminate(self) -> None:
        self._process.terminate()

    def end(self, deadline: float) -> None:
        """Let the process end; it is given time until the deadline."""
        self.connection.close()
        self._process.join(max(0.0, deadline - time.monotonic()))

    def clear(self) -> None:
        """Kill the process if it still lives and remove what it left beside its target."""
        self._process.kill()
        self._process.join()
        remove_leftovers(self.scene.output, self._process.pid)


def _ready(workers: Sequence[_Worker]) -> list[_Worker]:
    """The workers that have an outcome, have died or are late; waits until there is one."""
    deadlines = [worker.deadline for worker in workers if worker.deadline is not None]
    left = max(0.0, min(deadlines) - time.monotonic()) if deadlines else None
    ready = set(wait([worker.connection for worker in workers], left))
    now = time.monotonic()
    return [w for w in workers if w.connection in ready or (w.deadline is not None and w.deadline <= now)]


def _end_all(workers: Sequence[_Worker]) -> None:
    """End processes in mid-scene: orderly if they can within the grace, else killed; a second Ctrl-C kills at once."""
    try:
        for worker in workers:
            worker.terminate()
        deadline = time.monotonic() + _GRACE_SECONDS
        for worker in workers:
            worker.end(deadline)
    finally:
        for worker in workers:
            worker.clear()


def _why(exitcode: int | None) -> str:
    if exitcode == -signal.SIGKILL:
        return (
            "its process was killed (SIGKILL), as the system does when memory runs out: "
            "fewer --jobs or a smaller --tile use less"
        )
    if exitcode is not None and exitcode < 0:
        return f"its process crashed ({signal.Signals(-exitcode).name})"
    return f"its process ended with exit code {exitcode}"


def _work(connection: "Connection[Any, Any]", options: SharpenOptions, threads: int, *, verbose: bool) -> None:
    """Sharpen what comes through the connection until it is closed."""
    import torch

    from crossdiff_cli.model.device import tune_allocator

    logging.getLogger().addHandler(logging.NullHandler())  # warnings travel with the outcome
    warnings.filterwarnings("ignore", message="Dataset has no geotransform", module="rasterio")
    if verbose:
        logging.basicConfig(format="%(levelname)s: %(processName)s: %(message)s", force=True)
        logging.getLogger("crossdiff_cli").setLevel(logging.DEBUG)
    tune_allocator()
    torch.set_num_threads(threads)
    tqdm.set_lock(threading.RLock())  # its own is between processes, and who ends in mid-scene would leave it behind
    store = WeightStore()
    with orderly_end(), suppress(EOFError, OSError):
        while True:
            connection.send(attempt(connection.recv(), options, store))
