"""Click options and parameter types shared by commands. No torch, rasterio or numpy here: `--help` stays quick."""

import logging
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from crossdiff_cli.errors import WeightsError
from crossdiff_cli.system.weight_files import BUNDLED, bundled_weights

INPUT = click.Path(readable=False)
"""Anything GDAL opens: nothing is checked, but the shell completes file names."""


class Weights(click.ParamType):  # type: ignore[type-arg] # generic in the newest click only
    """A weight file, or the name, in any case, of one that comes with the program."""

    name = f"FILE|{'|'.join(BUNDLED)}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path; whether a file is there and holds weights is seen by whoever reads it."""
        name = str(value).lower()
        if name not in BUNDLED:
            return Path(value)
        try:
            return bundled_weights(name)
        except WeightsError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Names and files."""
        names = [CompletionItem(name) for name in BUNDLED if name.startswith(incomplete)]
        return [*names, CompletionItem(incomplete, type="file")]


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


class Numbers(click.ParamType):  # type: ignore[type-arg] # generic in the newest click only
    """Comma-separated numbers: `0.3,0.28`."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Split at commas."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is no list of numbers like 0.3,0.28", param, ctx)


class MtfGains(click.ParamType):  # type: ignore[type-arg] # generic in the newest click only
    """`auto`, `table`, or comma-separated Nyquist gains: `0.3,0.28`."""

    name = "auto|table|G,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str | tuple[float, ...]:
        """Return the word, or the gains."""
        if isinstance(value, tuple) or value in ("auto", "table"):
            return value
        try:
            return tuple(float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is neither auto nor table nor a list of Nyquist gains like 0.3,0.28", param, ctx)


class PanMtfGain(click.ParamType):  # type: ignore[type-arg] # generic in the newest click only
    """`auto`, `table`, or a Nyquist gain."""

    name = "auto|table|G"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str | float:
        """Return the word, or the gain."""
        if isinstance(value, float) or value in ("auto", "table"):
            return value
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} is neither auto nor table nor a Nyquist gain like 0.15", param, ctx)


class Pairs(click.ParamType):  # type: ignore[type-arg] # generic in the newest click only
    """Comma-separated pairs of numbers: `480/60,550/70`."""

    name = "pairs"

    def __init__(self, between: str) -> None:
        """`between` the two numbers of a pair."""
        self.between = between

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[tuple[float, float], ...]:
        """Split at commas and within."""
        if isinstance(value, tuple):
            return value
        try:
            first = [part.split(self.between) for part in value.split(",")]
            return tuple((float(a), float(b)) for a, b in first)
        except ValueError:
            self.fail(f"{value!r} is no list of pairs like 480{self.between}560", param, ctx)


class Loss(click.ParamType):  # type: ignore[type-arg] # generic in the newest click only
    """A loss term and its weight: `structural=0.3`."""

    name = "TERM=WEIGHT"
    terms = ("spectral", "structural", "supervised", "qnr")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float]:
        """Split at `=`."""
        if isinstance(value, tuple):
            return value
        term, _, weight = value.partition("=")
        try:
            number = float(weight)
        except ValueError:
            number = -1.0
        if term not in self.terms or not 0 <= number < math.inf:
            self.fail(f"{value!r}: write a term ({', '.join(self.terms)}) and its weight, like qnr=1", param, ctx)
        return term, number


class Integers(click.ParamType):  # type: ignore[type-arg] # generic in the newest click only
    """Comma-separated integers: `1,2,3`."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Split at commas."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(int(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is no list of numbers like 1,2,3", param, ctx)


class OnOff(click.ParamType):  # type: ignore[type-arg] # generic in the newest click only
    """`auto` or `off`, for a setting that is on or off."""

    name = "auto|off"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bool:
        """Return whether it is on."""
        if isinstance(value, bool):
            return value
        if value not in ("auto", "off"):
            self.fail(f"{value!r} is neither auto nor off", param, ctx)
        return bool(value == "auto")


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


class Shard(click.ParamType):  # type: ignore[type-arg] # generic in the newest click only
    """Part I of N: `3/16`."""

    name = "I/N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Return (I, N), 1 <= I <= N."""
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d+)/(\d+)", value)
        part, parts = (int(match[1]), int(match[2])) if match else (0, 0)
        if not 1 <= part <= parts:
            self.fail(f"{value!r} is not of the form I/N with I from 1 to N, like 3/16", param, ctx)
        return part, parts


class Address(click.ParamType):  # type: ignore[type-arg] # generic in the newest click only
    """Where a dask scheduler listens: `tcp://HOST:PORT`."""

    name = "tcp://HOST:PORT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the form; whether a scheduler answers is seen later."""
        if not re.fullmatch(r"(tcp|tls|ws|wss|ucx)://\S+:\d+", value):
            self.fail(f"{value!r} is not of the form tcp://HOST:PORT", param, ctx)
        return str(value)


class BoundsBox(click.ParamType):  # type: ignore[type-arg] # generic in the newest click only
    """Four coordinates: `left,bottom,right,top`."""

    name = "L,B,R,T"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float, float, float]:
        """Split at commas or spaces, brackets allowed; check the order."""
        if isinstance(value, tuple):
            return value
        try:
            left, bottom, right, top = (float(part) for part in value.strip(" []()").replace(",", " ").split())
        except ValueError:
            self.fail(f"{value!r} is not of the form LEFT,BOTTOM,RIGHT,TOP", param, ctx)
        if not (left < right and bottom < top and all(map(math.isfinite, (left, bottom, right, top)))):
            self.fail(f"{value!r}: left must be less than right and bottom less than top", param, ctx)
        return left, bottom, right, top


def complete_sensor(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Sensor keys for the completion of a shell."""
    from crossdiff_cli.sensors.table import SENSORS

    return [CompletionItem(key, help=s.name) for key, s in SENSORS.items() if key.startswith(incomplete.lower())]


def verbosity_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`-q` and `-v`, before or after the name of the command; `is_quiet` tells what was said."""
    command = click.option(
        "-v", "--verbose", is_flag=True, expose_value=False, callback=_set_level(logging.DEBUG), help="Verbose log."
    )(command)
    return click.option(
        "-q", "--quiet", is_flag=True, expose_value=False, callback=_set_level(logging.ERROR), help="Log errors only."
    )(command)


def is_quiet() -> bool:
    """Whether only errors are wanted: no progress bar, no closing line."""
    return logging.getLogger("crossdiff_cli").getEffectiveLevel() >= logging.ERROR


def _set_level(level: int) -> Callable[[click.Context, click.Parameter, bool], None]:
    def set_level(_ctx: click.Context, _parameter: click.Parameter, given: bool) -> None:
        if given:
            logging.getLogger("crossdiff_cli").setLevel(level)
            # GDAL's own words; what ends the command is said by the command itself.
            logging.getLogger("rasterio").setLevel(logging.CRITICAL if level >= logging.ERROR else logging.WARNING)

    return set_level
