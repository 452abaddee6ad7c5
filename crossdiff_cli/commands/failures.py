"""How a command ends when something is wrong: one line and exit code 1; 130 and 143 where it was told to end."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

from crossdiff_cli.errors import CrossDiffError


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what a user can meet into one line and exit code 1, Ctrl-C and SIGTERM into an orderly end."""
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except CrossDiffError as error:
        raise click.ClickException(str(error)) from error
    except MemoryError as error:
        raise click.ClickException("out of memory: a smaller --tile uses less") from error
    except KeyboardInterrupt as error:
        raise SystemExit(128 + signal.SIGINT) from error
    finally:
        signal.signal(signal.SIGTERM, previous)


def _terminate(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
