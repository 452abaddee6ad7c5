"""Landsat 7, 8 and 9: an MTL (text, JSON or XML) that names one file per band; the PAN is band 8."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from crossdiff_cli.errors import SceneError
from crossdiff_cli.io.deliveries.product import Kind, Product, child, damaged, parse_time, sensor_key
from crossdiff_cli.io.documents import leaf, read_facts
from crossdiff_cli.system.paths import is_file

_MTL = re.compile(r"_MTL\.(?:txt|json|xml)$", re.IGNORECASE)
_BAND = re.compile(r"(?:^|\.)FILE_NAME_BAND_(\d{1,2})$", re.IGNORECASE)
_REFLECTIVE = {"l7": (1, 2, 3, 4, 5, 7), "l8": (1, 2, 3, 4, 5, 6, 7), "l9": (1, 2, 3, 4, 5, 6, 7)}
"""The bands of 30 m that PAN detail can belong to: not the thermal ones, not the cirrus band."""
_PAN = 8


def products(files: Sequence[Path]) -> Iterator[Product]:
    """The Landsat scenes among `files`, each as its PAN and its MS."""
    scenes: dict[Path, list[Path]] = {}
    for path in files:
        if _MTL.search(path.name):
            scenes.setdefault(path.with_name(_MTL.sub("", path.name)), []).append(path)
    for scene, documents in sorted(scenes.items()):
        # The text is the form GDAL reads too.
        documents.sort(key=lambda path: (path.suffix.lower() != ".txt", path))
        try:
            yield from _scene(scene, documents)
        except SceneError as error:
            yield damaged("Landsat", documents[0], error)


def _scene(scene: Path, documents: Sequence[Path]) -> Iterator[Product]:
    document = documents[0]
    facts = read_facts(document)
    satellite = leaf(facts, "SPACECRAFT_ID")
    key = sensor_key(satellite)
    listed = {int(m[1]): child(document.parent, name) for k, name in facts.items() if (m := _BAND.search(k))}
    wanted = _REFLECTIVE.get(key or "", ())
    present = [band for band in wanted if band in listed and is_file(listed[band])]
    absent = [listed[band].name for band in wanted if band in listed and band not in present]

    def product(kind: Kind, bands: Sequence[int], fault: str, remark: str = "") -> Product:
        rasters = tuple(listed[band] for band in bands)
        return Product(
            vendor="Landsat",
            kind=kind,
            document=document,
            rasters=rasters,
            files=frozenset({*documents, *listed.values()}),
            facts=tuple(facts.items()),
            sensor=key,
            bands=tuple(f"B{band}" for band in bands) if kind is Kind.MS else (),
            acquired=parse_time(leaf(facts, "DATE_ACQUIRED"), leaf(facts, "SCENE_CENTER_TIME")),
            identity=scene.name,
            nodata=_fill(facts, (*bands,)),
            fault=fault,
            remark=remark,
        )

    if key not in _REFLECTIVE:
        fault = f"{document} is of {satellite or 'an unnamed satellite'}, which has no panchromatic band of its own"
        yield product(Kind.PAN, (), fault)
        yield product(Kind.MS, (), fault)
        return
    if _PAN in listed:
        there = is_file(listed[_PAN])
        fault = "" if there else f"the PAN that {document} lists is missing: {listed[_PAN].name}"
        yield product(Kind.PAN, (_PAN,), fault)
    if wanted and any(band in listed for band in wanted):
        missing = f"{document} lists bands that are not there: {', '.join(absent)}" if absent else ""
        yield product(Kind.MS, present, "" if present else missing, missing)


def _fill(facts: Mapping[str, str], bands: Sequence[int]) -> float | None:
    """0 where the quantisation of every band begins at 1 or above: then 0 is no measurement."""
    least = [leaf(facts, f"QUANTIZE_CAL_MIN_BAND_{band}") or "" for band in bands]
    return 0.0 if least and all(value.isdigit() and int(value) > 0 for value in least) else None
