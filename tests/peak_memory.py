"""Sharpen in this process and print its peak resident memory in KiB: run by the memory law's test."""

import resource
import sys
from pathlib import Path

from crossdiff_cli.model.device import tune_allocator
from crossdiff_cli.options import NetworkOptions, PairOptions, RuntimeOptions, SharpenOptions
from crossdiff_cli.tasks.sharpen import sharpen

if __name__ == "__main__":
    pan, ms, out, weights = sys.argv[1:]
    tune_allocator()
    options = SharpenOptions(
        pair=PairOptions(sensor="vhr", bands=("B", "G", "R", "NIR")),
        network=NetworkOptions(weights=Path(weights)),
        runtime=RuntimeOptions(device="cpu", tile=512),
    )
    sharpen(pan, [ms], Path(out), options)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
