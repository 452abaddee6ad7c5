"""Where weight files lie: the bundled ones by name, adapted heads by the key of their sensor."""

from importlib.resources import as_file, files
from pathlib import Path

from crossdiff_cli.errors import WeightsError
from crossdiff_cli.system.paths import is_file, user_folder

BUNDLED = {"open": "crossdiff.safetensors", "all": "crossdiff-all.safetensors"}
"""Files by the scenes they have seen: those under an open licence, or vendors' imagery too."""
DEFAULT = "all"


def bundled_weights(name: str = DEFAULT) -> Path:
    """Path of the file that comes with the program under a name of `BUNDLED`.

    Raises:
        WeightsError: the installation has none.
    """
    with as_file(files("crossdiff_weights") / BUNDLED[name]) as path:
        if not path.is_file():
            raise WeightsError(f"this installation has no {BUNDLED[name]}", cure="name a weight file with --weights")
        return path


def no_weights(path: Path) -> WeightsError:
    """What is said of a weight file that is not there."""
    return WeightsError(f"no weight file {path}; those that come with the program are called {' and '.join(BUNDLED)}")


def adapted_head_path(key: str) -> Path:
    """Return where the head adapted to the sensor `key` is kept, whether it exists or not."""
    return user_folder() / "heads" / f"{key}.safetensors"


def find_adapted_head(key: str) -> Path | None:
    """Return the weight file with the head adapted to the sensor `key`, or None if there is none."""
    path = adapted_head_path(key)
    return path if is_file(path) else None
