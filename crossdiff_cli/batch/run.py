"""A batch from its list of scenes to their outcomes."""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from crossdiff_cli.batch.cluster import on_cluster
from crossdiff_cli.batch.manifest import Scene
from crossdiff_cli.batch.outcome import Outcome
from crossdiff_cli.batch.processes import in_processes
from crossdiff_cli.errors import PathError
from crossdiff_cli.model.device import choose_devices
from crossdiff_cli.system.paths import exists, is_file
from crossdiff_cli.system.weight_files import no_weights
from crossdiff_cli.tasks.sharpen import SharpenOptions


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """Everything `crossdiff batch` can be told, besides the scenes."""

    fusion: SharpenOptions
    jobs: int = 1
    """Processes of this machine."""
    scheduler: str | None = None
    """Address of a dask.distributed scheduler, instead of processes of this machine."""
    skip_existing: bool = False
    timeout: float | None = None
    """Seconds for a scene, in processes of this machine."""
    fail_fast: bool = False


def run_batch(scenes: Sequence[Scene], options: BatchOptions) -> Generator[Outcome, None, None]:
    """Sharpen the scenes and yield the outcome of each, in the order in which they come.

    A result is moved to its place only when complete: one that exists is finished.

    Raises:
        CrossDiffError: there is no such device or precision, weight file or scheduler, so that every scene would fail.
    """
    fusion = options.fusion
    if fusion.weights is not None and not is_file(fusion.weights):
        raise no_weights(fusion.weights)
    if options.scheduler is None:
        choose_devices(fusion.device, fusion.precision)
    waiting = []
    for scene in scenes:
        if not _is_there(scene.output) or (fusion.overwrite and not options.skip_existing):
            waiting.append(scene)
        elif options.skip_existing:
            yield Outcome(scene.name, "skipped", f"{scene.output} exists")
        else:
            reason = f"{scene.output} exists; --overwrite replaces it, --skip-existing keeps it"
            yield Outcome(scene.name, "failed", reason)
            if options.fail_fast:
                return
    if options.scheduler is None:
        outcomes = in_processes(waiting, fusion, options.jobs, timeout=options.timeout, fail_fast=options.fail_fast)
    else:
        outcomes = on_cluster(waiting, fusion, options.scheduler, fail_fast=options.fail_fast)
    with closing(outcomes):
        yield from outcomes


def _is_there(output: Path) -> bool:
    """Whether a result is there; where nobody may look, its scene fails alone, when its turn comes."""
    try:
        return exists(output)
    except PathError:
        return False
