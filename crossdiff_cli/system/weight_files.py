"""The weight files that come with the program, by name."""

from importlib.resources import as_file, files
from pathlib import Path

from crossdiff_cli.errors import WeightsError

SHIPPED = {"open": "crossdiff.safetensors", "all": "crossdiff-all.safetensors"}
"""Files by the scenes they have seen: those under an open licence, or vendors' imagery too."""
DEFAULT = "open"


def shipped_weights(name: str = DEFAULT) -> Path:
    """Path of the file that comes with the program under a name of `SHIPPED`.

    Raises:
        WeightsError: the installation has none.
    """
    with as_file(files("crossdiff_weights") / SHIPPED[name]) as path:
        if not path.is_file():
            raise WeightsError(f"this installation has no {SHIPPED[name]}; name a weight file with --weights")
        return path


def no_weights(path: Path) -> WeightsError:
    """What is said of a weight file that is not there."""
    return WeightsError(f"no weight file {path}; those that come with the program are called {' and '.join(SHIPPED)}")
