"""Planet SkySat: `*_panchromatic*.tif`, `*_analytic*.tif` and a metadata JSON that go by one item name."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from crossdiff_cli.errors import SceneError
from crossdiff_cli.io.deliveries.product import Kind, Product, parse_time
from crossdiff_cli.io.documents import leaf, read_facts
from crossdiff_cli.sensors.table import canonical_band

_IMAGE = re.compile(
    r"^(\d{8}_\d{6}_ssc\w+?)_((?:basic_|ortho_)?(?:l1a_)?)(panchromatic|analytic|pansharpened|visual)(_dn|_sr)?"
    r"(?:_file_format|_clip)*\.tiff?$",
    re.IGNORECASE,
)
_KINDS = {"panchromatic": Kind.PAN, "analytic": Kind.MS, "pansharpened": Kind.SHARPENED, "visual": Kind.SHARPENED}


def products(files: Sequence[Path]) -> Iterator[Product]:
    """The SkySat images among `files`; of one item's variants (`_dn`, calibrated, `_sr`) the pair that fits."""
    items: dict[tuple[str, str], dict[tuple[Kind, str], Path]] = {}
    for path in files:
        if match := _IMAGE.match(path.name):
            kind = _KINDS[match[3].lower()]
            items.setdefault((match[1], match[2].lower()), {})[kind, (match[4] or "").lower()] = path
    for (item, level), images in sorted(items.items()):
        document = next((p for p in files if _is_metadata(p, item)), None)
        facts = _facts(document)
        for kind in (Kind.PAN, Kind.MS, Kind.SHARPENED):
            if image := _variant(images, kind):
                yield Product(
                    vendor="Planet",
                    kind=kind,
                    document=image,
                    rasters=(image,),
                    files=frozenset({image} | ({document} if document else set())),
                    facts=tuple(facts.items()),
                    sensor="skysat",
                    bands=_bands(facts) if kind is Kind.MS else (),
                    acquired=parse_time(leaf(facts, "acquired", "datetime")),
                    identity=f"{item}_{level}",
                )


def _variant(images: Mapping[tuple[Kind, str], Path], kind: Kind) -> Path | None:
    """Numbers of one calibration for PAN and MS where there are any: calibrated, `_dn`, then `_sr`."""
    other = {Kind.PAN: Kind.MS, Kind.MS: Kind.PAN}.get(kind, kind)
    of_kind = [variant for variant in ("", "_dn", "_sr") if (kind, variant) in images]
    best = [variant for variant in of_kind if (other, variant) in images] or of_kind
    return images[kind, best[0]] if best else None


def _is_metadata(path: Path, item: str) -> bool:
    return path.suffix.lower() == ".json" and path.name.lower().startswith(item.lower())


def _facts(document: Path | None) -> dict[str, str]:
    try:
        return read_facts(document) if document else {}
    except SceneError:
        return {}


def _bands(facts: Mapping[str, str]) -> tuple[str, ...]:
    """The band order of a STAC item, where the JSON is one."""
    rows = [value for key, value in facts.items() if re.search(r"analytic.*bands(?:_\d+)?\.common_name$", key)]
    names = tuple(band for value in rows if (band := canonical_band(value)))
    return names if len(names) == len(rows) == len(set(names)) else ()
