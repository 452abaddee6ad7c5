"""Sensors that the table lacks: defined by a TOML file or by options, and kept in the user's own folder."""

import json
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crossdiff_cli.errors import OutputError, SensorError
from crossdiff_cli.sensors.table import (
    DEFAULT_NYQUIST_GAIN,
    DEFAULT_PAN_NYQUIST_GAIN,
    Band,
    Sensor,
    canonical_band,
    find_sensor,
    in_table,
    nominal_band,
)
from crossdiff_cli.system.atomic import replacing
from crossdiff_cli.system.paths import exists, is_file, user_folder

_LARGEST_FILE = 65536
_SHORTEST_NM, _LONGEST_NM = 100.0, 30000.0
_KEY = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_FIELDS = {"name", "key", "ratio", "pan_nm", "pan_nyquist_gain", "bit_depth", "bands"}
_BAND_FIELDS = {"name", "center_nm", "width_nm", "nyquist_gain"}


def file_key(sensor: str) -> str:
    """The key under which things of a sensor are kept: that of the table for its aliases, else the name in lower case.

    Raises:
        SensorError: the name cannot be a file name, or names a definition that is malformed.
    """
    if _is_file(sensor):
        return read_definition(Path(sensor)).key
    try:
        return find_sensor(sensor).key
    except SensorError:
        key = sensor.lower()
    if not _KEY.fullmatch(key):
        raise SensorError("a sensor name may have letters, digits, '-', '_' and '.' only", found=repr(sensor))
    return key


def named_sensor(name: str) -> Sensor:
    """What `--sensor` means: a TOML file, a sensor of the table by key or alias, or one that the user has defined.

    Raises:
        SensorError: there is none, or its definition is malformed.
    """
    if _is_file(name):
        return read_definition(Path(name))
    try:
        return find_sensor(name)
    except SensorError:
        own = user_folder() / "sensors" / f"{name.lower()}.toml"
        if _KEY.fullmatch(name.lower()) and is_file(own):
            return read_definition(own)
        raise


def own_sensors() -> list[Sensor]:
    """The sensors that the user has defined; malformed definitions are left out."""
    found = []
    for path in sorted((user_folder() / "sensors").glob("*.toml")):
        try:
            found.append(read_definition(path))
        except SensorError:
            continue
    return found


def define(
    name: str,
    bands: Sequence[str],
    wavelengths: Sequence[tuple[float, float]] = (),
    gains: Sequence[float] = (),
    pan_nm: tuple[float, float] = (450.0, 800.0),
    pan_gain: float = DEFAULT_PAN_NYQUIST_GAIN,
    ratio: float = 1.0,
) -> Sensor:
    """Define a sensor by what the command line says.

    Args:
        name: becomes its key, in lower case.
        bands: names in file order.
        wavelengths: centre and full width of each in nm; without any, the nominal ones of the bands' names.
        gains: Nyquist gain of each, or one for all; without any, the usual 0.30.
        pan_nm: lower and upper edge of the PAN band.
        pan_gain: Nyquist gain of the PAN.
        ratio: GSD of the MS over that of the PAN; 1 where it is not told.

    Raises:
        SensorError: counts that differ, or numbers out of range.
    """
    for what, values in (("--wavelengths", wavelengths), ("--mtf", gains if len(gains) != 1 else ())):
        if values and len(values) != len(bands):
            raise SensorError(
                f"{what} does not have one value per band ({','.join(bands)})", found=len(values), expected=len(bands)
            )
    each = list(gains) * len(bands) if len(gains) == 1 else list(gains) or [DEFAULT_NYQUIST_GAIN] * len(bands)
    described: list[dict[str, Any]] = [
        {"name": band, "nyquist_gain": gain} for band, gain in zip(bands, each, strict=True)
    ]
    for row, (center, width) in zip(described, wavelengths, strict=False):
        row |= {"center_nm": center, "width_nm": width}
    table = {"ratio": ratio, "pan_nm": list(pan_nm), "pan_nyquist_gain": pan_gain, "bands": described}
    return _sensor({"name": name, "key": file_key(name), **table}, f"sensor {name!r}")


def keep(sensor: Sensor, *, replace: bool = False) -> Path:
    """Keep a definition where `named_sensor` finds it by its key.

    Raises:
        SensorError: the table has a sensor of that name.
        OutputError: another definition is kept under that key and `replace` is not said, or it cannot be written.
    """
    if in_table(sensor.key):
        raise SensorError(
            f"the name {sensor.key!r} belongs to {find_sensor(sensor.key).name}", cure="give your sensor another name"
        )
    path = user_folder() / "sensors" / f"{sensor.key}.toml"
    text = _toml(sensor)
    if exists(path) and not replace and path.read_text(encoding="utf-8") != text:
        raise OutputError(f"it defines {sensor.key!r} otherwise", path=path, cure="--force replaces it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError("it cannot be written", path=path, found=error.strerror) from error
    return path


def read_definition(path: Path) -> Sensor:
    """Read a sensor from a TOML file: `ratio`, `pan_nm = [low, high]` and `[[bands]]`, in file order.

    A band has a `name`; `center_nm`, `width_nm` and `nyquist_gain` where they differ from what is usual for that name.
    `name`, `key` (else the name of the file), `pan_nyquist_gain` and `bit_depth` may be given.

    Raises:
        SensorError: the file cannot be read, or what it says is incomplete or out of range.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise SensorError(
                "it is too large for a sensor definition", path=path, expected=f"at most {_LARGEST_FILE} bytes"
            )
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SensorError("the sensor definition cannot be read", path=path, found=error.strerror) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SensorError("it is not a TOML file", path=path, found=str(error)) from error
    return _sensor({"key": path.stem.lower(), **table}, str(path))


def _is_file(name: str) -> bool:
    return name.lower().endswith(".toml")


def _sensor(table: dict[str, Any], where: str) -> Sensor:
    _known(table, _FIELDS, where)
    rows = table.get("bands")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise SensorError("it defines no bands", path=where, cure="write [[bands]] with a name for each, in file order")
    bands = tuple(_band(row, where) for row in rows)
    names = tuple(band.name for band in bands)
    if len(set(names)) < len(names):
        raise SensorError("it names a band twice", path=where, found=",".join(names))
    key = str(table["key"])
    if not _KEY.fullmatch(key):
        raise SensorError(
            "the key may have lower-case letters, digits, '-', '_' and '.' only", path=where, found=repr(key)
        )
    pan = table.get("pan_nm", [450.0, 800.0])
    if not isinstance(pan, list) or len(pan) != 2:
        raise SensorError("pan_nm is not a range in nm", path=where, found=repr(pan), expected="[low, high]")
    low, high = (_number({"pan_nm": edge}, "pan_nm", where, _SHORTEST_NM, _LONGEST_NM) for edge in pan)
    if low >= high:
        raise SensorError("pan_nm does not rise", path=where, found=f"{low:g} to {high:g} nm")
    return Sensor(
        key=key,
        name=str(table.get("name", key)),
        aliases=(),
        layouts=(names,),
        bands=bands,
        ratio=_number(table, "ratio", where, 1.0, 20.0, 1.0),
        pan_nm=(low, high),
        pan_nyquist_gain=_number(table, "pan_nyquist_gain", where, 0.01, 0.99, DEFAULT_PAN_NYQUIST_GAIN),
        bit_depth=round(_number(table, "bit_depth", where, 1, 32, 11)),
        mtf_published=any("nyquist_gain" in row for row in rows),
    )


def _band(row: dict[str, Any], where: str) -> Band:
    name = row.get("name")
    if not isinstance(name, str) or not name.strip():
        raise SensorError("a band has no name", path=where)
    _known(row, _BAND_FIELDS, f"{where}, band {name}")
    canonical = canonical_band(name)
    if canonical is None and not {"center_nm", "width_nm"} <= row.keys():
        raise SensorError(f"the band {name!r} is not a usual one", path=where, cure="give its center_nm and width_nm")
    usual = nominal_band(canonical) if canonical else Band(name, 0.0, 0.0)
    return Band(
        canonical or name,
        _number(row, "center_nm", where, _SHORTEST_NM, _LONGEST_NM, usual.center_nm),
        _number(row, "width_nm", where, 0.1, _LONGEST_NM, usual.width_nm),
        _number(row, "nyquist_gain", where, 0.01, 0.99, DEFAULT_NYQUIST_GAIN),
    )


def _known(table: dict[str, Any], fields: set[str], where: str) -> None:
    if unknown := sorted(table.keys() - fields):
        raise SensorError(
            "it has unknown entries", path=where, found=", ".join(unknown), expected=", ".join(sorted(fields))
        )


def _number(
    table: dict[str, Any], field: str, where: str, low: float, high: float, default: float | None = None
) -> float:
    value = table.get(field, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise SensorError(
            f"{field} is out of range", path=where, found=repr(value), expected=f"a number from {low:g} to {high:g}"
        )
    return float(value)


def _toml(sensor: Sensor) -> str:
    lines = [
        f"name = {json.dumps(sensor.name)}",
        f"key = {json.dumps(sensor.key)}",
        f"ratio = {sensor.ratio!r}",
        f"pan_nm = [{sensor.pan_nm[0]!r}, {sensor.pan_nm[1]!r}]",
        f"pan_nyquist_gain = {sensor.pan_nyquist_gain!r}",
        f"bit_depth = {sensor.bit_depth}",
    ]
    for band in sensor.bands:
        lines += [
            "",
            "[[bands]]",
            f"name = {json.dumps(band.name)}",
            f"center_nm = {band.center_nm!r}",
            f"width_nm = {band.width_nm!r}",
            f"nyquist_gain = {band.nyquist_gain!r}",
        ]
    return "\n".join(lines) + "\n"
