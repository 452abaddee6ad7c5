"""Damaged files given to the commands: each is refused in words or used, and nothing else may happen.

    python benchmarks/fuzz.py 5000 --seed 0
    python benchmarks/fuzz.py --only 1234 --keep folder     # one case again, with its files

GeoTIFFs, VRTs, IMD, XML, DIMAP, MTL and other sidecars, weights, checkpoints and manifests are damaged as `damage.py`
can, then opened by `info`, `sharpen` or the readers of the training. A finding is: an exception that is no one-line
error, a death of the process, no end within the time limit, more memory than the limit, an output or a temporary file
that is left after a failure, an output that cannot be read again or is not finite. Counts on stdout; exit code 1 where
there are findings.
"""

import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO, Any

import click
import numpy as np
import torch
from click.testing import CliRunner
from fuzz_files import Original, originals

from crossdiff_cli.cli.main import main as crossdiff
from crossdiff_cli.errors import CrossDiffError

SECONDS = 30
"""Time limit of one case."""
MEMORY = 1 << 30
"""Bytes that a case may need beyond what the idle process has."""
_SHARPENED = 0.08
"""Share of the damaged scenes that are sharpened; the others are only surveyed."""


@dataclass(frozen=True)
class Outcome:
    """What became of one case."""

    index: int
    kind: str
    damage: str
    verdict: str
    """`used`, `refused`, or what was found."""
    detail: str = ""


def run_case(index: int, seed: int, pool: list[Original], folder: Path) -> Outcome:
    """Damage one file and give it to the program; all follows from `index` and `seed`."""
    rng = np.random.default_rng((seed, index))
    original = pool[int(rng.choice(len(pool), p=np.array([o.weight for o in pool]) / sum(o.weight for o in pool)))]
    for name, content in original.files.items():
        (folder / name).write_bytes(content)
    victim = original.victims[int(rng.integers(len(original.victims)))]
    damage = original.damages[int(rng.integers(len(original.damages)))]
    before = original.files[victim]
    after = damage(before, rng)
    (folder / victim).write_bytes(after)
    result = folder / "result"
    result.mkdir()
    sharpened = original.command is None and rng.random() < _SHARPENED
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if original.read is not None:
        verdict, detail = _call(original.read, folder)
    else:
        arguments = original.arguments(folder, "sharpen" if sharpened else original.command or "info")
        verdict, detail = _invoke(arguments, result)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) << 10
    if grown > MEMORY and verdict in ("used", "refused"):
        verdict, detail = "memory", f"{grown >> 20} MiB"
    return Outcome(index, f"{original.kind}:{victim}", damage.__name__, verdict, detail)


def _call(read: Callable[[Path], Any], folder: Path) -> tuple[str, str]:
    try:
        read(folder)
    except CrossDiffError as error:
        return _refusal(str(error))
    except BaseException as error:
        return "traceback", repr(error)
    return "used", ""


def _invoke(arguments: list[str], result: Path) -> tuple[str, str]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        done = CliRunner().invoke(crossdiff, arguments)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        return "traceback", repr(done.exception)
    left = sorted(path.name for path in result.iterdir())
    if done.exit_code:
        if left:
            return "partial output", ", ".join(left)
        return _refusal(done.stderr)
    if left and left != ["out.tif"]:
        return "leftover", ", ".join(left)
    return _check_output(result / "out.tif") if left else ("used", "")


def _refusal(text: str) -> tuple[str, str]:
    lines = [line for line in text.strip().splitlines() if not line.startswith("WARNING")]
    if len(lines) != 1 or len(lines[0]) < 20:
        return "no clear line", repr(lines)[:300]
    return "refused", lines[0]


def _check_output(path: Path) -> tuple[str, str]:
    import rasterio

    with rasterio.open(path) as file:
        data, mask = file.read().astype("f8"), file.dataset_mask() > 0
    return ("used", "") if np.isfinite(data[:, mask]).all() else ("output not finite", "")


def worker(
    connection: Connection, seed: int, pool: list[Original], share: list[int], keep: Path | None, trace: bool
) -> None:
    """Run a share of the cases, each in a fresh folder, and report each over the connection."""
    torch.set_num_threads(1)
    limit = MEMORY * 2 + _virtual_memory()
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    if not trace:
        sys.stderr.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # GDAL's own complaints
    for index in share:
        folder = keep or Path(tempfile.mkdtemp(prefix="fuzz"))
        connection.send(index)
        try:
            connection.send(run_case(index, seed, pool, folder))
        finally:
            if keep is None:
                shutil.rmtree(folder, ignore_errors=True)
    connection.send(None)


def _virtual_memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


class Crew:
    """Worker processes; one that dies or does not end is replaced, and its case is a finding."""

    def __init__(self, seed: int, pool: list[Original], keep: Path | None, *, trace: bool) -> None:
        self.seed, self.pool, self.keep, self.trace = seed, pool, keep, trace
        self.context = multiprocessing.get_context("fork")
        self.at_work: dict[Connection, tuple[Any, list[int], list[float]]] = {}

    def start(self, share: list[int]) -> None:
        """Give a share of the cases to a new process."""
        mine, theirs = self.context.Pipe()
        arguments = (theirs, self.seed, self.pool, share, self.keep, self.trace)
        process = self.context.Process(target=worker, args=arguments)
        process.start()
        theirs.close()
        self.at_work[mine] = (process, list(share), [time.monotonic()])

    def results(self) -> Any:
        """Yield the outcomes as they come."""
        while self.at_work:
            for ready in wait(list(self.at_work), timeout=1):
                assert isinstance(ready, Connection)
                process, left, since = self.at_work[ready]
                try:
                    message = ready.recv()
                except EOFError:
                    process.join()
                    yield from self._replace(ready, f"died of {process.exitcode}")
                    continue
                since[0] = time.monotonic()
                if message is None:
                    process.join()
                    del self.at_work[ready]
                elif isinstance(message, Outcome):
                    left.remove(message.index)
                    yield message
            for connection, (process, _, since) in list(self.at_work.items()):
                if time.monotonic() - since[0] > SECONDS:
                    process.kill()
                    process.join()
                    yield from self._replace(connection, "hang")

    def _replace(self, connection: Connection, verdict: str) -> Any:
        _, left, _ = self.at_work.pop(connection)
        if left:
            yield Outcome(left[0], "?", "?", verdict)
            if left[1:]:
                self.start(left[1:])


@click.command()
@click.argument("count", type=click.IntRange(1), default=5000)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True, help="Processes.")
@click.option("--only", type=int, help="Run this case alone, with GDAL's messages.")
@click.option("--keep", type=click.Path(path_type=Path), help="Folder for the files of that case.")
@click.option("--log", type=click.File("w"), help="Write a JSON line for every case.")
def main(count: int, seed: int, jobs: int, only: int | None, keep: Path | None, log: IO[str] | None) -> None:
    """Run COUNT damaged files."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        pool = originals(Path(folder))
    if keep is not None:
        keep.mkdir(parents=True)
    crew = Crew(seed, pool, keep, trace=only is not None)
    cases = [only] if only is not None else list(range(count))
    jobs = min(jobs, len(cases))
    for job in range(jobs):
        crew.start(cases[job::jobs])
    verdicts: Counter[str] = Counter()
    kinds: Counter[tuple[str, str]] = Counter()
    started = time.monotonic()
    for outcome in crew.results():
        verdicts[outcome.verdict] += 1
        kinds[(outcome.kind, outcome.verdict)] += 1
        if outcome.verdict not in ("used", "refused") or only is not None:
            click.echo(json.dumps(vars(outcome)), err=True)
        if log is not None:
            log.write(json.dumps(vars(outcome)) + "\n")
    for kind in sorted({kind for kind, _ in kinds}):
        counts = ", ".join(f"{number} {verdict}" for (k, verdict), number in sorted(kinds.items()) if k == kind)
        click.echo(f"{kind:<50} {counts}")
    seconds = time.monotonic() - started
    bad = sum(n for verdict, n in verdicts.items() if verdict not in ("used", "refused"))
    click.echo(
        f"{sum(verdicts.values())} damaged files in {seconds:.0f} s: {verdicts['used']} used, "
        f"{verdicts['refused']} refused in words, {bad} findings"
    )
    raise SystemExit(1 if bad else 0)


if __name__ == "__main__":
    main()
