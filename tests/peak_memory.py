"""Sharpen in this process and print its peak resident memory in KiB: run by the memory law's test."""

import resource
import sys
from pathlib import Path

from crossdiff_cli.io.pair import PairOptions
from crossdiff_cli.tasks.sharpen import SharpenOptions, sharpen

if __name__ == "__main__":
    pan, ms, out, weights = sys.argv[1:]
    pair = PairOptions(sensor="vhr", bands=("B", "G", "R", "NIR"))
    sharpen(pan, [ms], Path(out), SharpenOptions(pair=pair, weights=Path(weights), device="cpu", tile=512, quiet=True))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
