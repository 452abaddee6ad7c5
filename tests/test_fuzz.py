"""A short run of `benchmarks/fuzz.py`."""

import re
import subprocess
import sys
from pathlib import Path

FUZZ = Path(__file__).parents[1] / "benchmarks" / "fuzz.py"


def test_damaged_files_are_used_or_refused_in_words():
    command = [sys.executable, str(FUZZ), "250", "--seed", "11", "--jobs", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = re.search(r"250 damaged files in \d+ s: (\d+) used, (\d+) refused in words, 0 findings", done.stdout)
    assert counts is not None, done.stdout
    assert min(int(count) for count in counts.groups()) > 25
