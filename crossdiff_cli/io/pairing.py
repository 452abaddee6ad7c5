"""Which files of a folder belong together: PAN and MS of one scene, by their metadata or the words in their names."""

import re
from dataclasses import dataclass
from pathlib import Path

from crossdiff_cli.io.deliveries.find import find_products
from crossdiff_cli.io.deliveries.match import sure_pairs

PAN_WORDS = frozenset({"pan", "panchromatic", "pch", "p", "p1bs", "p2as", "p3ds"})
MS_WORDS = frozenset({"ms", "mul", "mss", "multi", "multispectral", "xs", "m", "m1bs", "m2as", "m3ds"})
REFERENCE_WORDS = frozenset({"reference", "ref", "gt", "hrms"})
_RASTERS = frozenset({".tif", ".tiff", ".jp2", ".vrt", ".img", ".ntf"})
_WORD = re.compile(r"[^A-Za-z0-9]+")
_MAX_FILES = 100_000


@dataclass(frozen=True, slots=True)
class FoundPair:
    """PAN and MS of one scene, perhaps with the true result."""

    name: str
    pan: Path
    ms: Path
    reference: Path | None


def find_pairs(folder: Path) -> tuple[list[FoundPair], list[str]]:
    """Find the pairs in a folder and below it: deliveries by their metadata, all else by names.

    Returns:
        The pairs, by names that `ScenePair` opens (a raster, or a metadata file of a delivery), and a line for each PAN
        that has no MS or more than one.

    Raises:
        SceneError: the folder holds far too many files.
    """
    sure = [pair for pair in sure_pairs(find_products(folder)) if all(product.has_name for product in pair)]
    claimed = frozenset(file for pair in sure for product in pair for file in product.files)
    delivered = [FoundPair(pan.identity or ms.document.stem, pan.document, ms.document, None) for pan, ms in sure]
    named, remarks = pairs_by_name(folder, claimed)
    return [*delivered, *named], remarks


def pairs_by_name(folder: Path, apart: frozenset[Path] = frozenset()) -> tuple[list[FoundPair], list[str]]:
    """Find the pairs whose names say so in a folder and below it, leaving out the files `apart`.

    Two rasters are a pair when their paths differ only in the word that says what they are: `a_PAN.tif` and
    `a_MUL.tif`, `PAN/a.tif` and `MS/a.tif`, `a/pan.tif` and `a/ms.tif`. Case does not matter.

    Returns:
        The pairs in order of their names, and a line for each PAN that has no MS or more than one.
    """
    kinds: dict[str, dict[str, list[Path]]] = {"pan": {}, "ms": {}, "reference": {}}
    for count, path in enumerate(sorted(folder.rglob("*"))):
        if count >= _MAX_FILES:
            break
        if path.suffix.lower() in _RASTERS and path not in apart:
            for kind, key in _readings(path.relative_to(folder)):
                kinds[kind].setdefault(key, []).append(path)
    pairs, remarks = [], []
    for key, pans in sorted(kinds["pan"].items()):
        found = kinds["ms"].get(key, [])
        if len(pans) == 1 and len(found) == 1:
            references = kinds["reference"].get(key, [])
            reference = references[0] if len(references) == 1 else None
            pairs.append(
                FoundPair(key.replace("*", "").strip("/ ") or folder.resolve().name, pans[0], found[0], reference)
            )
        else:
            names = ", ".join(str(p.relative_to(folder)) for p in (*pans, *found))
            remarks.append(f"{names}: {len(pans)} PAN and {len(found)} MS go by one name, not one and one: left out")
    return pairs, remarks


def scene_name(pan: Path) -> str:
    """What the scene of a PAN is called: its file name without the word for PAN, or the folder's where nothing is left.

    `a_PAN.tif`, `PAN/a.tif` and `a/pan.tif` are all `a`.
    """
    pieces = re.split(r"([^A-Za-z0-9]+)", pan.stem)
    places = [i for i, piece in enumerate(pieces) if piece.lower() in PAN_WORDS]
    if not places:
        return pan.stem
    at = places[-1]
    first = max(at - 1, 0)
    del pieces[first : first + 2]
    return "".join(pieces) or pan.parent.name or pan.stem


def _readings(path: Path) -> list[tuple[str, str]]:
    """What a file may be, and what is left of its path when that word is taken out; the last such word counts."""
    parts = [*path.parts[:-1], path.stem]
    words = [[word.lower() for word in _WORD.split(part) if word] for part in parts]
    for kind, names in (("pan", PAN_WORDS), ("ms", MS_WORDS), ("reference", REFERENCE_WORDS)):
        places = [(i, j) for i, part in enumerate(words) for j, word in enumerate(part) if word in names]
        if places:
            i, j = places[-1]
            rest = [part if k != i else [*part[:j], "*", *part[j + 1 :]] for k, part in enumerate(words)]
            return [(kind, "/".join(" ".join(part) for part in rest))]
    return []
