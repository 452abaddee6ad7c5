"""How long the threads of a run read, fuse and write, added up."""

import threading
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class StageTimes:
    """Seconds of each stage, over all threads; where stages overlap they add up to more than the run took."""

    def __init__(self) -> None:
        """Begin with no stage."""
        self._seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of each stage, in the order in which they first ended."""
        with self._lock:
            return dict(self._seconds)

    def timed(self, stage: str, call: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
        """Return `call`, whose time counts for `stage`, also where it fails."""

        def timed(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
            started = time.monotonic()
            try:
                return call(*args, **kwargs)
            finally:
                taken = time.monotonic() - started
                with self._lock:
                    self._seconds[stage] = self._seconds.get(stage, 0.0) + taken

        return timed
