"""GaoFen PMS (and SuperView-1): `...-PAN1.tiff` and `...-MSS1.tiff` (or `-PAN`, `-MUX`) with an XML and an RPB each."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from crossdiff_cli.errors import SceneError
from crossdiff_cli.io.deliveries.product import Kind, Product, damaged, parse_time, sensor_key
from crossdiff_cli.io.documents import leaf, read_facts

_IMAGE = re.compile(r"^(.+)-(PAN|MSS|MUX|PSH|FUS)(\d?)\.tiff?$", re.IGNORECASE)
_NAME = re.compile(r"^(GF[126][BCD]?_PMS|SV1-0\d_)", re.IGNORECASE)
_KINDS = {"PAN": Kind.PAN, "MSS": Kind.MS, "MUX": Kind.MS, "PSH": Kind.SHARPENED, "FUS": Kind.SHARPENED}
_NUMBERED = {"1": "B", "2": "G", "3": "R", "4": "NIR"}
"""The numbers that `Bands` of the XML gives to the bands of the MS."""


def products(files: Sequence[Path]) -> Iterator[Product]:
    """The GaoFen and SuperView images among `files`."""
    there = {path.with_suffix(path.suffix.lower()): path for path in files}
    for path in files:
        match = _IMAGE.match(path.name)
        if match is None or not _NAME.match(path.name):
            continue
        document = there.get(path.with_suffix(".xml"))
        try:
            facts = read_facts(document) if document else {}
        except SceneError as error:
            yield damaged("GaoFen", path, error)
            continue
        kind = _KINDS[match[2].upper()]
        satellite = leaf(facts, "SatelliteID") or path.name.split("_")[0]
        yield Product(
            vendor="GaoFen" if path.name.upper().startswith("GF") else "SuperView",
            kind=kind,
            document=document or path,
            rasters=(path,),
            files=frozenset({path} | ({document} if document else set())),
            facts=tuple(facts.items()),
            sensor=sensor_key(satellite, re.sub(r"(?i)^(GF\d)[BCD]$", r"\1", satellite), satellite.split("-")[0]),
            bands=_bands(facts) if kind is Kind.MS else (),
            acquired=parse_time(leaf(facts, "StartTime", "CenterTime", "ReceiveTime")),
            identity=f"{match[1]}-{match[3]}",
        )


def _bands(facts: Mapping[str, str]) -> tuple[str, ...]:
    numbers = re.findall(r"\d+", leaf(facts, "Bands") or "")
    names = tuple(_NUMBERED[number] for number in numbers if number in _NUMBERED)
    return names if len(names) == len(numbers) == len(set(names)) else ()
