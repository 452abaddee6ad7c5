"""A batch from its list of scenes to their outcomes."""

from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path

from crossdiff_cli.batch.cluster import on_cluster
from crossdiff_cli.batch.manifest import Scene
from crossdiff_cli.batch.outcome import Outcome
from crossdiff_cli.batch.processes import in_processes
from crossdiff_cli.errors import PathError
from crossdiff_cli.model.device import choose_devices
from crossdiff_cli.options import BatchOptions, SharpenOptions
from crossdiff_cli.system.paths import exists, is_file
from crossdiff_cli.system.weight_files import no_weights


def run_batch(scenes: Sequence[Scene], fusion: SharpenOptions, options: BatchOptions) -> Generator[Outcome, None, None]:
    """Sharpen the scenes and yield the outcome of each, in the order in which they come.

    A result is moved to its place only when complete: one that exists is finished.

    Raises:
        CrossDiffError: there is no such device or precision, weight file or scheduler, so that every scene would fail.
    """
    if fusion.network.weights is not None and not is_file(fusion.network.weights):
        raise no_weights(fusion.network.weights)
    if options.scheduler is None:
        choose_devices(fusion.runtime.device, fusion.runtime.precision)
    waiting = []
    for scene in scenes:
        if not _is_there(scene.output) or (fusion.output.overwrite and not options.skip_existing):
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
