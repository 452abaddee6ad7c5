"""How a command ends when something is wrong: one line and exit code 1; 130 and 143 where it was told to end."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import TracebackType

import click

from crossdiff_cli.errors import CrossDiffError, PathError
from crossdiff_cli.system.signals import orderly_end, undone_by


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what a user can meet into one line and exit code 1, and have Ctrl-C and SIGTERM end it in order."""
    sys.excepthook, sys.unraisablehook = _excepthook, _unraisable
    try:
        with orderly_end(), undone_by(partial(click.echo, "\nAborted!", err=True)):
            yield
    except CrossDiffError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        if error.filename is None or error.errno == errno.EPIPE:
            raise
        raise click.ClickException(str(PathError(f"{error.filename}: {error.strerror}"))) from error
    except MemoryError as error:
        raise click.ClickException("out of memory: a smaller --tile uses less") from error
    finally:
        sys.excepthook, sys.unraisablehook = sys.__excepthook__, sys.__unraisablehook__


# A message of GDAL in another encoding cannot be logged by rasterio, which prints a traceback in passing; the error
# that GDAL meant is raised all the same.
def _excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if kind is not UnicodeDecodeError:
        sys.__excepthook__(kind, error, trace)


def _unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    if unraisable.exc_type is not UnicodeDecodeError:
        sys.__unraisablehook__(unraisable)
