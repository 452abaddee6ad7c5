"""What GDAL opens for an image of a delivery: a file of one of its drivers, or a VRT in memory of the tiles."""

from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

import rasterio
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

from crossdiff_cli.errors import SceneError
from crossdiff_cli.io.deliveries.product import Product, Tile

_NEAR_PX = 0.05
_TYPES = {"uint8": "Byte", "uint16": "UInt16", "int16": "Int16", "uint32": "UInt32", "int32": "Int32"}
_TYPES |= {"float32": "Float32", "float64": "Float64"}


def open_names(product: Product) -> tuple[tuple[str, ...], tuple[MemoryFile, ...]]:
    """Return what to open (one name, one per band or per image of a stack) and the files in memory that outlive it.

    Raises:
        SceneError: the tiles cannot be put together.
    """
    if product.stack:
        opened = [open_names(image) for image in product.stack]
        names, files = zip(*opened, strict=True)
        return tuple(chain(*names)), tuple(chain(*files))
    whole = product.rasters[0]
    if whole.suffix.lower() == ".til":
        if _trusted(whole, product.tiles):
            return (str(whole),), ()
    elif product.vendor != "Maxar" or len(product.tiles) <= 1:
        return tuple(str(path) for path in product.rasters), ()
    if len(product.tiles) == 1:
        return (str(product.tiles[0].path),), ()
    document = tostring(_vrt(product))
    memory = MemoryFile(document, filename=f"{product.document.stem}.vrt")
    return (memory.name,), (memory,)


def _trusted(til: Path, tiles: Sequence[Tile]) -> bool:
    """Whether GDAL opens a TIL, and puts it where its first tile lies: without ULX in the IMD it does not."""
    try:
        with rasterio.open(til) as image, rasterio.open(tiles[0].path) as tile:
            row, col = tiles[0].place or (0, 0)
            x, y = ~tile.transform @ (image.transform @ (col, row))
            return max(abs(x), abs(y)) <= _NEAR_PX
    except RasterioError:
        return False


def _vrt(product: Product) -> Element:
    headers = [_header(tile) for tile in product.tiles]
    first = headers[0]
    places = [_place(tile, header, first, product) for tile, header in zip(product.tiles, headers, strict=True)]
    base_row, base_col = (min(place[axis] for place in places) for axis in (0, 1))
    for header in headers:
        if (header["count"], header["dtype"], header["crs"]) != (first["count"], first["dtype"], first["crs"]):
            raise SceneError(f"its tiles differ in bands, type or CRS: {header['path'].name}", path=product.document)
    shape = [max(p[axis] + h["shape"][axis] for p, h in zip(places, headers, strict=True)) for axis in (0, 1)]
    root = Element("VRTDataset", rasterXSize=str(shape[1] - base_col), rasterYSize=str(shape[0] - base_row))
    if not first["transform"].is_identity:
        moved = first["transform"] @ rasterio.Affine.translation(base_col - places[0][1], base_row - places[0][0])
        if first["crs"] is not None:
            SubElement(root, "SRS").text = first["crs"].to_wkt()
        SubElement(root, "GeoTransform").text = ", ".join(f"{value:.17g}" for value in moved.to_gdal())
    _metadata(root, product)
    for band in range(1, first["count"] + 1):
        element = SubElement(root, "VRTRasterBand", dataType=_TYPES[first["dtype"]], band=str(band))
        for (row, col), header in zip(places, headers, strict=True):
            rows, cols = header["shape"]
            source = SubElement(element, "SimpleSource")
            SubElement(source, "SourceFilename", relativeToVRT="0").text = str(header["path"].resolve())
            SubElement(source, "SourceBand").text = str(band)
            for name, x, y in (("SrcRect", 0, 0), ("DstRect", col - base_col, row - base_row)):
                SubElement(source, name, xOff=str(x), yOff=str(y), xSize=str(cols), ySize=str(rows))
    return root


def _header(tile: Tile) -> dict[str, Any]:
    try:
        with rasterio.open(tile.path) as file:
            if file.dtypes[0] not in _TYPES:
                raise SceneError(
                    "its numbers are complex", path=tile.path, found=file.dtypes[0], expected="real numbers"
                )
            return {
                "path": tile.path, "shape": file.shape, "count": file.count, "dtype": file.dtypes[0],
                "crs": file.crs, "transform": file.transform,
            }  # fmt: skip
    except RasterioError as error:
        raise SceneError("it cannot be opened", path=tile.path, found=str(error)) from error


def _place(tile: Tile, header: dict[str, Any], first: dict[str, Any], product: Product) -> tuple[int, int]:
    """Row and column of a tile: from the TIL, else from its georeference."""
    if tile.place is not None:
        return tile.place
    if header["transform"].is_identity:
        raise SceneError(
            "nothing places the tiles: the .TIL file is missing and they have no georeference", path=product.document
        )
    col, row = ~first["transform"] @ (header["transform"] @ (0, 0))
    if max(abs(col - round(col)), abs(row - round(row))) > _NEAR_PX:
        raise SceneError(
            f"it does not lie on the grid of {first['path'].name}", path=tile.path, cure="bring both to one grid first"
        )
    return round(row), round(col)


def _metadata(root: Element, product: Product) -> None:
    """Carry IMD, IMAGERY and RPC, from GDAL where it reads the TIL, else from the document."""
    domains: dict[str, dict[str, str]] = {"IMD": dict(product.facts)}
    if product.rasters[0].suffix.lower() == ".til":
        with suppress(RasterioError), rasterio.open(product.rasters[0]) as image:
            domains |= {name: image.tags(ns=name) for name in ("IMD", "IMAGERY", "RPC")}
    for name, items in domains.items():
        if items:
            element = SubElement(root, "Metadata", domain=name)
            for key, value in items.items():
                SubElement(element, "MDI", key=key).text = value
