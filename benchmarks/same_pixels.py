"""Compare the pixels of two checkouts: the ruler for changes of the code that must not change the result.

Usage: python benchmarks/same_pixels.py BASE --pair PAN MS [--pair PAN MS ...]

BASE is another checkout (`git worktree add ../base REVISION`). Both sharpen the example and each pair, in every
precision and with two tile sizes; the exit code is 1 if any value differs.
"""

import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np
import rasterio

ROOT = Path(__file__).parents[1]
PRECISIONS = ("fp32", "bf16", "int8")
TILES = ("auto", "512")


def sharpen(checkout: Path, pan: str, ms: str, target: Path, precision: str, tile: str) -> np.ndarray:
    """Sharpen with the code of a checkout; return (C, H, W)."""
    arguments = [pan, ms, "-o", str(target), "--precision", precision, "--tile", tile, "--overwrite", "--quiet"]
    environment = {**os.environ, "PYTHONPATH": str(checkout.resolve())}
    subprocess.run([sys.executable, "-m", "crossdiff_cli", "sharpen", *arguments], check=True, env=environment,
                   cwd=target.parent)  # fmt: skip
    with rasterio.open(target) as file:
        return file.read().astype(np.float64)


@click.command()
@click.argument("base", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--pair", "pairs", nargs=2, multiple=True, type=click.Path(exists=True, resolve_path=True))
@click.option("--precision", "precisions", multiple=True, default=PRECISIONS, type=click.Choice(PRECISIONS))
def main(base: Path, pairs: tuple[tuple[str, str], ...], precisions: tuple[str, ...]) -> None:
    """Print, for each run, how many values differ from those of BASE and by how much."""
    example = (str(ROOT / "examples" / "pan.tif"), str(ROOT / "examples" / "ms.tif"))
    differing = 0
    with TemporaryDirectory() as folder:
        for (pan, ms), precision, tile in product((example, *pairs), precisions, TILES):
            old, new = (sharpen(c, pan, ms, Path(folder) / "out.tif", precision, tile) for c in (base, ROOT))
            apart = np.abs(old - new)
            count = int((apart > 0).sum())
            differing += count
            print(f"{Path(pan).name} {precision} tile {tile}: {count} of {new.size} differ, at most {apart.max():g}")
    sys.exit(differing > 0)


if __name__ == "__main__":
    main()
