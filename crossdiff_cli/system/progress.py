"""Report the progress of a run in megapixels: a bar on a terminal, else one log line a minute."""

import logging
import os
import sys
import time

from tqdm import tqdm

_log = logging.getLogger(__name__)

_LOG_EVERY_S = 60.0
_INTERVAL = "CROSSDIFF_PROGRESS_SECONDS"
"""Environment variable that sets another number of seconds between log lines."""


class Progress:
    """Reports how many of the pixels of a run are done, how many a second, and how long the rest takes."""

    def __init__(self, pixels: int, *, shown: bool) -> None:
        """Begin.

        Args:
            pixels: of the whole run.
            shown: whether there is a bar, on a standard error that is a terminal.
        """
        self._pixels, self._done = pixels, 0
        self._log_every_s = _interval()
        self._started = self._logged = time.monotonic()
        self._bar = tqdm(
            total=pixels / 1e6, unit="Mpx", file=sys.stderr, disable=None if shown else True,
            bar_format="{l_bar}{bar}| {n:.1f}/{total:.1f} Mpx [{elapsed}<{remaining}, {rate_fmt}]",
        )  # fmt: skip

    def add(self, pixels: int) -> None:
        """Count pixels that are done."""
        self._done += pixels
        self._bar.update(pixels / 1e6)
        now = time.monotonic()
        if self._bar.disable and now - self._logged >= self._log_every_s:
            self._logged, rate = now, self._done / (now - self._started)
            _log.info(
                "%.0f of %.0f Mpx (%.0f %%), %.2f Mpx/s, %.0f min left",
                self._done / 1e6, self._pixels / 1e6, 100 * self._done / self._pixels, rate / 1e6,
                (self._pixels - self._done) / rate / 60,
            )  # fmt: skip

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()


def _interval() -> float:
    try:
        return max(0.0, float(os.environ.get(_INTERVAL, _LOG_EVERY_S)))
    except ValueError:
        return _LOG_EVERY_S
