"""The options that say how scenes are fused, shared by `sharpen` and `batch`, and what they mean."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from crossdiff_cli.cli.types import (
    BoundsBox,
    Creation,
    Names,
    Nodata,
    TileSize,
    Weights,
    device_options,
    sensor_options,
)

if TYPE_CHECKING:
    from crossdiff_cli.tasks.sharpen import SharpenOptions

_OPTIONS = (
    sensor_options,
    click.option(
        "-b", "--bidx", type=Names(), metavar="1,2,...", help="Numbers of the MS bands to sharpen, one MS file only."
    ),
    click.option(
        "--weights", type=Weights(), help="Weights; default what `adapt` made for the sensor, else the shipped `open`."
    ),
    device_options,
    click.option(
        "--tile", type=TileSize(), default="auto", show_default=True, help="Side of a tile; sets the memory used."
    ),
    click.option(
        "--align", type=click.Choice(["auto", "off"]), default="auto", show_default=True, help="Correct a PAN/MS shift."
    ),
    click.option(
        "--noise", type=click.Choice(["auto", "off"]), default="auto", show_default=True, help="Tell noise from detail."
    ),
    click.option(
        "--adapt-steps",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        metavar="N",
        help="First fit the head to the scene in N steps; 50 take about half a minute.",
    ),
    click.option("--no-consistency", is_flag=True, help="Skip the step that makes the result, degraded, equal the MS."),
    click.option(
        "--extent",
        type=click.Choice(["intersection", "pan"]),
        default="intersection",
        show_default=True,
        help="Area of the result.",
    ),
    click.option(
        "--bounds", type=BoundsBox(), help="Sharpen only this part, in the CRS of the PAN or of --bounds-crs."
    ),
    click.option("--bounds-crs", metavar="CRS", help="CRS of --bounds, such as EPSG:4326."),
    click.option(
        "--out-bands", type=Names(), metavar="R,G,B,...", help="Bands to write, in this order; all are used inside."
    ),
    click.option(
        "--nodata", type=Nodata(), help="Value of missing pixels in the inputs and the result; `none`: all are data."
    ),
    click.option(
        "-t",
        "--dtype",
        type=click.Choice(["uint8", "uint16", "int16", "int32", "uint32", "float32", "float64"]),
        help="Default: the MS's.",
    ),
    click.option(
        "--of", "driver", type=click.Choice(["GTiff", "COG"]), default="GTiff", show_default=True, help="Output format."
    ),
    click.option("--co", "creation", type=Creation(), multiple=True, help="Creation option of the output format."),
    click.option("--overwrite", is_flag=True, help="Replace an existing result."),
    click.option("--stac", is_flag=True, help="Also write a STAC item: OUT.json beside OUT.tif."),
)


def fusion_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Everything that can be said about a fusion, besides its files; `fusion_of` understands it."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def fusion_of(**choices: Any) -> "SharpenOptions":
    """What `fusion_options` and `jobs` and `quiet` say, as the options of `crossdiff_cli.tasks.sharpen`."""
    from crossdiff_cli.io.pair import PairOptions
    from crossdiff_cli.tasks.sharpen import SharpenOptions
    from crossdiff_cli.training.zero_shot import ZeroShot

    if choices["bounds_crs"] is not None and choices["bounds"] is None:
        raise click.UsageError("--bounds-crs says what --bounds is in: give --bounds too")
    nodata, bidx = choices.pop("nodata"), choices.pop("bidx")
    pair = PairOptions(
        sensor=choices.pop("sensor"),
        bands=choices.pop("bands"),
        bidx=None if bidx is None else _numbers(bidx),
        nodata=None if nodata == "none" else nodata,
        ignore_nodata=nodata == "none",
    )
    iterations: dict[str, Any] = {"iterations": 0} if choices.pop("no_consistency") else {}
    steps = choices.pop("adapt_steps")
    choices["tune"] = ZeroShot(steps) if steps else None
    align, noise = (choices.pop(name) == "auto" for name in ("align", "noise"))
    creation = dict(choices.pop("creation"))
    return SharpenOptions(pair=pair, align=align, noise=noise, creation=creation, **iterations, **choices)


def _numbers(names: tuple[str, ...]) -> tuple[int, ...]:
    try:
        return tuple(int(name) for name in names)
    except ValueError as error:
        raise click.UsageError(f"--bidx takes band numbers like 1,2,3, not {','.join(names)}") from error
