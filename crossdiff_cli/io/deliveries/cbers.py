"""CBERS-4A WPM: `CBERS_4A_WPM_..._BAND0.tif` is the PAN, BAND1 to BAND4 the MS, each with an XML."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from crossdiff_cli.io.deliveries.product import Kind, Product, parse_time

_FILE = re.compile(r"^(CBERS_?4A_WPM_.+)_BAND([0-4])\.(tiff?|xml)$", re.IGNORECASE)
_DATE = re.compile(r"_(\d{4})(\d\d)(\d\d)_")
_PAN = "0"


def products(files: Sequence[Path]) -> Iterator[Product]:
    """The WPM scenes among `files`, each as its PAN and its MS."""
    scenes: dict[tuple[Path, str], dict[str, list[Path]]] = {}
    for path in files:
        if match := _FILE.match(path.name):
            scenes.setdefault((path.parent, match[1]), {}).setdefault(match[2], []).append(path)
    for (_, scene), by_band in sorted(scenes.items()):
        pan = {band: paths for band, paths in by_band.items() if band == _PAN}
        ms = {band: paths for band, paths in sorted(by_band.items()) if band != _PAN}
        for kind, bands in ((Kind.PAN, pan), (Kind.MS, ms)):
            if bands:
                yield _product(kind, scene, bands)


def _product(kind: Kind, scene: str, bands: dict[str, list[Path]]) -> Product:
    every = [path for paths in bands.values() for path in paths]
    images = {band: path for band, paths in bands.items() for path in paths if path.suffix.lower() != ".xml"}
    documents = [path for path in every if path.suffix.lower() == ".xml"]
    missing = [f"{scene}_BAND{band}.tif" for band in bands if band not in images]
    date = _DATE.search(scene)
    return Product(
        vendor="CBERS",
        kind=kind,
        document=(documents or every)[0],
        rasters=tuple(images.values()),
        files=frozenset(every),
        sensor="cbers4a",
        bands=tuple(f"BAND{band}" for band in images) if kind is Kind.MS else (),
        acquired=parse_time("-".join(date.groups())) if date else None,
        identity=scene,
        fault=f"image files of {scene} are missing: {', '.join(missing)}" if missing else "",
    )
