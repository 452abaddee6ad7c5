"""Scenes on the workers of a dask.distributed cluster, which see the files under the same paths."""

import threading
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from crossdiff_cli.batch.manifest import Scene
from crossdiff_cli.batch.outcome import Outcome, attempt, one_line
from crossdiff_cli.errors import CrossDiffError
from crossdiff_cli.model.weights import WeightStore
from crossdiff_cli.scene.writer import remove_leftovers
from crossdiff_cli.sharpen import SharpenOptions

if TYPE_CHECKING:
    from distributed import Future

_CONNECT_SECONDS = 15


def on_cluster(
    scenes: Sequence[Scene], options: SharpenOptions, address: str, *, fail_fast: bool = False
) -> Generator[Outcome, None, None]:
    """Submit the scenes and yield each outcome when it is there.

    A scene whose worker dies goes to another one, until it has taken `distributed.scheduler.allowed-failures` workers
    with it. Closing the generator takes back what has not begun; scenes that run are finished by their workers.

    Args:
        scenes: not yet there, or to be overwritten.
        options: of all scenes; a relative path of weights is made absolute.
        address: of the scheduler, `tcp://host:8786`.
        fail_fast: take the rest back after one has failed.

    Raises:
        CrossDiffError: dask.distributed is not installed, or the scheduler does not answer.
    """
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        raise CrossDiffError("--scheduler needs dask.distributed: pip install 'crossdiff-cli[dask]'") from error
    weights = None if options.weights is None else options.weights.absolute()
    # A scene that is tried again may find what the worker that died had just finished.
    options = replace(options, weights=weights, overwrite=True)
    try:
        client = Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise CrossDiffError(f"no scheduler answers at {address}: {one_line(str(error))}") from error
    with client:
        futures = {client.submit(_attempt, scene, options, pure=False): scene for scene in scenes}
        try:
            for future in as_completed(list(futures)):
                outcome = _outcome(future, futures.pop(future))
                future.release()  # else the death of the worker that keeps the answer would have the scene made again
                yield outcome
                if fail_fast and outcome.status == "failed":
                    return
        finally:
            with suppress(Exception):
                client.cancel(list(futures))


def _outcome(future: "Future[Outcome]", scene: Scene) -> Outcome:
    if future.status == "finished":
        return future.result()
    remove_leftovers(scene.output)
    return Outcome(scene.name, "failed", _why(future.exception() if future.status == "error" else None))


def _attempt(scene: Scene, options: SharpenOptions) -> Outcome:
    """Runs on the worker."""
    remove_leftovers(scene.output)
    store, lock = _store()
    with lock:
        return attempt(scene, options, store)


@cache
def _store() -> tuple[WeightStore, threading.Lock]:
    """The networks of this worker, and the lock by which its threads take turns: a scene uses all cores it is given."""
    return WeightStore(), threading.Lock()


def _why(error: BaseException | None) -> str:
    if error is None:
        return "the scheduler lost it: was the cluster shut down?"
    if type(error).__name__ == "KilledWorker":
        return "the workers that tried it were killed, as happens when memory runs out; a smaller --tile uses less"
    return one_line(f"{type(error).__name__}: {error}")
