"""Airbus DIMAP (Pleiades, Pleiades Neo, SPOT 6/7, others in version 1): `DIM_*.XML` per image, `VOL_*.XML` for all."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from crossdiff_cli.errors import SceneError
from crossdiff_cli.io.deliveries.product import Kind, Product, Tile, absent, child, damaged, parse_time
from crossdiff_cli.io.documents import leaf, read_facts
from crossdiff_cli.system.paths import is_file

_IMAGE = re.compile(r"^(?:DIM_.*\.XML|.*\.DIM)$", re.IGNORECASE)
_VOLUME = re.compile(r"^VOL_.*\.XML$", re.IGNORECASE)
_MODE_IN_NAME = re.compile(r"_(PMS(?:-\w+)?|MS(?:-\w+)?|P)_", re.IGNORECASE)


def products(files: Sequence[Path]) -> Iterator[Product]:
    """The DIMAP images among `files`, and those that a volume lists and that are missing."""
    there = set(files)
    for path in files:
        try:
            if _VOLUME.match(path.name):
                yield from _missing_components(path, there)
            elif _IMAGE.match(path.name) and (found := _product(path, files)):
                yield found
        except SceneError as error:
            yield damaged("DIMAP", path, error)


def _product(path: Path, files: Sequence[Path]) -> Product | None:
    facts = read_facts(path)
    if not any(key.startswith("Dimap_Document.") for key in facts):
        return None
    hrefs = [value for key, value in facts.items() if key.endswith(".DATA_FILE_PATH.href")]
    if not hrefs:
        return None
    images = [child(path.parent, href) for href in hrefs]
    missing = [image for image in images if not is_file(image)]
    return Product(
        vendor="DIMAP",
        kind=_kind(leaf(facts, "SPECTRAL_PROCESSING") or "", facts),
        document=path,
        rasters=(path,),
        files=frozenset({path, *images, *_volumes(path, files)}),
        tiles=tuple(Tile(image, None) for image in images),
        facts=tuple(facts.items()),
        acquired=parse_time(leaf(facts, "IMAGING_DATE"), leaf(facts, "IMAGING_TIME")),
        part=(leaf(facts, "MISSION") or "") + (leaf(facts, "MISSION_INDEX") or ""),
        nodata=_nodata(facts),
        fault=absent(missing, len(images), path),
    )


def _kind(mode: str, facts: Mapping[str, str]) -> Kind:
    mode = mode.upper()
    if mode.startswith(("PMS", "PSH", "PANSHARP", "PAN-SHARP")):
        return Kind.SHARPENED
    if mode in ("P", "PAN") or (not mode and leaf(facts, "NBANDS") == "1"):
        return Kind.PAN
    return Kind.MS


def _nodata(facts: Mapping[str, str]) -> float | None:
    """The value with the text NODATA among the special values."""
    for key, text in facts.items():
        value = facts.get(key.replace(".SPECIAL_VALUE_TEXT", ".SPECIAL_VALUE_COUNT"), "")
        if key.endswith(".SPECIAL_VALUE_TEXT") and text.upper() == "NODATA" and value.isdigit():
            return float(value)
    return None


def _volumes(path: Path, files: Sequence[Path]) -> list[Path]:
    above = {path.parent, path.parent.parent}
    return [file for file in files if _VOLUME.match(file.name) and file.parent in above]


def _missing_components(volume: Path, there: set[Path]) -> Iterator[Product]:
    """A product with a fault for each image that a volume lists without its being there."""
    for key, href in read_facts(volume).items():
        if not key.endswith(".COMPONENT_PATH.href"):
            continue
        try:
            path = child(volume.parent, href)
        except SceneError:
            continue
        if _IMAGE.match(path.name) and path not in there and not is_file(path):
            mode = _MODE_IN_NAME.search(path.name)
            yield Product(
                vendor="DIMAP",
                kind=_kind(mode[1] if mode else "", {}),
                document=path,
                rasters=(path,),
                files=frozenset({volume}),
                fault=f"{volume} lists {href}, which is missing",
            )
