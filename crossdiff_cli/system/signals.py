"""How a process ends that is told to, by Ctrl-C, SIGTERM or a lost terminal: it undoes what it has begun and is gone.

The handler does all of it. An exception raised from it would come up wherever Python is just then: inside a callback
that swallows it, or in the way out of a context, so that files are closed from which threads still read.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_SIGNALS = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
_undo: list[Callable[[], None]] = []


@contextmanager
def undone_by(undo: Callable[[], None]) -> Iterator[None]:
    """Have `undo` called if the process is told to end while the context lasts; the newest first."""
    _undo.append(undo)
    try:
        yield
    finally:
        _undo.remove(undo)


@contextmanager
def orderly_end() -> Iterator[None]:
    """While the context lasts, SIGINT, SIGTERM and SIGHUP undo what was begun and end the process with 128 + number.

    Only the main thread can say so; in others nothing changes. A second Ctrl-C does not wait for what the first one has
    begun to undo; a second SIGTERM or SIGHUP changes nothing. A signal that is ignored, as in a shell's background jobs
    or under nohup, stays so.
    """
    main = threading.current_thread() is threading.main_thread()
    told = [number for number in _SIGNALS if main and signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, _end) for number in told}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _end(number: int, _frame: FrameType | None) -> None:
    for other in _SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for undo in reversed(_undo):
            with suppress(BaseException):
                undo()
    finally:  # a second Ctrl-C may come between two of them
        os._exit(128 + number)
