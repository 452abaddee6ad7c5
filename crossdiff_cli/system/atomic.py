"""Files that are written hidden beside their target, `.NAME.HOST-PID-RANDOM.tmp`, and take its place when complete."""

import errno
import os
import re
import secrets
import shutil
import socket
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from glob import escape
from pathlib import Path

from crossdiff_cli.system.signals import undone_by

_OWNER = re.compile(r"(?P<host>[0-9a-f]{6})-(?P<pid>\d+)-[0-9a-f]{4}\.tmp")


def follow_links(path: Path) -> Path:
    """Return where a file at `path` is written: the file that a symbolic link points to, which need not exist."""
    with suppress(OSError, ValueError, RuntimeError):  # no file can be there, or links lead in a circle
        return path.resolve() if path.is_symlink() else path
    return path


def hidden_beside(path: Path, suffix: str = "") -> Path:
    """Return the hidden file of this process for the target `path`; names that begin so are its own, too."""
    path = follow_links(path)
    return path.with_name(f".{path.name}.{_host()}-{os.getpid()}-{_random(os.getpid())}.tmp{suffix}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a file to write: left without error, the context moves it to `path`; else nothing of it stays.

    Where `path` is a symbolic link the file that it points to is replaced, and the link stays.

    Raises:
        OSError: it cannot be moved there.
    """
    remove_abandoned(path)
    temporary = hidden_beside(path)
    with undone_by(partial(temporary.unlink, missing_ok=True)):
        try:
            temporary.touch()
            mode = temporary.stat().st_mode
            yield temporary
            temporary.chmod(mode)  # safetensors makes files that nobody else may read
            temporary.replace(follow_links(path))
        finally:
            temporary.unlink(missing_ok=True)


def move_into_place(done: Path, path: Path) -> None:
    """Move a complete file to `path`, or to where a link at `path` points, on another disk too.

    Raises:
        OSError: it cannot be moved there.
    """
    try:
        done.replace(follow_links(path))
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with replacing(path) as temporary:
            shutil.copyfile(done, temporary)
        done.unlink()


def remove_leftovers(path: Path, pid: int | None = None) -> None:
    """Remove what a process left beside its target `path` that was killed.

    Args:
        path: the target.
        pid: of a process of this machine; None for every process of any machine, which must all have ended.
    """
    path = follow_links(path)
    whose = "*" if pid is None else f"{_host()}-{pid}-*"
    with suppress(OSError, ValueError):  # no such folder can be, or it is not ours
        for leftover in path.parent.glob(f".{escape(path.name)}.{whose}.tmp*"):
            _remove(leftover)


def remove_abandoned(path: Path) -> None:
    """Remove what processes of this machine left beside their target `path` that were killed and run no longer."""
    path = follow_links(path)
    for leftover in path.parent.glob(f".{escape(path.name)}.*.tmp*"):
        owner = _OWNER.match(leftover.name.removeprefix(f".{path.name}."))
        if owner and owner["host"] == _host() and not _runs(int(owner["pid"])):
            with suppress(OSError):  # another's
                _remove(leftover)


@cache
def _host() -> str:
    """Return six hexadecimal digits that tell this machine from others on one disk."""
    return f"{zlib.crc32(socket.gethostname().encode()) & 0xFFFFFF:06x}"


@cache
def _random(_pid: int) -> str:
    """Return four hexadecimal digits, the same for a process as long as it runs: machines may share a name."""
    return secrets.token_hex(2)


def _remove(leftover: Path) -> None:
    shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
