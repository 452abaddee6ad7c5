"""`crossdiff sharpen`."""

import json
from dataclasses import replace
from pathlib import Path

import click

from crossdiff_cli.cli.failures import one_line_errors
from crossdiff_cli.cli.options import (
    estimate_options,
    files,
    need_all_bands,
    need_ms,
    network_options,
    output_options,
    runtime_options,
    scene_options,
)
from crossdiff_cli.cli.types import is_quiet, verbosity_options
from crossdiff_cli.options import (
    EstimateOptions,
    NetworkOptions,
    OutputOptions,
    PairOptions,
    RuntimeOptions,
    SharpenOptions,
)


@click.command()
@files
@click.option("-o", "--output", "target", required=True, type=click.Path(path_type=Path), help="Target GeoTIFF.")
@scene_options
@network_options
@estimate_options
@output_options
@runtime_options
@click.option("--report", type=click.Path(path_type=Path), help="Write an HTML page that shows how good the result is.")
@click.option("--dry-run", is_flag=True, help="Write nothing; print tiles, memory, size of the output, estimated time.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line about the result on stdout.")
@verbosity_options
def sharpen(
    pan: str,
    ms: tuple[str, ...],
    target: Path,
    *,
    pair: PairOptions,
    network: NetworkOptions,
    estimate: EstimateOptions,
    output: OutputOptions,
    runtime: RuntimeOptions,
    report: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Fuse PAN and MS into a sharp MS image.

    MS is one file, or one file per band. Inputs are anything GDAL opens; `FILE,band=N` takes one band of a file. A
    delivery (its folder or a metadata file) stands for its PAN, its MS, or for both when nothing follows it.

    \b
    crossdiff sharpen pan.tif ms.tif -o sharp.tif
    crossdiff sharpen 012345678901_01/ -o sharp.tif
    crossdiff sharpen B8.TIF B2.TIF B3.TIF B4.TIF -o sharp.tif --of COG --stac
    crossdiff sharpen pan.tif ms.tif -o part.tif --bounds 470200,5543400,470400,5543600 --out-bands R,G,B
    """
    need_ms(pan, ms)
    if report:
        need_all_bands(output)
    options = SharpenOptions(pair, estimate, network, output, replace(runtime, progress=not is_quiet()))
    with one_line_errors():
        from crossdiff_cli.model.device import tune_allocator
        from crossdiff_cli.tasks.sharpen import sharpen as run

        tune_allocator()

        if dry_run:
            from crossdiff_cli.tasks.dry_run import dry_run as forecast

            found = forecast(pan, ms, target, options)
            click.echo(json.dumps(found.as_dict()) if as_json else str(found))
            return
        if report is not None:
            from crossdiff_cli.io.target import check_target
            from crossdiff_cli.report.page import KINDS

            check_target(report, overwrite=True, kinds=KINDS)
        result = run(pan, ms, target, options)
        if report is not None:
            from crossdiff_cli.report.page import report_on

            report_on(target, pan, ms, pair, report)
    if as_json:
        click.echo(json.dumps(result.as_dict()))
    elif not is_quiet():
        click.echo(f"{result.output}: {result.seconds:.1f} s, {result.mpx_per_s:.2f} Mpx/s", err=True)
        if network.iterations:
            figure = f"{100 * result.consistency:.2f} % relative RMS after degrading the result"
            click.echo(f"consistency with the MS: {figure}", err=True)
