"""`crossdiff sharpen`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crossdiff_cli.commands.failures import one_line_errors
from crossdiff_cli.options import (
    Creation,
    Names,
    Nodata,
    TileSize,
    device_options,
    is_quiet,
    sensor_options,
    verbosity_options,
)

if TYPE_CHECKING:
    from crossdiff_cli.sharpen import SharpenOptions


@click.command()
@click.argument("pan")
@click.argument("ms", nargs=-1, required=True)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Target GeoTIFF.")
@sensor_options
@click.option(
    "-b", "--bidx", type=Names(), metavar="1,2,...", help="Numbers of the MS bands to sharpen, one MS file only."
)
@click.option("--weights", type=click.Path(path_type=Path), help="Weight file; default the shipped one.")
@device_options
@click.option(
    "--tile", type=TileSize(), default="auto", show_default=True, help="Side of a tile; sets the memory used."
)
@click.option(
    "--align", type=click.Choice(["auto", "off"]), default="auto", show_default=True, help="Correct a PAN/MS shift."
)
@click.option("--no-consistency", is_flag=True, help="Skip the step that makes the result, degraded, equal the MS.")
@click.option(
    "--extent",
    type=click.Choice(["intersection", "pan"]),
    default="intersection",
    show_default=True,
    help="Area of the result.",
)
@click.option(
    "--nodata", type=Nodata(), help="Value of missing pixels in the inputs and the result; `none`: all are data."
)
@click.option(
    "-t",
    "--dtype",
    type=click.Choice(["uint8", "uint16", "int16", "int32", "uint32", "float32", "float64"]),
    help="Default: the MS's.",
)
@click.option(
    "--of", "driver", type=click.Choice(["GTiff", "COG"]), default="GTiff", show_default=True, help="Output format."
)
@click.option("--co", "creation", type=Creation(), multiple=True, help="Creation option of the output format.")
@click.option("--overwrite", is_flag=True, help="Replace an existing result.")
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
    r"""Fuse PAN and MS into a sharp MS image.

    MS is one file, or one file per band. Inputs are anything GDAL opens; `FILE,band=N` takes one band of a file.

    \b
    crossdiff sharpen pan.tif ms.tif -o sharp.tif
    crossdiff sharpen B8.TIF B2.TIF B3.TIF B4.TIF -o sharp.tif --of COG
    """
    with one_line_errors():
        from crossdiff_cli.sharpen import sharpen as run

        if report is not None:
            from crossdiff_cli.scene.writer import check_target

            check_target(report, overwrite=True)
        options = fusion_options(quiet=is_quiet(), **choices)
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


def fusion_options(**choices: Any) -> "SharpenOptions":
    """What the options of `sharpen` say, as the options of `crossdiff_cli.sharpen`."""
    from crossdiff_cli.scene.pair import PairOptions
    from crossdiff_cli.sharpen import SharpenOptions

    nodata, bidx = choices.pop("nodata"), choices.pop("bidx")
    pair = PairOptions(
        sensor=choices.pop("sensor"),
        bands=choices.pop("bands"),
        bidx=None if bidx is None else _numbers(bidx),
        nodata=None if nodata == "none" else nodata,
        ignore_nodata=nodata == "none",
    )
    rounds: dict[str, Any] = {"rounds": 0} if choices.pop("no_consistency") else {}
    align, creation = choices.pop("align") == "auto", dict(choices.pop("creation"))
    return SharpenOptions(pair=pair, align=align, creation=creation, **rounds, **choices)


def _numbers(names: tuple[str, ...]) -> tuple[int, ...]:
    try:
        return tuple(int(name) for name in names)
    except ValueError as error:
        raise click.UsageError(f"--bidx takes band numbers like 1,2,3, not {','.join(names)}") from error
