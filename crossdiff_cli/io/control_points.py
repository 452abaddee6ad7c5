"""Images that ground control points place: PAN and MS related, and the MS warped where scale and shift do not do."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.control import GroundControlPoint
from rasterio.errors import CRSError, RasterioError
from rasterio.transform import GCPTransformer
from rasterio.warp import transform as transform_points

from crossdiff_cli.errors import NoOverlapError, SceneError
from crossdiff_cli.geometry.grid import GridMapping, grid_over
from crossdiff_cli.io.raster import Raster

_SIDE = 15
"""Points along each axis of the MS at which the two images are compared."""
_LEAST = 3
_STRAIGHT_MS_PX = 0.1
"""Deviation from a scale and a shift, in MS pixels, up to which the MS is not resampled."""

Places = NDArray[np.float64]
"""Places in an image, (n, 2): column and row, of corners of pixels."""


def relate_by_control_points(pan: Raster, ms: Sequence[Raster], notes: list[str]) -> GridMapping:
    """Relate PAN and MS through the ground, where one or both of them have control points instead of a geotransform.

    Between the points a thin-plate spline places the pixels. The PAN is not resampled; the MS is warped to its frame
    from now on, unless a scale and a shift do.

    Args:
        pan: the panchromatic image, with a geotransform or control points.
        ms: one raster, or one per band on one grid, likewise.
        notes: gets what was done.

    Raises:
        SceneError: too few points, or points that place no image.
        NoOverlapError: PAN and MS show different ground.
    """
    first = ms[0]
    rows, cols = (axis.ravel() for axis in np.meshgrid(*(np.linspace(0, n, _SIDE) for n in first.shape), indexing="ij"))
    on_ms: Places = np.stack([cols, rows], axis=1)
    try:
        on_pan = _from_ground(pan, _in_crs_of(pan, first, _to_ground(first, on_ms)))
    except (RasterioError, CRSError, CPLE_BaseError) as error:
        raise SceneError(f"the ground control points place no image: {error}", path=first.path) from error
    good = np.isfinite(on_pan).all(axis=1)
    on_ms, on_pan = on_ms[good], on_pan[good]
    low, high = on_pan.min(axis=0, initial=np.inf), on_pan.max(axis=0, initial=-np.inf)
    if (high <= 0).any() or (low >= pan.shape[::-1]).any():
        raise NoOverlapError(
            path=first.path, found=_range(low, high), expected=f"columns 0 to {pan.shape[1]}, rows 0 to {pan.shape[0]}"
        )
    columns = np.column_stack([on_ms, np.ones(len(on_ms))])
    linear = np.linalg.lstsq(columns, on_pan)[0].astype(np.float64)
    straight = GridMapping((linear[1, 1], linear[0, 0]), (linear[2, 1], linear[2, 0]))
    apart = np.abs(on_pan - on_ms * straight.ratio[::-1] - straight.offset[::-1]) / np.diag(linear)
    if min(straight.ratio) > 0 and apart.max() <= _STRAIGHT_MS_PX:
        notes.append(
            f"PAN and MS are related by ground control points (in x and y ratio {straight.ratio[1]:.6g} and "
            f"{straight.ratio[0]:.6g}, offset {straight.offset[1]:.2f} and {straight.offset[0]:.2f} PAN pixels)"
        )
        return straight
    grid, shape = grid_over(pan.shape, (low[1], high[1]), (low[0], high[0]), abs(np.linalg.det(linear[:2])) ** 0.5)
    points = [GroundControlPoint(m[1], m[0], *map(float, p)) for m, p in zip(on_ms, on_pan, strict=True)]
    for raster in ms:
        raster.warp_by_points(points, grid.transform, shape, pan)
    notes.append("the MS is warped to the grid of the PAN by ground control points (thin-plate spline, cubic)")
    return grid


def _to_ground(raster: Raster, places: Places) -> Places:
    if raster.georeferenced:
        return np.stack(raster.transform @ places.T, axis=1)
    with _spline(raster) as spline:
        return np.stack(spline.xy(places[:, 1], places[:, 0], offset="ul"), axis=1).astype(np.float64)


def _from_ground(raster: Raster, ground: Places) -> Places:
    if raster.georeferenced:
        return np.stack(~raster.transform @ ground.T, axis=1)
    with _spline(raster) as spline:
        rows, cols = spline.rowcol(ground[:, 0], ground[:, 1], op=np.asarray)
    return np.stack([cols, rows], axis=1)


def _spline(raster: Raster) -> GCPTransformer:
    if len(raster.control_points) < _LEAST:
        raise SceneError(
            "the image has too few ground control points", path=raster.path, found=len(raster.control_points),
            expected=f"at least {_LEAST}", cure="rectify it first, or take the points away (gdal_translate -nogcp)",
        )  # fmt: skip
    return GCPTransformer(raster.control_points, tps=True)


def _in_crs_of(pan: Raster, ms: Raster, ground: Places) -> Places:
    if not pan.ground_crs or not ms.ground_crs or pan.ground_crs == ms.ground_crs:
        return ground
    return np.stack(transform_points(ms.ground_crs, pan.ground_crs, ground[:, 0], ground[:, 1])[:2], axis=1)


def _range(low: Places, high: Places) -> str:
    return f"columns {low[0]:.0f} to {high[0]:.0f}, rows {low[1]:.0f} to {high[1]:.0f} of the PAN"
