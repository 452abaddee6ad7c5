"""What lies at a path that anyone may have written: on a command line, in a manifest, in a delivery's metadata.

A path that no file can have (too long, a zero byte in it) has nothing there; one that may not be looked at is an error.
"""

import errno
import os
import stat
import sys
from pathlib import Path

from crossdiff_cli.errors import PathError

HOME = "CROSSDIFF_HOME"
"""Environment variable that names the user's own folder; default the usual place for application data."""
_NOTHING = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EBADF, errno.EINVAL)


def user_folder() -> Path:
    """Return the user's own folder, whether it exists or not: adapted heads and sensor definitions lie in it."""
    if told := os.environ.get(HOME):
        return Path(told)
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA") or home) / "crossdiff"
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "crossdiff"
    return Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "crossdiff"


def exists(path: Path) -> bool:
    """Whether anything is there, links followed.

    Raises:
        PathError: it may not be looked at, or its links lead in a circle.
    """
    return _mode(path) is not None


def is_file(path: Path) -> bool:
    """Whether a regular file is there.

    Raises:
        PathError: as `exists`.
    """
    return stat.S_ISREG(_mode(path) or 0)


def is_folder(path: Path) -> bool:
    """Whether a folder is there.

    Raises:
        PathError: as `exists`.
    """
    return stat.S_ISDIR(_mode(path) or 0)


def is_stream(path: Path) -> bool:
    """Whether a pipe, a socket or a device is there.

    Raises:
        PathError: as `exists`.
    """
    mode = _mode(path)
    return mode is not None and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except ValueError:  # a zero byte, or half a letter
        return None
    except OSError as error:
        if error.errno in _NOTHING:
            return None
        raise PathError("the path cannot be accessed", path=path, found=error.strerror) from error
