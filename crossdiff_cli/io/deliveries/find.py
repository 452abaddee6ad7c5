"""All images of a folder that some vendor's layout explains."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from crossdiff_cli.errors import SceneError
from crossdiff_cli.io.deliveries import cbers, dimap, gaofen, geoeye, landsat, maxar, planet
from crossdiff_cli.io.deliveries.product import Product

_VENDORS: tuple[Callable[[Sequence[Path]], Iterator[Product]], ...] = (
    landsat.products, dimap.products, gaofen.products, cbers.products, geoeye.products, planet.products, maxar.products,
)  # fmt: skip
_MAX_FILES = 100_000
_MAX_DEPTH = 8


def find_products(folder: Path, depth: int = _MAX_DEPTH) -> list[Product]:
    """Find the images in a folder and up to `depth` folders below it; links to folders are not followed.

    Raises:
        SceneError: there are far too many files for a delivery.
    """
    files = _files(folder, depth)
    found: list[Product] = []
    claimed: set[Path] = set()
    for products in _VENDORS:
        for product in products([path for path in files if path not in claimed]):
            found.append(product)
            claimed |= product.files
    return found


def _files(folder: Path, depth: int) -> list[Path]:
    files: list[Path] = []
    for where, folders, names in os.walk(folder):
        here = Path(where)
        if len(here.relative_to(folder).parts) >= depth:
            folders.clear()
        files += [here / name for name in names if not name.startswith(".")]
        if len(files) > _MAX_FILES:
            raise SceneError(
                "it holds too many files to be searched",
                path=folder,
                expected=f"at most {_MAX_FILES}",
                cure="name the folder of one delivery",
            )
    return sorted(files)
