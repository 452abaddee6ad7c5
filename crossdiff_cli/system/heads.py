"""Where the heads lie that a user has adapted: one weight file per sensor, in the user's own folder."""

from pathlib import Path

from crossdiff_cli.sensors.definitions import file_key, home
from crossdiff_cli.system.paths import is_file


def head_path(sensor: str) -> Path:
    """Where the head of a sensor is kept, whether it exists or not; an alias leads to the same file as the key.

    Raises:
        SensorError: the name cannot be a file name.
    """
    return home() / "heads" / f"{file_key(sensor)}.safetensors"


def own_head(sensor: str) -> Path | None:
    """The head that was adapted to a sensor, or None; `auto` has none."""
    path = None if sensor == "auto" else head_path(sensor)
    return path if path is not None and is_file(path) else None
