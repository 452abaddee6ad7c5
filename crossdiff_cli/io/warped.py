"""A virtual image warped by a thin-plate spline through points, which rasterio's `WarpedVRT` cannot make."""

from collections.abc import Iterable, Sequence
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.dtypes import dtype_rev, typename_fwd

_BLOCK = 256
TOLERANCE_PX = 0.02
"""Error of the transformation that GDAL interpolates between exact places, in pixels of the source."""


def warped_by_points(
    dataset: Any,
    source: str,
    points: Sequence[GroundControlPoint],
    transform: Affine,
    shape: tuple[int, int],
    nodata: float | None,
    alpha: int | None,
) -> bytes:
    """Describe `source` on a grid, interpolated by cubic convolution, as a VRT of GDAL.

    All its bands keep their numbers; without an alpha band one is added after them.

    Args:
        dataset: the source, opened by rasterio.
        source: its name for GDAL.
        points: places of the source (row, col) and of the grid's plane (x, y).
        transform: geotransform of the grid in that plane.
        shape: rows and columns of the grid.
        nodata: value of missing pixels; None for none.
        alpha: number of its alpha band; None for none.
    """
    rows, cols = shape
    vrt = Element("VRTDataset", rasterXSize=str(cols), rasterYSize=str(rows), subClass="VRTWarpedDataset")
    _text(vrt, "GeoTransform", _numbers(transform.to_gdal()))
    types = [typename_fwd[dtype_rev[dtype]] for dtype in dataset.dtypes]
    added = [] if alpha is not None else [types[0]]
    covered = alpha or dataset.count + 1
    for band, kind in enumerate([*types, *added], start=1):
        entry = SubElement(vrt, "VRTRasterBand", dataType=kind, band=str(band), subClass="VRTWarpedRasterBand")
        if band == covered:
            _text(entry, "ColorInterp", "Alpha")
        elif nodata is not None:
            _text(entry, "NoDataValue", repr(nodata))
    for name in ("BlockXSize", "BlockYSize"):
        _text(vrt, name, str(_BLOCK))
    options = SubElement(vrt, "GDALWarpOptions")
    _text(options, "ResampleAlg", "Cubic")
    SubElement(options, "Option", name="INIT_DEST").text = "0" if nodata is None else "NO_DATA"
    SubElement(options, "SourceDataset", relativeToVRT="0").text = source
    options.append(_transformer(points, transform))
    mappings = SubElement(options, "BandList")
    for band in dataset.indexes:
        if band != alpha:
            entry = SubElement(mappings, "BandMapping", src=str(band), dst=str(band))
            if nodata is not None:
                for name in ("SrcNoDataReal", "DstNoDataReal"):
                    _text(entry, name, repr(nodata))
    if alpha is not None:
        _text(options, "SrcAlphaBand", str(alpha))
    _text(options, "DstAlphaBand", str(covered))
    return tostring(vrt)


def _transformer(points: Sequence[GroundControlPoint], transform: Affine) -> Element:
    outer = Element("Transformer")
    approximate = SubElement(outer, "ApproxTransformer")
    _text(approximate, "MaxError", repr(TOLERANCE_PX))
    exact = SubElement(SubElement(approximate, "BaseTransformer"), "GenImgProjTransformer")
    spline = SubElement(SubElement(exact, "SrcTPSTransformer"), "TPSTransformer")
    _text(spline, "Reversed", "0")
    listed = SubElement(spline, "GCPList")
    for n, point in enumerate(points):
        col, row, x, y = (repr(float(value)) for value in (point.col, point.row, point.x, point.y))
        SubElement(listed, "GCP", Id=str(n), Pixel=col, Line=row, X=x, Y=y)
    _text(exact, "DstGeoTransform", _numbers(transform.to_gdal()))
    _text(exact, "DstInvGeoTransform", _numbers((~transform).to_gdal()))
    return outer


def _text(parent: Element, name: str, text: str) -> None:
    SubElement(parent, name).text = text


def _numbers(values: Iterable[float]) -> str:
    return ",".join(repr(float(value)) for value in values)
