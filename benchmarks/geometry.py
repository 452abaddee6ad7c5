"""Generated geometries, masks and types, each sharpened and checked: `tests/test_geometry_property.py` at length.

    python benchmarks/geometry.py 2000

The count of geometries, sharpened and refused with reason, on stdout.
"""

import os
import subprocess
import sys
from pathlib import Path

import click


@click.command()
@click.argument("count", type=click.IntRange(1), default=2000)
def main(count: int) -> None:
    """Run COUNT geometries."""
    test = Path(__file__).parents[1] / "tests" / "test_geometry_property.py"
    command = [sys.executable, "-m", "pytest", "-q", "-s", "--show-capture=no", "-k", "generated", str(test)]
    raise SystemExit(
        subprocess.run(command, env={**os.environ, "CROSSDIFF_GEOMETRIES": str(count)}, check=False).returncode
    )


if __name__ == "__main__":
    main()
