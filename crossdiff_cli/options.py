"""Click options and parameter types shared by commands. No torch, rasterio or numpy here: `--help` stays quick."""

import logging
import math
from collections.abc import Callable
from typing import Any

import click


class Names(click.ParamType):  # type: ignore[type-arg] # generic in the newest click only
    """Comma-separated names: `B,G,R,NIR`."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Split at commas; empty names are refused."""
        if isinstance(value, tuple):
            return value
        names = tuple(part.strip() for part in value.split(","))
        if not all(names):
            self.fail(f"{value!r} has an empty name; write names like B,G,R,NIR", param, ctx)
        return names


class Nodata(click.ParamType):  # type: ignore[type-arg] # generic in the newest click only
    """A number, `nan`, or `none`."""

    name = "number|nan|none"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        """Return a float, or the string `none`."""
        if isinstance(value, float) or value == "none":
            return value
        try:
            number = float(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number, nan nor none", param, ctx)
        if math.isinf(number):
            self.fail("infinity cannot mark missing pixels", param, ctx)
        return number


class Creation(click.ParamType):  # type: ignore[type-arg] # generic in the newest click only
    """A creation option of the output driver: `NAME=VALUE`."""

    name = "NAME=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Split at the first `=`; the value keeps its case."""
        if isinstance(value, tuple):
            return value
        name, equals, setting = value.partition("=")
        if not equals or not name:
            self.fail(f"{value!r} is not of the form NAME=VALUE", param, ctx)
        return name.strip(), setting.strip()


class TileSize(click.ParamType):  # type: ignore[type-arg] # generic in the newest click only
    """Side of a tile in PAN pixels, a positive multiple of 256, or `auto`."""

    name = "pixels|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """Check and return the integer, None for `auto`."""
        if value == "auto":
            return None
        try:
            size = int(value)
        except ValueError:
            size = 0
        if size <= 0 or size % 256:
            self.fail(f"{value!r} is neither auto nor a positive multiple of 256", param, ctx)
        return size


def sensor_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--sensor` and `--bands`, the same in every command that takes them."""
    command = click.option(
        "--bands",
        type=Names(),
        metavar="B,G,R,...",
        help="Names of the MS bands in file order, where the files do not say.",
    )(command)
    return click.option(
        "--sensor", default="auto", show_default=True, metavar="NAME", help="Sensor key, as in `crossdiff sensors`."
    )(command)


def device_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--device` and `--precision`."""
    command = click.option(
        "--precision",
        type=click.Choice(["auto", "fp32", "bf16"]),
        default="auto",
        show_default=True,
        help="Arithmetic of the network.",
    )(command)
    return click.option(
        "--device",
        default="auto",
        show_default=True,
        metavar="auto|cpu|cuda[:i]",
        help="Where to compute; sharpen takes several, with commas between.",
    )(command)


def verbosity_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`-q` and `-v`, before or after the name of the command; `is_quiet` tells what was said."""
    command = click.option(
        "-v", "--verbose", is_flag=True, expose_value=False, callback=_set_level(logging.DEBUG), help="Say more."
    )(command)
    return click.option(
        "-q", "--quiet", is_flag=True, expose_value=False, callback=_set_level(logging.ERROR), help="Only errors."
    )(command)


def is_quiet() -> bool:
    """Whether only errors are wanted: no progress bar, no closing line."""
    return logging.getLogger("crossdiff_cli").getEffectiveLevel() >= logging.ERROR


def _set_level(level: int) -> Callable[[click.Context, click.Parameter, bool], None]:
    def set_level(_ctx: click.Context, _parameter: click.Parameter, given: bool) -> None:
        if given:
            logging.getLogger("crossdiff_cli").setLevel(level)

    return set_level
