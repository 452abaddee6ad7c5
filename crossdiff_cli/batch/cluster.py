"""Scenes on the workers of a dask.distributed cluster, which see the files under the same paths."""

import logging
from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from crossdiff_cli.batch.manifest import Scene
from crossdiff_cli.batch.outcome import Outcome, attempt, one_line
from crossdiff_cli.errors import CrossDiffError
from crossdiff_cli.model.device import tune_allocator
from crossdiff_cli.model.weights import WeightStore
from crossdiff_cli.options import SharpenOptions
from crossdiff_cli.system.atomic import remove_leftovers

if TYPE_CHECKING:
    from distributed import Future

_log = logging.getLogger(__name__)

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
        raise CrossDiffError(
            "--scheduler needs dask.distributed", cure="install it with pip install 'crossdiff-cli[dask]'"
        ) from error
    if not _log.isEnabledFor(logging.DEBUG):
        _mute()
    weights = None if options.network.weights is None else options.network.weights.absolute()
    # A scene that is tried again may find what the worker that died had just finished.
    network, output = replace(options.network, weights=weights), replace(options.output, overwrite=True)
    options = replace(options, network=network, output=output)
    try:
        client = Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise CrossDiffError("no scheduler answers", path=address, found=one_line(str(error))) from error
    with client:
        numbers = numbers_on_host(client.scheduler_info(n_workers=-1)["workers"])
        futures = {client.submit(_attempt, scene, options, numbers, pure=False): scene for scene in scenes}
        try:
            for future in as_completed(list(futures), loop=client.loop):
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
    if future.status != "error":
        return Outcome(
            scene.name, "failed", "the scheduler was lost before it was finished: was the cluster shut down?"
        )
    remove_leftovers(scene.output)
    return Outcome(scene.name, "failed", _why(future.exception()))


def numbers_on_host(workers: Iterable[str]) -> dict[str, int]:
    """Number the workers of each machine, given their addresses `tcp://HOST:PORT`: they take different GPUs."""
    numbers: dict[str, int] = {}
    seen: Counter[str] = Counter()
    for address in sorted(workers):
        host = address.rpartition(":")[0]
        numbers[address] = seen[host]
        seen[host] += 1
    return numbers


def _attempt(scene: Scene, options: SharpenOptions, numbers: Mapping[str, int]) -> Outcome:
    """Sharpen a scene on a worker; each of its threads takes one."""
    from distributed import get_worker

    runtime = replace(options.runtime, worker=numbers.get(get_worker().address, 0))
    return attempt(scene, replace(options, runtime=runtime), _store())


@cache
def _store() -> WeightStore:
    """The networks of this worker."""
    tune_allocator()
    return WeightStore()


def _mute(names: Sequence[str] = ("distributed", "distributed.client")) -> None:
    """What dask says of a lost connection is the reason of a failure, not a traceback in the log."""
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _why(error: BaseException) -> str:
    if type(error).__name__ == "KilledWorker":
        return "the workers that tried it were killed, as happens when memory runs out; a smaller --tile uses less"
    return one_line(f"{type(error).__name__}: {error}")
