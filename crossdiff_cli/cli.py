"""The crossdiff command: thin commands, each one call. Heavy imports happen inside the commands."""

import json
import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import click

from crossdiff_cli import __version__
from crossdiff_cli.errors import CrossDiffError
from crossdiff_cli.options import Creation, Names, Nodata, TileSize, device_options, sensor_options


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="crossdiff")
@click.option("-v", "--verbose", is_flag=True, help="Say more.")
@click.option("-q", "--quiet", is_flag=True, help="Only errors; no progress bar.")
@click.pass_context
def main(ctx: click.Context, *, verbose: bool, quiet: bool) -> None:
    """Pansharpening by cross-predictive diffusion encoders and an adapted fusion head."""
    level = logging.DEBUG if verbose else logging.ERROR if quiet else logging.INFO
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr, force=True)
    logging.getLogger("crossdiff_cli").setLevel(level)
    ctx.obj = quiet


@main.command()
@click.argument("pan")
@click.argument("ms", nargs=-1, required=True)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Target GeoTIFF.")
@sensor_options
@click.option(
    "-b", "--bidx", type=Names(), metavar="1,2,...", help="Numbers of the MS bands to sharpen, one MS file only."
)
@click.option("--weights", type=click.Path(path_type=Path), help="Weight file; default the shipped one.")
@device_options
@click.option("--tile", type=TileSize(), default=1536, show_default=True, help="Side of a tile; sets the memory used.")
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
@click.option("-j", "--jobs", type=click.IntRange(1, 64), default=2, show_default=True, help="Threads that read ahead.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line about the result on stdout.")
@click.pass_obj
def sharpen(
    quiet: bool,
    /,
    pan: str,
    ms: tuple[str, ...],
    output: Path,
    *,
    as_json: bool,
    creation: tuple[tuple[str, str], ...],
    **choices: Any,
) -> None:
    r"""Fuse PAN and MS into a sharp MS image.

    MS is one file, or one file per band. Inputs are anything GDAL opens; `FILE,band=N` takes one band of a file.

    \b
    crossdiff sharpen pan.tif ms.tif -o sharp.tif
    crossdiff sharpen B8.TIF B2.TIF B3.TIF B4.TIF -o sharp.tif --of COG
    """
    with _one_line_errors():
        from crossdiff_cli.scene.pair import PairOptions
        from crossdiff_cli.sharpen import SharpenOptions
        from crossdiff_cli.sharpen import sharpen as run

        nodata = choices.pop("nodata")
        bidx = choices.pop("bidx")
        pair = PairOptions(
            sensor=choices.pop("sensor"),
            bands=choices.pop("bands"),
            bidx=None if bidx is None else _numbers(bidx),
            nodata=None if nodata == "none" else nodata,
            ignore_nodata=nodata == "none",
        )
        align, no_consistency = choices.pop("align") == "auto", choices.pop("no_consistency")
        options = SharpenOptions(pair=pair, align=align, creation=dict(creation), quiet=quiet, **choices)
        result = run(pan, ms, output, replace(options, rounds=0) if no_consistency else options)
    if as_json:
        click.echo(json.dumps(result.as_dict()))
    elif not quiet:
        click.echo(
            f"{result.output}: {result.seconds:.1f} s, {result.mpx_per_s:.2f} Mpx/s; "
            f"degraded, it reproduces the MS to within {100 * result.consistency:.2f} %",
            err=True,
        )


@main.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON line per sensor.")
def sensors(*, as_json: bool) -> None:
    """List the sensors that --sensor knows."""
    from crossdiff_cli.sensors import SENSORS

    for sensor in SENSORS.values():
        layouts = [",".join(layout) for layout in sensor.layouts]
        if as_json:
            click.echo(
                json.dumps({"sensor": sensor.key, "name": sensor.name, "ratio": sensor.ratio, "layouts": layouts})
            )
        else:
            click.echo(f"{sensor.key:<12} {sensor.name:<24} ratio {sensor.ratio:<4g} {'  '.join(layouts)}")


@main.command()
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the result."
)
@click.option("--steps", type=click.IntRange(1), default=2000, show_default=True, help="Optimiser steps.")
@click.option(
    "--patch",
    type=click.IntRange(32),
    default=96,
    show_default=True,
    help="Side of a training window, a multiple of 8.",
)
@click.option("--batch", type=click.IntRange(1), default=4, show_default=True, help="Windows per scene and step.")
@click.option("--groups", type=click.IntRange(1), default=4, show_default=True, help="Scenes per step.")
@click.option("--rate", type=float, default=5e-4, show_default=True, help="Learning rate.")
@click.option("--seed", type=int, default=0, show_default=True)
def pretrain(manifest: Path, output: Path, **choices: Any) -> None:
    """Stage 1: train the encoders on the scenes of MANIFEST (split `train`), without labels.

    Writes OUTPUT/encoders.safetensors; goes on from OUTPUT/pretrain.checkpoint when there is one.
    """
    with _one_line_errors():
        from crossdiff_cli.training.stages import Budget, run_pretrain

        path = run_pretrain(manifest, output, Budget(**choices))
    click.echo(path)


@main.command()
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the result."
)
@click.option("--weights", type=click.Path(path_type=Path), help="Weights with the encoders; default the shipped ones.")
@click.option("--steps", type=click.IntRange(1), default=2000, show_default=True, help="Optimiser steps.")
@click.option(
    "--patch",
    type=click.IntRange(32),
    default=96,
    show_default=True,
    help="Side of a training window, a multiple of 8.",
)
@click.option("--batch", type=click.IntRange(1), default=4, show_default=True, help="Windows per scene and step.")
@click.option("--groups", type=click.IntRange(1), default=4, show_default=True, help="Scenes per step.")
@click.option("--rate", type=float, default=5e-4, show_default=True, help="Learning rate.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--restart", is_flag=True, help="Begin with an untrained head instead of the one in the weights.")
def adapt(manifest: Path, output: Path, *, weights: Path | None, restart: bool, **choices: Any) -> None:
    """Stage 2: freeze the encoders and train the fusion head on the scenes of MANIFEST (split `train`).

    Writes OUTPUT/crossdiff.safetensors; goes on from OUTPUT/adapt.checkpoint when there is one.
    """
    with _one_line_errors():
        from crossdiff_cli.training.stages import Budget, run_adapt

        path = run_adapt(manifest, output, weights, Budget(**choices), restart=restart)
    click.echo(path)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Turn what a user can meet into one line and exit code 1, and SIGTERM into an orderly end."""
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except CrossDiffError as error:
        raise click.ClickException(str(error)) from error
    except MemoryError as error:
        raise click.ClickException("out of memory: a smaller --tile uses less") from error
    finally:
        signal.signal(signal.SIGTERM, previous)


def _terminate(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _numbers(names: tuple[str, ...]) -> tuple[int, ...]:
    try:
        return tuple(int(name) for name in names)
    except ValueError as error:
        raise click.UsageError(f"--bidx takes band numbers like 1,2,3, not {','.join(names)}") from error
