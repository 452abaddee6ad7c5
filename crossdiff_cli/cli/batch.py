"""`crossdiff batch`."""

import json
import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crossdiff_cli.cli.failures import one_line_errors
from crossdiff_cli.cli.options import (
    batch_options,
    batch_runtime_options,
    estimate_options,
    need_all_bands,
    network_options,
    output_options,
    scene_options,
)
from crossdiff_cli.cli.types import Shard, is_quiet, verbosity_options
from crossdiff_cli.errors import ManifestError
from crossdiff_cli.options import (
    BatchOptions,
    EstimateOptions,
    NetworkOptions,
    OutputOptions,
    PairOptions,
    RuntimeOptions,
    SharpenOptions,
)
from crossdiff_cli.system.signals import undone_by

if TYPE_CHECKING:
    from crossdiff_cli.batch.manifest import Scene

_log = logging.getLogger(__name__)


@click.command()
@click.argument("manifest", required=False, type=click.Path(path_type=Path))
@click.option("--pair-dir", type=click.Path(path_type=Path), help="Folder of pairs (a_pan.tif, a_ms.tif) instead.")
@click.option(
    "-o", "--output", "folder", required=True, type=click.Path(path_type=Path, file_okay=False), help="Result folder."
)
@scene_options
@network_options
@estimate_options
@output_options
@batch_runtime_options
@batch_options
@click.option(
    "--shard", type=Shard(), default="1/1", help="Only scene I, I + N, I + 2N, ... of the list; I from 1 to N."
)
@click.option("--results", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Append one JSON line per scene to FILE.")  # fmt: skip
@click.option("--report", is_flag=True, help="Write an HTML page beside each result, and index.html of all.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line per scene on stdout.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Write nothing: print the scenes as JSON lines, and size, memory and time on stderr (not with -q).",
)
@verbosity_options
def batch(
    manifest: Path | None,
    pair_dir: Path | None,
    folder: Path,
    shard: tuple[int, int],
    results: Path | None,
    *,
    pair: PairOptions,
    network: NetworkOptions,
    estimate: EstimateOptions,
    output: OutputOptions,
    runtime: RuntimeOptions,
    batch: BatchOptions,
    report: bool,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Sharpen many scenes; one that fails does not stop the others.

    MANIFEST is a CSV table (columns pan, ms or delivery, perhaps name, output, sensor, bands; MS files separated by ;),
    JSON lines, or a JSON list with the same keys. Exit code 1: a scene failed; the summary says which and why.

    \b
    crossdiff batch scenes.csv -o sharp --results results.jsonl --skip-existing
    crossdiff batch --pair-dir deliveries -o sharp --jobs 2
    crossdiff batch scenes.csv -o sharp --skip-existing --shard 3/16
    crossdiff batch scenes.csv -o sharp --scheduler tcp://head:8786
    """
    if (manifest is None) == (pair_dir is None):
        raise click.UsageError("name either a MANIFEST or a folder of pairs with --pair-dir")
    if output.overwrite and batch.skip_existing:
        raise click.UsageError("--overwrite and --skip-existing exclude each other")
    if report:
        need_all_bands(output)
    if batch.scheduler and (batch.timeout or batch.jobs > 1):
        raise click.UsageError("--jobs and --timeout are for processes of this machine, not for --scheduler")
    with one_line_errors():
        from crossdiff_cli.batch.manifest import check_outputs, read_manifest, scenes_of_pairs

        try:
            scenes = read_manifest(manifest, folder) if manifest else scenes_of_pairs(Path(pair_dir or ""), folder)
            if not dry_run:
                check_outputs(scenes)
        except ManifestError as error:
            raise click.UsageError(str(error)) from error
        scenes = scenes[shard[0] - 1 :: shard[1]]
        options = SharpenOptions(pair, estimate, network, output, runtime)
        if dry_run:
            for scene in scenes:
                click.echo(json.dumps(scene.as_dict(folder)))
            if not is_quiet():
                from crossdiff_cli.batch.forecast import forecast_batch

                click.echo(forecast_batch(scenes, options, batch), err=True)
            return
        if report:
            scenes = [replace(scene, report=scene.output.with_suffix(".html")) for scene in scenes]
        failed = _run(scenes, options, batch, results, folder / "index.html" if report else None, as_json=as_json)
    if failed:
        raise SystemExit(1)


def _run(
    scenes: Sequence["Scene"],
    options: SharpenOptions,
    batch: BatchOptions,
    results: Path | None,
    index: Path | None,
    *,
    as_json: bool,
) -> bool:
    """Run the scenes, report each and the sum, also when the run is interrupted; return whether one failed."""
    from crossdiff_cli.batch.record import Record
    from crossdiff_cli.batch.run import run_batch

    record = Record(len(scenes), results)

    def print_summary() -> None:
        click.echo(record.summary(), err=True)

    with undone_by(print_summary), closing(run_batch(scenes, options, batch)) as outcomes:
        for outcome in outcomes:
            line = record.add(outcome)
            if as_json:
                click.echo(line)
            if not is_quiet():
                click.echo(f"[{record.done}/{record.scenes}] {outcome.line()}", err=True)
            for warning in outcome.warnings:
                _log.debug("%s: %s", outcome.name, warning)
    if not is_quiet() and (table := record.table()):
        click.echo(table, err=True)
    if not is_quiet() or record.failures:
        print_summary()
    if index is not None and record.lines:
        from crossdiff_cli.report.index import write_index

        write_index(index, record.lines)
    return bool(record.failures)
