"""How the MS grid lies on the PAN grid where rational polynomials, not a geotransform, say what ground they show."""

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.rpc import RPC
from rasterio.transform import RPCTransformer

from crossdiff_cli.errors import SceneError
from crossdiff_cli.geometry.grid import Grid

_POINTS = 9
_SNAP_PX = 0.25
"""A ratio is rounded to a multiple of 1/8 where that moves no pixel by more than this many PAN pixels."""
_BENT_MS_PX = 1.0
"""What is left beside a scale and a shift, in MS pixels, from which two images have not one geometry."""
_PARALLAX_MS_PX = 2.0
"""How far terrain may move the MS against the PAN: more are two views."""
_HEIGHT_M = 500.0


def relate_rpcs(pan: RPC, ms: RPC, pan_shape: tuple[int, int], names: tuple[str, str]) -> Grid | None:
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
        raise SceneError(f"{names[0]} and {names[1]} are mirrored against each other by their RPCs: rectify both first")
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
                f"by their RPCs {names[0]} and {names[1]} lie {apart:.1f} MS pixels apart {why}; give PAN and MS of "
                "one acquisition, or rectify both first"
            )
    return Grid((ratios[0], ratios[1]), (float(offsets[0]), float(offsets[1])))


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
