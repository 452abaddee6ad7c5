"""`crossdiff assess` and `crossdiff degrade`: know how good a result is, and make pairs whose true result is known."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crossdiff_cli.commands.failures import one_line_errors
from crossdiff_cli.options import Nodata, sensor_options

if TYPE_CHECKING:
    from crossdiff_cli.scene.pair import PairOptions

_NODATA = click.option("--nodata", type=Nodata(), help="Value of missing pixels in all inputs; `none`: all are data.")


@click.command()
@click.argument("fused")
@click.option("--pan", required=True, help="The PAN that FUSED was sharpened with.")
@click.option("--ms", required=True, multiple=True, help="The MS that it was made from; repeat for one file per band.")
@click.option("--reference", help="The true result, where it is known (see `crossdiff degrade`).")
@sensor_options
@_NODATA
@click.option("--html", type=click.Path(path_type=Path), help="Write a page with pictures, maps and baselines.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line.")
def assess(
    fused: str,
    pan: str,
    ms: tuple[str, ...],
    reference: str | None,
    html: Path | None,
    *,
    as_json: bool,
    **choices: Any,
) -> None:
    r"""Score FUSED against the PAN and MS it was made from, and against a reference if there is one.

    docs/quality.md says how to read the figures.

    \b
    crossdiff assess sharp.tif --pan pan.tif --ms ms.tif --html sharp.html
    """
    with one_line_errors():
        from crossdiff_cli.quality.files import JudgedFiles

        with JudgedFiles(fused, pan, ms, reference, _pair_options(choices)) as files:
            report = files.report()
            names = [band.name for band in files.pair.bands]
            sensor = files.pair.sensor.key
    figures = report.as_dict()
    if as_json:
        per_band = figures.pop("bands")
        click.echo(json.dumps({"output": fused, "sensor": sensor, "bands": names, **figures, "per_band": per_band}))
    else:
        click.echo(report)
        click.echo(f"{'bands':<10} {','.join(names)} of {sensor}")


def _pair_options(choices: dict[str, Any]) -> "PairOptions":
    from crossdiff_cli.scene.pair import PairOptions

    nodata = choices["nodata"]
    return PairOptions(
        sensor=choices["sensor"],
        bands=choices["bands"],
        nodata=None if nodata == "none" else nodata,
        ignore_nodata=nodata == "none",
    )
