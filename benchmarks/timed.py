"""Run a command and print, as JSON, what it cost: `python timed.py FOLDER COMMAND...`.

A process of its own, because peak memory as the kernel counts it begins with that of the process that starts another.
`start_seconds` is when FOLDER, where the command writes, got its first file. `stage_seconds` is what a command says
that prints it in JSON, as `crossdiff sharpen --json` does.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any

_WAIT = 0.01


def busy_cores() -> float:
    """How many cores others keep busy, over one second; the average load would still count what has just ended."""
    before = _busy_seconds()
    time.sleep(1.0)
    return _busy_seconds() - before


def _busy_seconds() -> float:
    """Of all cores together since they started, as Linux counts; all but idle and waiting for a disk."""
    user, nice, system, _idle, _iowait, *others = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    return sum(map(int, (user, nice, system, *others[:3]))) / os.sysconf("SC_CLK_TCK")


def main(folder: Path, command: list[str]) -> None:
    load = busy_cores()
    started = time.perf_counter()
    said = tempfile.TemporaryFile()
    process = subprocess.Popen(command, stdout=said)
    start = None
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        now = time.perf_counter() - started
        if start is None and any(folder.iterdir()):
            start = now
        if pid:
            break
        time.sleep(_WAIT)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command[0]} ended with {process.returncode}")
    cost = {
        "seconds": round(now, 2),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_mb": round(usage.ru_maxrss / 1024),
        "start_seconds": round(now if start is None else start, 2),
        "load_before": round(load, 2),
    }
    print(json.dumps(cost | _stages(said)))


def _stages(said: IO[bytes]) -> dict[str, Any]:
    """Return what of the output is known to be `stage_seconds`."""
    said.seek(0)
    try:
        return {"stage_seconds": json.loads(said.read())["stage_seconds"]}
    except (ValueError, TypeError, KeyError):
        return {}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
