"""Options of the command line in groups: each group becomes one options object, with the defaults of its class."""

import functools
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, TypeVar, get_args

import click

from crossdiff_cli.cli.types import (
    INPUT,
    Address,
    BoundsBox,
    Creation,
    Integers,
    MtfGains,
    Names,
    Nodata,
    OnOff,
    PanMtfGain,
    TileSize,
    Weights,
    complete_sensor,
)
from crossdiff_cli.errors import OptionError
from crossdiff_cli.options import (
    Backend,
    BatchOptions,
    Driver,
    EstimateOptions,
    Extent,
    NetworkOptions,
    OutputOptions,
    PairOptions,
    Precision,
    RuntimeOptions,
)

Command = TypeVar("Command", bound=Callable[..., Any])
Decorator = Callable[[Any], Any]


def default(cls: type[Any], name: str) -> Any:
    """Return the default of a field of an options class."""
    field = next(field for field in fields(cls) if field.name == name)
    return field.default if field.default is not MISSING else None


def setting(cls: type[Any], name: str, *flags: str, **attributes: Any) -> tuple[type[Any], str, Decorator]:
    """Declare a click option for a field of an options class, whose default it takes."""
    attributes.setdefault("default", default(cls, name))
    return cls, name, click.option(*flags, _parameter(cls, name), **attributes)


def option_group(name: str, *settings: tuple[type[Any], str, Decorator]) -> Callable[[Command], Command]:
    """Declare the settings of one options class on a command and hand it one object as keyword `name`.

    Fields without an option keep their default.
    """
    cls = settings[0][0]

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def run(*arguments: Any, **values: Any) -> Any:
            chosen = {field: values.pop(_parameter(cls, field)) for _, field, _ in settings}
            try:
                values[name] = cls(**chosen)
            except OptionError as error:
                raise click.UsageError(str(error)) from error
            return command(*arguments, **values)

        for _, _, option in reversed(settings):
            run = option(run)
        return run  # type: ignore[return-value] # click's decorators keep the callable

    return decorate


def _parameter(cls: type[Any], name: str) -> str:
    return f"{cls.__name__.removesuffix('Options').lower()}_{name}"


def files(command: Command) -> Command:
    """Declare the arguments PAN and MS."""
    return click.argument("pan", type=INPUT)(click.argument("ms", nargs=-1, type=INPUT)(command))


SENSOR = (
    setting(PairOptions, "sensor", "--sensor", show_default=True, metavar="NAME", shell_complete=complete_sensor,
            help="Sensor key, as in `crossdiff sensors`, or a TOML file."),
    setting(PairOptions, "bands", "--bands", type=Names(), metavar="B,G,R,...",
            help="Names of the MS bands in file order, where the files do not say."),
)  # fmt: skip
NODATA = setting(
    PairOptions, "nodata", "--nodata", type=Nodata(),
    help="Value of missing pixels in all inputs and in the result; `none`: every number is data.",
)  # fmt: skip
BIDX = setting(
    PairOptions, "bidx", "-b", "--bidx", type=Integers(), metavar="1,2,...",
    help="Numbers of the MS bands to use; one MS file only.",
)  # fmt: skip

sensor_options = option_group("pair", *SENSOR)
pair_options = option_group("pair", *SENSOR, NODATA)
scene_options = option_group("pair", *SENSOR, BIDX, NODATA)
_ALIGN = setting(
    EstimateOptions, "align", "--align", type=OnOff(), show_default="auto",
    help="Estimate and correct the offset between PAN and MS.",
)  # fmt: skip
MTF = setting(
    EstimateOptions, "mtf", "--mtf", type=MtfGains(), show_default=True,
    help="MTF of the MS bands: estimated on the scene, that of the sensor, or their gains at the Nyquist frequency.",
)  # fmt: skip
_PAN_MTF = setting(
    EstimateOptions, "pan_mtf", "--pan-mtf", type=PanMtfGain(), show_default=True,
    help="MTF of the PAN: estimated on the scene, that of the sensor, or its gain at the Nyquist frequency.",
)  # fmt: skip
wald_options = option_group("estimate", _ALIGN, MTF, _PAN_MTF)
mtf_options = option_group("estimate", MTF)
estimate_options = option_group(
    "estimate", _ALIGN, MTF, _PAN_MTF,
    setting(EstimateOptions, "noise", "--noise", type=OnOff(), show_default="auto",
            help="Estimate sensor noise and suppress detail below it."),
    setting(EstimateOptions, "aliasing", "--aliasing", type=OnOff(), show_default="auto",
            help="Correct fluctuations of single MS pixels that the PAN does not show."),
)  # fmt: skip
network_options = option_group(
    "network",
    setting(NetworkOptions, "weights", "--weights", type=Weights(),
            help="Weight file [default: the head adapted to the sensor, else the bundled `all`]."),
    setting(NetworkOptions, "fine_tune_steps", "--adapt-steps", type=click.IntRange(0), show_default=True, metavar="N",
            help="Fine-tune the fusion head on this scene for N steps first (50 take about 30 s)."),
    setting(NetworkOptions, "iterations", "--no-consistency", is_flag=True, flag_value=0, type=int,
            help="Skip back-projection onto the MS."),
)  # fmt: skip
output_options = option_group(
    "output",
    setting(OutputOptions, "extent", "--extent", type=click.Choice(get_args(Extent)), show_default=True,
            help="Area of the result."),
    setting(OutputOptions, "bounds", "--bounds", type=BoundsBox(),
            help="Sharpen only this part, in the CRS of the PAN or of --bounds-crs."),
    setting(OutputOptions, "bounds_crs", "--bounds-crs", metavar="CRS", help="CRS of --bounds, such as EPSG:4326."),
    setting(OutputOptions, "bands", "--out-bands", type=Names(), metavar="R,G,B,...",
            help="Bands to write, in this order; the fusion uses all bands."),
    setting(OutputOptions, "dtype", "-t", "--dtype",
            type=click.Choice(["uint8", "uint16", "int16", "int32", "uint32", "float32", "float64"]),
            help="Data type of the output [default: that of the MS]."),
    setting(OutputOptions, "driver", "--of", type=click.Choice(get_args(Driver)), show_default=True,
            help="Output format."),
    setting(OutputOptions, "creation", "--co", type=Creation(), multiple=True, default=(),
            callback=lambda _ctx, _param, value: dict(value), help="Creation option of the output format."),
    setting(OutputOptions, "overwrite", "--overwrite", is_flag=True, help="Replace an existing result."),
    setting(OutputOptions, "stac", "--stac", is_flag=True, help="Also write a STAC item: OUT.json beside OUT.tif."),
)  # fmt: skip
_RUNTIME = (
    setting(RuntimeOptions, "device", "--device", show_default=True, metavar="auto|cpu|cuda[:i]",
            help="Where to compute; several with commas between."),
    setting(RuntimeOptions, "precision", "--precision", type=click.Choice(get_args(Precision)), show_default=True,
            help="Arithmetic of the network; auto is the fastest that the device has."),
    setting(RuntimeOptions, "backend", "--backend", type=click.Choice(get_args(Backend)), show_default=True,
            help="How the network is computed: strip by strip (auto on a CPU), in one piece (auto on a GPU), or by the "
            "plain module, to compare with."),
    setting(RuntimeOptions, "tile", "--tile", type=TileSize(), default="auto", show_default=True,
            help="Side of a tile in PAN pixels; it sets the memory used."),
)  # fmt: skip
runtime_options = option_group(
    "runtime", *_RUNTIME,
    setting(RuntimeOptions, "readers", "-j", "--jobs", type=click.IntRange(1, 64), show_default=True,
            help="Threads that read ahead."),
)  # fmt: skip
batch_runtime_options = option_group("runtime", *_RUNTIME)
batch_options = option_group(
    "batch",
    setting(BatchOptions, "skip_existing", "--skip-existing", is_flag=True,
            help="Skip scenes whose result is there: it is complete."),
    setting(BatchOptions, "jobs", "-j", "--jobs", type=click.IntRange(1, 256), show_default=True,
            help="Scenes at once, in processes that share the cores."),
    setting(BatchOptions, "scheduler", "--scheduler", type=Address(), metavar="tcp://HOST:PORT",
            help="Sharpen on a dask.distributed cluster instead."),
    setting(BatchOptions, "timeout", "--timeout", type=click.FloatRange(0, min_open=True), metavar="SECONDS",
            help="Give up a scene that takes longer; not with --scheduler."),
    setting(BatchOptions, "fail_fast", "--fail-fast", is_flag=True, help="Begin no scene after one has failed."),
)  # fmt: skip


def need_all_bands(output: OutputOptions) -> None:
    """Refuse chosen bands where a page is asked for, which judges the result against every band of the MS.

    Raises:
        UsageError: bands were chosen.
    """
    if output.bands is not None:
        raise click.UsageError("--report judges every band of the MS: give it without --out-bands")


def need_ms(pan: str, ms: tuple[str, ...]) -> None:
    """Refuse a PAN alone, unless it is a delivery that may hold both.

    Raises:
        click.UsageError: the MS is missing.
    """
    if ms:
        return
    from crossdiff_cli.cli.failures import one_line_errors

    with one_line_errors():
        from crossdiff_cli.io.inputs import is_delivery

        known = is_delivery(pan)
    if not known:
        raise click.UsageError(
            f"Missing argument 'MS...': {pan} is neither a folder nor a metadata file of a delivery, "
            "so the multispectral image has to follow it."
        )
