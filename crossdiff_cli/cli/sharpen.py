"""`crossdiff sharpen`."""

import json
from pathlib import Path
from typing import Any

import click

from crossdiff_cli.cli.arguments import need_ms
from crossdiff_cli.cli.failures import one_line_errors
from crossdiff_cli.cli.options import fusion_of, fusion_options
from crossdiff_cli.cli.types import INPUT, is_quiet, verbosity_options


@click.command()
@click.argument("pan", type=INPUT)
@click.argument("ms", nargs=-1, type=INPUT)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Target GeoTIFF.")
@fusion_options
@click.option("--report", type=click.Path(path_type=Path), help="Write an HTML page that shows how good the result is.")
@click.option("-j", "--jobs", type=click.IntRange(1, 64), default=2, show_default=True, help="Threads that read ahead.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line about the result on stdout.")
@verbosity_options
def sharpen(
    pan: str,
    ms: tuple[str, ...],
    output: Path,
    *,
    report: Path | None,
    as_json: bool,
    **choices: Any,
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
    if report is not None and choices["out_bands"] is not None:
        raise click.UsageError("--report judges every band of the MS: give it without --out-bands")
    with one_line_errors():
        from crossdiff_cli.tasks.sharpen import sharpen as run

        if report is not None:
            from crossdiff_cli.io.target import check_target
            from crossdiff_cli.report.page import KINDS

            check_target(report, overwrite=True, kinds=KINDS)
        options = fusion_of(quiet=is_quiet(), **choices)
        result = run(pan, ms, output, options)
        if report is not None:
            from crossdiff_cli.report.page import report_on

            report_on(output, pan, ms, options.pair, report)
    if as_json:
        click.echo(json.dumps(result.as_dict()))
    elif not is_quiet():
        click.echo(
            f"{result.output}: {result.seconds:.1f} s, {result.mpx_per_s:.2f} Mpx/s; "
            f"degraded, it reproduces the MS to within {100 * result.consistency:.2f} %",
            err=True,
        )
