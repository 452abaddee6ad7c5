"""What the user names as PAN and MS, as files for GDAL: images as they are, deliveries looked into."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import rasterio
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

from crossdiff_cli.errors import SceneError
from crossdiff_cli.io.deliveries.archive import Archive, in_archive, opened
from crossdiff_cli.io.deliveries.find import find_products
from crossdiff_cli.io.deliveries.match import choose_one, choose_pair, one_acquisition
from crossdiff_cli.io.deliveries.mosaic import open_names
from crossdiff_cli.io.deliveries.product import Kind, Product
from crossdiff_cli.io.pairing import pairs_by_name
from crossdiff_cli.system.paths import is_file, is_folder

_METADATA = re.compile(r"\.(?:til|imd|dim|xml)$|_MTL\.(?:txt|json)$|_metadata\.(?:txt|json)$", re.IGNORECASE)
_BELOW = 3
"""How far below a folder the partner of an image is looked for."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """A pair as GDAL opens it, and what the delivery tells of it."""

    pan: str
    ms: tuple[str, ...]
    delivery: str = ""
    """One line on what was found; empty where the files were named."""
    sensor: str | None = None
    bands: tuple[str, ...] = ()
    """Names of all MS bands in file order, where they are told here."""
    pan_nodata: float | None = None
    ms_nodata: float | None = None
    remarks: tuple[str, ...] = ()
    memory: tuple[MemoryFile, ...] = ()
    """Held as long as the pair is open."""

    def close(self) -> None:
        """Free the files in memory."""
        for file in self.memory:
            file.close()


def is_delivery(name: str) -> bool:
    """Whether a name is that of a folder, of a file that may be a delivery's metadata, or of an archive."""
    path = Path(name)
    return is_folder(path) or (is_file(path) and _METADATA.search(path.name) is not None) or in_archive(name)


def resolve(pan: str, ms: Sequence[str]) -> Inputs:
    """Find the files of a pair; without `ms`, `pan` is a delivery that holds both.

    Raises:
        SceneError: it is no delivery, or one that cannot be sharpened, and why.
    """
    if not ms:
        return _whole(pan)
    first = _single(pan, Kind.PAN)
    products = [_single(name, Kind.MS) for name in ms]
    if len(ms) > 1 and any(products):
        raise SceneError("a delivery among other MS files", cure="give one MS delivery, or one file per band")
    if first is None and not any(products):
        return Inputs(pan, tuple(ms))
    return _inputs(first or pan, products[0] or tuple(ms))


def _whole(name: str) -> Inputs:
    path = Path(name)
    if in_archive(name):
        return _archived(name)
    if not is_delivery(name):
        raise SceneError(
            "it is neither a folder nor a metadata file of a delivery", path=name, cure="name the MS after the PAN"
        )
    if is_folder(path):
        products = find_products(path)
        if not products:
            return _by_name(path)
        return _inputs(*choose_pair(products, path))
    products = find_products(path.parent, _BELOW)
    if not any(path in product.files for product in products):
        raise SceneError("it is not the metadata of a known delivery", path=name, cure="name the PAN and the MS files")
    return _inputs(*_search(path, products))


def _search(path: Path, products: list[Product]) -> tuple[Product, Product]:
    """The pair that a metadata file belongs to: in its own folder, else beside that (`..._PAN` and `..._MUL`)."""
    try:
        return choose_pair(products, path)
    except SceneError:
        if {Kind.PAN, Kind.MS} <= {product.kind for product in products}:
            raise
    path = path.absolute()
    return choose_pair(find_products(path.parent.parent, _BELOW), path)


def _single(name: str, kind: Kind) -> Product | None:
    """The image of one kind that a folder or metadata file stands for; None for what is left to GDAL."""
    path = Path(name)
    if in_archive(name):
        with suppress(RasterioError), rasterio.open(name.partition(",band=")[0]):
            return None
        with opened(name) as archive, _named(archive, name):
            products = find_products(archive.searched)
            if not products:
                raise SceneError("it holds no known delivery", path=name, cure=f"name the {kind.value} file in it")
            return archive.product(choose_one(products, kind, archive.searched))
    if not is_delivery(name):
        return None
    folder = path if is_folder(path) else path.parent
    products = find_products(folder)
    if is_file(path) and not any(path in product.files for product in products):
        return None
    if not products:
        with suppress(RasterioError), rasterio.open(name):
            return None
        raise SceneError("the folder holds no known delivery", path=name, cure=f"name the {kind.value} file in it")
    return choose_one(products, kind, path)


def _archived(name: str) -> Inputs:
    """Return the pair of a delivery in an archive."""
    with opened(name) as archive, _named(archive, name):
        products = find_products(archive.searched)
        if products:
            pan, ms = choose_pair(products, archive.searched)
            return _inputs(archive.product(pan), archive.product(ms))
        found = _by_name(archive.searched)
        pan_path, ms_paths = archive.real(Path(found.pan)), [archive.real(Path(path)) for path in found.ms]
        line = found.delivery.replace(str(archive.folder), name)
        return replace(found, pan=str(pan_path), ms=tuple(str(path) for path in ms_paths), delivery=line)


@contextmanager
def _named(archive: Archive, name: str) -> Iterator[None]:
    """Let errors name the archive, not the folder that its metadata stand in."""
    try:
        yield
    except SceneError as error:
        raise error.renamed(str(archive.folder), name) from error


def _by_name(folder: Path) -> Inputs:
    """PAN and MS of a folder without any vendor's layout, by the words in their names."""
    pairs, remarks = pairs_by_name(folder)
    if len(pairs) != 1:
        names = ", ".join(["..." if i == 4 else pair.name for i, pair in enumerate(pairs[:5])])
        found = f"{len(pairs)} pairs ({names})" if pairs else "no PAN and MS"
        more = f"; {remarks[0]}" if remarks and not pairs else ""
        raise SceneError(
            f"it holds {found} whose layout or names are known",
            path=folder,
            cure=f"name the PAN and the MS files{more}",
        )
    pair = pairs[0]
    return Inputs(str(pair.pan), (str(pair.ms),), f"{folder}: PAN {pair.pan.name}, MS {pair.ms.name}, by their names")


def _inputs(pan: Product | str, ms: Product | tuple[str, ...]) -> Inputs:
    memory: list[MemoryFile] = []
    names: list[tuple[str, ...]] = []
    for given in (pan, ms):
        if isinstance(given, Product):
            opened, files = open_names(given)
            names.append(opened)
            memory += files
        else:
            names.append((given,) if isinstance(given, str) else given)
    found = [given for given in (pan, ms) if isinstance(given, Product)]
    remarks = [given.remark for given in found if given.remark]
    if len(found) == 2 and not one_acquisition(*found):
        remarks.append(f"the PAN {found[0]} and the MS {found[1]} are of two acquisitions: the ground may have changed")
    told = ms if isinstance(ms, Product) else None
    return Inputs(
        pan=names[0][0],
        ms=names[1],
        delivery=_describe(pan, ms),
        sensor=next((given.sensor for given in reversed(found) if given.sensor), None),
        bands=told.bands if told else (),
        pan_nodata=pan.nodata if isinstance(pan, Product) else None,
        ms_nodata=told.nodata if told else None,
        remarks=tuple(dict.fromkeys(remarks)),
        memory=tuple(memory),
    )


def _describe(pan: Product | str, ms: Product | tuple[str, ...]) -> str:
    def files(given: Product | str | tuple[str, ...]) -> str:
        paths = given.rasters if isinstance(given, Product) else [given] if isinstance(given, str) else given
        names = [Path(path).name for path in paths]
        shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
        tiles = len(given.tiles) if isinstance(given, Product) else 0
        return shown + (f" ({tiles} tiles)" if tiles > 1 else "")

    told = next(given for given in (ms, pan) if isinstance(given, Product))
    when = f" of {told.acquired:%Y-%m-%d %H:%M:%S}" if told.acquired else ""
    return f"{told.vendor} delivery{when}: PAN {files(pan)}, MS {files(ms)}"
