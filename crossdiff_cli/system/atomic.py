"""Files that are written hidden beside their target, `.name.PID.tmp`, and take its place only when complete."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from glob import escape
from pathlib import Path

from crossdiff_cli.system.signals import undone_by


def hidden_beside(path: Path, suffix: str = "") -> Path:
    """The hidden file of this process for the target `path`; names that begin so are taken, too."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp{suffix}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write: left without error, the context moves it to `path`; else nothing of it stays.

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
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def remove_leftovers(path: Path, pid: int | None = None) -> None:
    """Remove what a process that was killed left beside its target `path`; `pid` None: whichever process."""
    with suppress(OSError, ValueError):  # no such folder can be, or it is not ours
        for leftover in path.parent.glob(f".{escape(path.name)}.{'*' if pid is None else pid}.tmp*"):
            _remove(leftover)


def remove_abandoned(path: Path) -> None:
    """Remove what processes left beside their target `path` that were killed in mid-scene and run no longer."""
    for leftover in path.parent.glob(f".{escape(path.name)}.*.tmp*"):
        pid = leftover.name.removeprefix(f".{path.name}.").partition(".")[0]
        if pid.isdecimal() and not _runs(int(pid)):
            with suppress(OSError):  # another's
                _remove(leftover)


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
