"""Maxar and DigitalGlobe: an IMD or XML, and mostly a TIL, for each image; tiles `_R1C1`, folders `_PAN` and `_MUL`."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from crossdiff_cli.errors import SceneError
from crossdiff_cli.io.deliveries.product import RASTERS, Kind, Product, Tile, absent, child, damaged, parse_time
from crossdiff_cli.io.documents import leaf, read_facts
from crossdiff_cli.system.paths import is_file

_TILE = re.compile(r"[-_]?R\d+C\d+", re.IGNORECASE)
_PRODUCT = re.compile(r"(?:^|_)(\d\d[A-Z]{3}\d{8})-([PMSAC])[A-Z0-9]{3}(?:[-_]|$)", re.IGNORECASE)
_PART = re.compile(r"_(P\d{3})(?:_|$)", re.IGNORECASE)
_FOLDER = {"PAN": Kind.PAN, "MUL": Kind.MS, "PSH": Kind.SHARPENED}
_LETTER = {"P": Kind.PAN, "M": Kind.MS, "S": Kind.SHARPENED, "A": Kind.OTHER, "C": Kind.OTHER}
_NOT_SHARPENED = ("", "none", "n/a", "unspecified")


def products(files: Sequence[Path]) -> Iterator[Product]:
    """The Maxar images among `files`."""
    return _stacked(_images(files))


def _images(files: Sequence[Path]) -> Iterator[Product]:
    stems: dict[tuple[Path, str], list[Path]] = {}
    for path in files:
        if path.suffix.lower() in {*RASTERS, ".imd", ".til", ".xml", ".rpb"}:
            stems.setdefault((path.parent, _TILE.sub("", path.stem).upper()), []).append(path)
    for (folder, _), group in sorted(stems.items()):
        try:
            if found := _product(folder, group):
                yield found
        except SceneError as error:
            yield damaged("Maxar", group[0], error)


def _stacked(images: Iterator[Product]) -> Iterator[Product]:
    """The four bands `MS1` (blue to near-infrared) and the four others `MS2` of one acquisition as one image."""
    halves: dict[tuple[str, str], list[Product]] = {}
    for image in images:
        if image.kind is Kind.MS and _half(image) and image.identity:
            halves.setdefault((image.identity, image.part), []).append(image)
        else:
            yield image
    for found in halves.values():
        found.sort(key=_half)
        if [_half(image) for image in found] != ["MS1", "MS2"]:
            yield from found
            continue
        yield replace(
            found[0],
            rasters=tuple(path for image in found for path in image.rasters),
            files=frozenset().union(*(image.files for image in found)),
            stack=tuple(found),
            fault="; ".join(image.fault for image in found if image.fault),
        )


def _half(image: Product) -> str:
    band = (leaf(image.facts, "bandId") or "").upper()
    return band if band in ("MS1", "MS2") else ""


def _product(folder: Path, group: Sequence[Path]) -> Product | None:
    by_suffix = {path.suffix.lower(): path for path in reversed(group) if not _TILE.search(path.stem)}
    images = sorted(path for path in group if path.suffix.lower() in RASTERS)
    til, document = by_suffix.get(".til"), by_suffix.get(".imd")
    facts = read_facts(document) if document else {}
    if document is None and ".xml" in by_suffix and (images or til):
        document, facts = by_suffix[".xml"], _isd(by_suffix[".xml"])
    if not facts and til is None:
        return None
    document = document if document and facts else til
    assert document is not None
    tiles, missing, total = _tiles(folder, til, facts, images)
    fault = absent(missing, total, til or document)
    if not (tiles or fault):
        fault = f"the image that {document} describes is missing"
    whole = til if til is not None else tiles[0].path if tiles else document
    catalogue = sorted({value for key, value in facts.items() if key.lower().endswith(".catid")})
    part = _PART.search(document.stem) or _PART.search(folder.name)
    return Product(
        vendor="Maxar",
        kind=_kind(facts, document.stem, folder.name),
        document=document,
        rasters=(whole,),
        files=frozenset(group),
        tiles=tiles,
        facts=tuple(facts.items()),
        acquired=parse_time(leaf(facts, "firstLineTime", "earliestAcqTime")) or _time_of(document.stem),
        identity="+".join(catalogue),
        part=part[1].upper() if part else "",
        fault=fault,
    )


def _isd(path: Path) -> dict[str, str]:
    """Facts of Maxar's XML; nothing when it is another vendor's, or damaged."""
    try:
        facts = read_facts(path)
    except SceneError:
        return {}
    return facts if any(key.upper().startswith("ISD.IMD.") for key in facts) else {}


def _kind(facts: Mapping[str, str], stem: str, folder: str) -> Kind:
    band = (leaf(facts, "bandId") or "").lower()
    sharpened = "sharp" in band or band == "psh" or _FOLDER.get(folder.upper().rsplit("_", 1)[-1]) is Kind.SHARPENED
    if sharpened or (leaf(facts, "panSharpenAlgorithm") or "").lower() not in _NOT_SHARPENED:
        return Kind.SHARPENED
    if band in ("p", "pan"):
        return Kind.PAN
    if band.startswith(("all", "swir", "cavis")):
        return Kind.OTHER
    if band:
        return Kind.MS
    named = _PRODUCT.search(stem)
    return _LETTER[named[2].upper()] if named else _FOLDER.get(folder.upper().rsplit("_", 1)[-1], Kind.OTHER)


def _time_of(stem: str) -> datetime | None:
    """The time in a name such as `18JAN01100000-M2AS-...`."""
    named = _PRODUCT.search(stem)
    try:
        return datetime.strptime(named[1], "%y%b%d%H%M%S").replace(tzinfo=UTC) if named else None
    except ValueError:
        return None


def _tiles(
    folder: Path, til: Path | None, facts: Mapping[str, str], images: Sequence[Path]
) -> tuple[tuple[Tile, ...], list[Path], int]:
    """The tiles that are there, those that are listed and missing, and how many are listed."""
    listed = _listed(folder, read_facts(til) if til else facts)
    if not listed:
        return tuple(Tile(path, (0, 0) if len(images) == 1 else None) for path in images), [], len(images)
    missing = [tile.path for tile in listed if not is_file(tile.path)]
    return tuple(tile for tile in listed if tile.path not in missing), missing, len(listed)


def _listed(folder: Path, facts: Mapping[str, str]) -> list[Tile]:
    lower = {key.lower(): value for key, value in facts.items()}
    tiles = []
    for key, name in lower.items():
        group, _, last = key.rpartition(".")
        if last == "filename" and re.search(r"(?:^|\.)tile(?:_\d+)?$", group):
            try:
                place = int(lower[f"{group}.ulrowoffset"]), int(lower[f"{group}.ulcoloffset"])
            except (KeyError, ValueError):
                place = None
            tiles.append(Tile(child(folder, name), place))
    return tiles
