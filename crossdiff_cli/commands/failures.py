"""How a command ends when something is wrong: one line and exit code 1; 130 and 143 where it was told to end."""

import errno
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

import click

from crossdiff_cli.errors import CrossDiffError, PathError


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what a user can meet into one line and exit code 1, Ctrl-C and SIGTERM into an orderly end."""
    previous = signal.signal(signal.SIGTERM, _terminate)
    sys.excepthook, sys.unraisablehook = _excepthook, _unraisable
    try:
        yield
    except CrossDiffError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        if error.filename is None or error.errno == errno.EPIPE:
            raise
        raise click.ClickException(str(PathError(f"{error.filename}: {error.strerror}"))) from error
    except MemoryError as error:
        raise click.ClickException("out of memory: a smaller --tile uses less") from error
    except KeyboardInterrupt as error:
        raise SystemExit(128 + signal.SIGINT) from error
    finally:
        signal.signal(signal.SIGTERM, previous)
        sys.excepthook, sys.unraisablehook = sys.__excepthook__, sys.__unraisablehook__


def _terminate(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


# A message of GDAL in another encoding cannot be logged by rasterio, which prints a traceback in passing; the error
# that GDAL meant is raised all the same.
def _excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if kind is not UnicodeDecodeError:
        sys.__excepthook__(kind, error, trace)


def _unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    if unraisable.exc_type is not UnicodeDecodeError:
        sys.__unraisablehook__(unraisable)
