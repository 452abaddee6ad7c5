"""Where the heads lie that a user has adapted: one weight file per sensor, in the user's own folder."""

import os
import re
from pathlib import Path

import click

from crossdiff_cli.errors import SensorError
from crossdiff_cli.sensors import find_sensor

HOME = "CROSSDIFF_HOME"
"""Environment variable that names another folder."""


def head_path(sensor: str) -> Path:
    """Where the head of a sensor is kept, whether it exists or not; an alias leads to the same file as the key.

    Raises:
        SensorError: the name cannot be a file name.
    """
    try:
        key = find_sensor(sensor).key
    except SensorError:
        key = sensor.lower()
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", key):
        raise SensorError(f"sensor name {sensor!r}: use letters, digits, '-', '_' and '.'")
    return Path(os.environ.get(HOME) or click.get_app_dir("crossdiff")) / "heads" / f"{key}.safetensors"


def own_head(sensor: str) -> Path | None:
    """The head that was adapted to a sensor, or None; `auto` has none."""
    path = None if sensor == "auto" else head_path(sensor)
    return path if path is not None and path.is_file() else None
