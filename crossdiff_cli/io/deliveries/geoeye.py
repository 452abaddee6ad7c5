"""GeoEye and Space Imaging (IKONOS, GeoEye-1): `po_ORDER_BAND_COMPONENT.tif` and `po_ORDER_metadata.txt`."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from crossdiff_cli.errors import SceneError
from crossdiff_cli.io.deliveries.product import Kind, Product, parse_time, sensor_key
from crossdiff_cli.io.documents import leaf, read_facts
from crossdiff_cli.system.paths import is_file

_IMAGE = re.compile(r"^po_(\d{4,8})_(pan|blu|grn|red|nir|bgrn|msi|rgb|bgr)_(\w+)\.(?:tiff?|ntf)$", re.IGNORECASE)
_STACKS = {"bgrn": ("B", "G", "R", "NIR"), "msi": (), "rgb": ("R", "G", "B"), "bgr": ("B", "G", "R")}
_SINGLE = {"blu": "B", "grn": "G", "red": "R", "nir": "NIR"}


def products(files: Sequence[Path]) -> Iterator[Product]:
    """The GeoEye images among `files`: for each component of an order a PAN, and an MS in one file or one per band."""
    components: dict[tuple[Path, str, str], dict[str, Path]] = {}
    for path in files:
        if match := _IMAGE.match(path.name):
            components.setdefault((path.parent, match[1], match[3]), {})[match[2].lower()] = path
    for (folder, order, component), images in sorted(components.items()):
        yield from _component(folder, order, component, images, files)


def _component(
    folder: Path, order: str, component: str, images: dict[str, Path], files: Sequence[Path]
) -> Iterator[Product]:
    name = f"po_{order}_metadata.txt"
    document = next((p for p in files if p.name.lower() == name and p.parent in (folder, folder.parent)), None)
    facts: dict[str, str] = {}
    fault = ""
    if document is not None:
        try:
            facts = read_facts(document)
        except SceneError as error:
            fault = str(error)
    listed = _listed(facts, order, component)
    sharpened = "sharp" in (leaf(facts, "Multispectral Algorithm", "Image Type") or "").lower()

    def product(kind: Kind, paths: Sequence[Path], bands: tuple[str, ...], missing: Sequence[str]) -> Product:
        return Product(
            vendor="GeoEye",
            kind=kind,
            document=document or paths[0],
            rasters=tuple(paths),
            files=frozenset({*paths} | ({document} if document else set())),
            facts=tuple(facts.items()),
            sensor=sensor_key(leaf(facts, "Sensor", "Sensor Name")),
            bands=bands,
            acquired=parse_time(leaf(facts, "Acquisition Date/Time")),
            identity=f"po_{order}_{component}",
            fault=fault or (f"{document} lists files that are missing: {', '.join(missing)}" if missing else ""),
        )

    single = [band for band in _SINGLE if band in images]
    missing = [name for name in listed if not is_file(folder / name)]
    if "pan" in images:
        yield product(Kind.PAN, [images["pan"]], (), [])
    kind = Kind.SHARPENED if sharpened else Kind.MS
    for stack, bands in _STACKS.items():
        if stack in images:
            yield product(kind, [images[stack]], bands, [])
    if single and not any(stack in images for stack in _STACKS):
        bands = tuple(_SINGLE[band] for band in single)
        yield product(kind, [images[band] for band in single], bands, [n for n in missing if "_pan_" not in n.lower()])


def _listed(facts: dict[str, str], order: str, component: str) -> list[str]:
    """The image files of one component that the metadata lists."""
    names = [
        name
        for key, value in facts.items()
        if key.startswith("Component File Name")
        for name in value.split()
        if (m := _IMAGE.match(name)) and (m[1], m[3]) == (order, component)
    ]
    return sorted(set(names))
