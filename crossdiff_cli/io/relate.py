"""How the MS grid lies on the PAN grid: by geotransforms, control points, RPCs or equal bounds, or warped to it."""

from collections.abc import Sequence

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.errors import CRSError, RasterioError
from rasterio.rpc import RPC
from rasterio.transform import RPCTransformer, array_bounds
from rasterio.warp import calculate_default_transform
from rasterio.warp import transform as transform_points

from crossdiff_cli.errors import NoOverlapError, SceneError
from crossdiff_cli.geometry.grid import GridMapping, grid_over, map_grids, same_bounds
from crossdiff_cli.io.control_points import relate_by_control_points
from crossdiff_cli.io.raster import Raster

_SAME_MS_PX = 0.05
"""Displacement between two CRS, in MS pixels, below which they are one: compound and axis-swapped ones, null shifts."""
_POINTS = 9
_SNAP_PX = 0.25
"""A ratio is rounded to a multiple of 1/8 where that moves no pixel by more than this many PAN pixels."""
_BENT_MS_PX = 1.0
"""What is left beside a scale and a shift, in MS pixels, from which two images have not one geometry."""
_PARALLAX_MS_PX = 2.0
"""How far terrain may move the MS against the PAN: more are two views."""
_HEIGHT_M = 500.0


def relate(pan: Raster, ms: Sequence[Raster], notes: list[str]) -> GridMapping:
    """Relate PAN and MS; an MS in another CRS, or turned against the PAN, is warped to its grid from now on.

    Args:
        pan: the panchromatic image.
        ms: one raster, or one per band on one grid.
        notes: gets what was assumed.

    Raises:
        SceneError: the images do not say how they lie, or show different ground.
    """
    first = ms[0]
    if not (pan.georeferenced and first.georeferenced):
        by_rpcs = pan.rpcs is not None and first.rpcs is not None
        if not by_rpcs and all(image.georeferenced or image.control_points for image in (pan, first)):
            return relate_by_control_points(pan, ms, notes)
        return _relate_unrectified(pan, first, notes)
    if bool(pan.crs) != bool(first.crs):
        notes.append(f"{(first if pan.crs else pan).path} has no CRS: the other image's is taken for both")
    if not same_crs(pan, first):
        notes.append(f"the MS is warped from {_name(first.crs)} to the PAN's {_name(pan.crs)} (cubic)")
        return _warp(pan, ms)
    turn = _turns_of_longitude(pan, first)
    grid = map_grids(pan.transform, Affine.translation(turn, 0) @ first.transform, first.shape)
    if grid is None:
        notes.append("the MS is rotated or mirrored against the PAN and warped to its grid (cubic)")
        return _warp(pan, ms)
    return grid


def same_crs(one: Raster, other: Raster) -> bool:
    """Return whether two images are in one CRS, as far as their pixels tell: one of them may have none.

    They are if the CRS are equal, or if going from one to the other moves no corner of `other` by more than
    `_SAME_MS_PX` of its pixels, as with a vertical part, another order of axes, or ETRS89 for WGS 84.
    """
    if not one.crs or not other.crs or one.crs == other.crs:
        return True
    rows, cols = other.shape
    corners = [other.transform @ place for place in ((0, 0), (cols, 0), (0, rows), (cols, rows), (cols / 2, rows / 2))]
    x, y = (list(values) for values in zip(*corners, strict=True))
    try:
        there = transform_points(other.crs, one.crs, x, y)
    except (RasterioError, CRSError, CPLE_BaseError):
        return False
    pixel = abs(other.transform.determinant) ** 0.5
    moved = np.hypot(np.subtract(there[0], x), np.subtract(there[1], y)).max()
    return bool(np.isfinite(moved) and moved <= _SAME_MS_PX * pixel)


def _turns_of_longitude(pan: Raster, ms: Raster) -> float:
    """Return what brings the MS's longitudes (0 to 360 degrees) to the PAN's (-180 to 180), or the other way round."""
    if not ((pan.crs and pan.crs.is_geographic) or (ms.crs and ms.crs.is_geographic)):
        return 0.0
    middles = [(raster.transform @ (raster.shape[1] / 2, raster.shape[0] / 2))[0] for raster in (pan, ms)]
    return 360.0 * round((middles[0] - middles[1]) / 360.0)


def _relate_unrectified(pan: Raster, ms: Raster, notes: list[str]) -> GridMapping:
    """Relate by the RPCs where both images have them, else assume the same ground."""
    placed = [bool(image.georeferenced or image.control_points) for image in (pan, ms)]
    if placed[0] != placed[1]:
        which = ms.path if placed[0] else pan.path
        notes.append(f"{which} has no georeference: PAN and MS are taken to cover the same ground exactly")
    elif pan.rpcs is not None and ms.rpcs is not None:
        if grid := relate_rpcs(pan.rpcs, ms.rpcs, pan.shape, (pan.path, ms.path)):
            notes.append(
                "the images are not rectified: PAN and MS are related by their RPCs (in x and y ratio "
                f"{grid.ratio[1]:.6g} and {grid.ratio[0]:.6g}, offset {grid.offset[1]:.2f} and "
                f"{grid.offset[0]:.2f} PAN pixels)"
            )
            return grid
        notes.append("the RPCs do not relate PAN and MS: they are taken to cover the same ground exactly")
    elif pan.rpcs is not None or ms.rpcs is not None:
        notes.append("the images are not rectified: PAN and MS are taken to cover the same ground exactly")
    assumed = same_bounds(pan.shape, ms.shape)
    if abs(assumed.ratio[0] / assumed.ratio[1] - 1) > 0.02:
        raise SceneError(
            "PAN and MS have no georeference and different proportions", path=ms.path,
            found=f"{ms.shape[1]} x {ms.shape[0]} pixels", expected=f"those of {pan.shape[1]} x {pan.shape[0]}",
            cure="do they show the same ground?",
        )  # fmt: skip
    return assumed


def _warp(pan: Raster, ms: Sequence[Raster]) -> GridMapping:
    """Put the MS on the PAN grid coarsened by the integer ratio nearest to the true one, where both overlap.

    Raises:
        SceneError: the MS cannot be brought to the CRS of the PAN, or lies elsewhere.
    """
    first = ms[0]
    crs = pan.crs or first.crs
    try:
        bounds = array_bounds(*first.shape, first.transform)
        native, columns, rows = calculate_default_transform(first.crs or crs, crs, *first.shape[::-1], *bounds)
    except (RasterioError, CRSError, CPLE_BaseError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
        raise SceneError(f"the MS cannot be brought to the CRS of {pan.path}: {reason}", path=first.path) from error
    assert rows is not None and columns is not None
    here, there = _ranges(pan.shape, pan.transform), _ranges((rows, columns), native)
    if any(a[0] >= b[1] or b[0] >= a[1] for a, b in zip(here, there, strict=True)):
        raise apart(pan, first.path, (rows, columns), native)
    across, down = _ranges((rows, columns), ~pan.transform @ native)
    ratio = (abs(native.determinant) / abs(pan.transform.determinant)) ** 0.5
    grid, shape = grid_over(pan.shape, down, across, ratio)
    for raster in ms:
        raster.warp(crs, pan.transform @ grid.transform, shape)
    return grid


def apart(pan: Raster, ms: str, shape: tuple[int, int], transform: Affine) -> NoOverlapError:
    """Return what to raise where the MS, on a grid in the CRS of the PAN, lies beside it."""
    return NoOverlapError(
        path=ms, found=_covers(shape, transform), expected=f"{_covers(pan.shape, pan.transform)} as {pan.path}"
    )


def _covers(shape: tuple[int, int], transform: Affine) -> str:
    (left, right), (bottom, top) = _ranges(shape, transform)
    return f"x {left:.10g} to {right:.10g}, y {bottom:.10g} to {top:.10g}"


def _ranges(shape: tuple[int, int], transform: Affine) -> list[tuple[float, float]]:
    """Least and largest x, and y, of a grid, turned or mirrored as it may be."""
    corners = [transform @ (column, row) for column in (0, shape[1]) for row in (0, shape[0])]
    return [(min(values), max(values)) for values in zip(*corners, strict=True)]


def _name(crs: object) -> str:
    return str(getattr(crs, "to_string", lambda: str(crs))())[:40]


def relate_rpcs(pan: RPC, ms: RPC, pan_shape: tuple[int, int], names: tuple[str, str]) -> GridMapping | None:
    """Relate two images of one acquisition by the ground that their RPCs give to their pixels.

    Args:
        pan: of the PAN.
        ms: of the MS.
        pan_shape: rows and columns of the PAN.
        names: of PAN and MS, for the error.

    Returns:
        The grid, or None where the polynomials do not say (no finite positions).

    Raises:
        SceneError: the two are no scaled and shifted copy of each other: other views, or other geometries.
    """
    level = pan.height_off
    try:
        on_pan, on_ms = _seen(pan, ms, pan_shape, level)
        above = [_seen(pan, ms, pan_shape, level + sign * min(pan.height_scale, _HEIGHT_M)) for sign in (-1, 1)]
    except RasterioError:
        return None
    if len(on_pan) < _POINTS or np.ptp(on_ms, axis=0).min() <= 0:
        return None
    ratios = [float(np.polyfit(on_ms[:, axis], on_pan[:, axis], 1)[0]) for axis in (0, 1)]
    if min(ratios) <= 0:
        raise SceneError(
            f"PAN and MS are mirrored against each other by their RPCs ({names[0]})", path=names[1],
            cure="rectify both first",
        )  # fmt: skip
    ratios = [_snapped(ratio, float(np.ptp(on_ms[:, axis]))) for axis, ratio in enumerate(ratios)]
    offsets = (on_pan - on_ms * ratios).mean(axis=0)
    for (there, here), limit, why in (
        ((on_pan, on_ms), _BENT_MS_PX, "after the best scale and shift"),
        (above[0], _PARALLAX_MS_PX, "at another ground height: two views"),
        (above[1], _PARALLAX_MS_PX, "at another ground height: two views"),
    ):
        apart = float(np.abs((there - here * ratios - offsets) / ratios).max(initial=0.0))
        if apart > limit:
            raise SceneError(
                f"PAN and MS lie apart by their RPCs {why}", path=names[1],
                found=f"{apart:.1f} MS pixels from {names[0]}", expected=f"at most {limit:g}",
                cure="give PAN and MS of one acquisition, or rectify both first",
            )  # fmt: skip
    return GridMapping((ratios[0], ratios[1]), (float(offsets[0]), float(offsets[1])))


def _seen(pan: RPC, ms: RPC, shape: tuple[int, int], height: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions (n, 2: row, column) on PAN and MS of points of ground spread over the PAN, at one height."""
    rows, cols = (axis.ravel() for axis in np.meshgrid(*(np.linspace(0, n, _POINTS) for n in shape), indexing="ij"))
    heights = np.full(rows.shape, height)
    with RPCTransformer(pan) as on_pan, RPCTransformer(ms) as on_ms:
        x, y = (np.asarray(v) for v in on_pan.xy(rows, cols, zs=heights))
        found = [np.stack(image.rowcol(x, y, zs=heights, op=np.asarray), axis=1) for image in (on_pan, on_ms)]
    good = np.isfinite(found[0]).all(axis=1) & np.isfinite(found[1]).all(axis=1)
    return found[0][good], found[1][good]


def _snapped(ratio: float, extent: float) -> float:
    near = round(ratio * 8) / 8
    return near if abs(near - ratio) * extent <= _SNAP_PX else ratio
