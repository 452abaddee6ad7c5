"""An MS in another CRS, or turned against the PAN: warped to the PAN's grid while it is read."""

from collections.abc import Sequence

from rasterio._err import CPLE_BaseError
from rasterio.errors import CRSError, RasterioError
from rasterio.transform import Affine, array_bounds
from rasterio.warp import calculate_default_transform

from crossdiff_cli.errors import SceneError
from crossdiff_cli.geometry.grid import Grid
from crossdiff_cli.io.raster import Raster


def warp_to(pan: Raster, ms: Sequence[Raster]) -> Grid:
    """Put the MS on the PAN grid coarsened by the integer ratio nearest to the true one; return how it lies there.

    Args:
        pan: georeferenced.
        ms: one raster, or one per band on one grid, georeferenced.

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
        raise SceneError(f"cannot bring {first.path} to the CRS of {pan.path}: {reason}") from error
    assert rows is not None and columns is not None
    here, there = _ranges(pan.shape, pan.transform), _ranges((rows, columns), native)
    if any(a[0] >= b[1] or b[0] >= a[1] for a, b in zip(here, there, strict=True)):
        raise apart(pan, first.path, (rows, columns), native)
    ratio = max(1, round((abs(native.determinant) / abs(pan.transform.determinant)) ** 0.5))
    shape = (-(-pan.shape[0] // ratio), -(-pan.shape[1] // ratio))
    for raster in ms:
        raster.warp(crs, pan.transform @ Affine.scale(ratio), shape)
    return Grid((float(ratio), float(ratio)), (0.0, 0.0))


def apart(pan: Raster, ms: str, shape: tuple[int, int], transform: Affine) -> SceneError:
    """What to raise where the MS, on a grid in the CRS of the PAN, lies beside it."""
    covered = f"PAN covers {_covers(pan.shape, pan.transform)}, MS covers {_covers(shape, transform)}"
    return SceneError(f"{pan.path} and {ms} do not overlap: {covered}")


def _covers(shape: tuple[int, int], transform: Affine) -> str:
    (left, right), (bottom, top) = _ranges(shape, transform)
    return f"x {left:.10g} to {right:.10g}, y {bottom:.10g} to {top:.10g}"


def _ranges(shape: tuple[int, int], transform: Affine) -> list[tuple[float, float]]:
    """Least and largest x, and y, of a grid, turned or mirrored as it may be."""
    corners = [transform @ (column, row) for column in (0, shape[1]) for row in (0, shape[0])]
    return [(min(values), max(values)) for values in zip(*corners, strict=True)]
