"""One scene of a batch: sharpened, or the reason why not, whatever goes wrong with it."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from crossdiff_cli.batch.manifest import Scene
from crossdiff_cli.errors import CrossDiffError, OutputError
from crossdiff_cli.model.weights import WeightStore
from crossdiff_cli.options import PairOptions, SharpenOptions
from crossdiff_cli.system.atomic import remove_leftovers
from crossdiff_cli.tasks.sharpen import sharpen

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a scene."""

    name: str
    status: Literal["ok", "failed", "skipped"]
    reason: str | None = None
    """Why it failed or was skipped, one line."""
    seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)
    """`SharpenResult.as_dict()` of a scene that was sharpened, and where there is a page, its path and figures."""
    warnings: tuple[str, ...] = ()
    """What was assumed or looked odd."""

    def as_dict(self) -> dict[str, Any]:
        """Plain types for a line of JSON."""
        line = {"name": self.name, "status": self.status, "reason": self.reason, "seconds": round(self.seconds, 3)}
        return {**line, **self.facts, "warnings": list(self.warnings)}

    def line(self) -> str:
        """For a human reader."""
        end = f", {self.seconds:.1f} s" if self.reason is None else f": {self.reason}"
        remark = f" ({len(self.warnings)} warnings)" if self.warnings else ""
        return f"{self.name}: {self.status}{end}{remark}"


def attempt(scene: Scene, options: SharpenOptions, store: WeightStore) -> Outcome:
    """Sharpen one scene; what goes wrong becomes the reason of its failure. Only an end of the process goes through.

    What a process that was killed left beside the result in an earlier try is removed.
    """
    started = time.monotonic()
    options = scene.applied_to(options)
    with _listening() as warnings:
        try:
            _make_folder(scene.output.parent)
            remove_leftovers(scene.output)
            result = sharpen(scene.pan, scene.ms, scene.output, options, store)
            facts = result.as_dict() | _page_facts(scene, options.pair)
        except CrossDiffError as error:
            reason = str(error)
        except MemoryError:
            reason = "out of memory: a smaller --tile or fewer --jobs use less"
        except Exception as error:
            _log.debug("%s", scene.name, exc_info=True)
            reason = f"{type(error).__name__}: {error}"
        else:
            return Outcome(scene.name, "ok", None, result.seconds, facts, tuple(warnings))
    return Outcome(scene.name, "failed", one_line(reason), time.monotonic() - started, {}, tuple(warnings))


def _page_facts(scene: Scene, pair: PairOptions) -> dict[str, Any]:
    """Write the page about a result, where there is to be one; return where it is and the figures on it."""
    if scene.report is None:
        return {}
    from crossdiff_cli.report.page import report_on

    report = report_on(scene.output, scene.pan, scene.ms, pair, scene.report)
    figures = report.as_dict()
    return {"report": str(scene.report), "hqnr": figures["hqnr"], "d_rho": figures["d_rho"]}


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError("the folder cannot be made", path=folder, found=error.strerror) from error


def one_line(text: str) -> str:
    """A reason that fits into a log."""
    return " ".join(text.split())


class _Listener(logging.Handler):
    """Keeps the warnings of its own thread: a process may have a scene in each."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.heard: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.heard.append(one_line(record.getMessage()))


@contextmanager
def _listening() -> Iterator[list[str]]:
    """What is warned of while the context lasts."""
    listener = _Listener()
    logging.getLogger().addHandler(listener)
    try:
        yield listener.heard
    finally:
        logging.getLogger().removeHandler(listener)
