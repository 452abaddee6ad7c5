"""What is kept of a batch: a line of JSON for each scene, and a summary."""

import json
import logging
import time
from collections import Counter
from pathlib import Path
from typing import Any

from crossdiff_cli.batch.outcome import Outcome
from crossdiff_cli.errors import OutputError

_log = logging.getLogger(__name__)

TABLE_ROWS = 60
"""Scenes up to which the table is printed: results of more are read from --results."""
_NAMED = 20
"""Failures that the summary names."""


class Record:
    """Counts outcomes and appends each to a file, so that nothing is lost when the batch is killed."""

    def __init__(self, scenes: int, path: Path | None) -> None:
        """Begin with none of `scenes`.

        Raises:
            OutputError: `path` cannot be written, or holds something else.
        """
        self.scenes = scenes
        self.failures: list[Outcome] = []
        self.lines: list[dict[str, Any]] = []
        """`Outcome.as_dict()` of each scene so far."""
        self._counts: Counter[str] = Counter()
        self._warned = 0
        self._begun = time.monotonic()
        self._path = path
        if path is not None:
            try:
                with path.open("a+b") as file:
                    file.seek(0)
                    if file.read(1) not in (b"", b"{"):
                        raise OutputError(
                            "it holds no lines of JSON that --results could add to", path=path, cure="name another file"
                        )
            except OSError as error:
                raise OutputError("the results cannot be written", path=path, found=error.strerror) from error

    @property
    def done(self) -> int:
        """Scenes of which the outcome is known."""
        return self._counts.total()

    def add(self, outcome: Outcome) -> str:
        """Take up an outcome; returns its line of JSON."""
        self._counts[outcome.status] += 1
        if outcome.status == "failed":
            self.failures.append(outcome)
        self._warned += bool(outcome.warnings)
        self.lines.append(outcome.as_dict())
        line = json.dumps(self.lines[-1])
        if self._path is not None:
            try:
                # One unbuffered write to the end: several shards may share the file.
                with self._path.open("ab", buffering=0) as file:
                    file.write(f"{line}\n".encode())
            except OSError as error:
                _log.error("cannot write the result of %s to %s: %s", outcome.name, self._path, error.strerror)
        return line

    def table(self) -> str:
        """One line for each scene that was sharpened; empty for more than `TABLE_ROWS` of them."""
        rows = [line for line in self.lines if line["status"] == "ok"]
        if not rows or len(rows) > TABLE_ROWS:
            return ""
        width = max(5, *(len(line["name"]) for line in rows))
        lines = [
            f"{'scene':{width}}  {'sensor':9} {'bands':>5} {'ratio':>6} {'s':>7} {'Mpx/s':>6} {'HQNR':>7} warnings"
        ]
        for line in rows:
            hqnr = line.get("hqnr")
            lines.append(
                f"{line['name']:{width}}  {line['sensor']:9} {len(line['bands']):5} {line['ratio']:6.4g} "
                f"{line['seconds']:7.1f} {line['mpx_per_s']:6.2f} {'-' if hqnr is None else format(hqnr, '.4f'):>7} "
                f"{len(line['warnings'])}"
            )
        return "\n".join(lines)

    def summary(self) -> str:
        """What became of the scenes, and the reason of each failure."""
        counts = self._counts
        parts = [f"{counts['ok']} sharpened", f"{counts['skipped']} skipped", f"{counts['failed']} failed"]
        if self.done < self.scenes:
            parts.append(f"{self.scenes - self.done} not finished")
        lines = [f"{self.scenes} scenes: {', '.join(parts)}, {time.monotonic() - self._begun:.0f} s"]
        lines += [f"  {outcome.name}: {outcome.reason}" for outcome in self.failures[:_NAMED]]
        if len(self.failures) > _NAMED:
            lines.append(f"  ... and {len(self.failures) - _NAMED} more that failed")
        if self._warned:
            lines.append(f"  {self._warned} scenes with warnings: -v prints them, --results FILE keeps them")
        return "\n".join(lines)
