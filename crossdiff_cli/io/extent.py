"""Which part of a scene is written: an area of the PAN grid, and some of the bands."""

import math
from collections.abc import Sequence
from contextlib import suppress

from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.transform import array_bounds
from rasterio.warp import transform_bounds

from crossdiff_cli.errors import SceneError, SensorError
from crossdiff_cli.geometry.window import Window
from crossdiff_cli.io.pair import ScenePair
from crossdiff_cli.options import Bounds

_EDGE_PX = 1e-6


def extent_of(pair: ScenePair, extent: str, bounds: Bounds | None = None, bounds_crs: str | None = None) -> Window:
    """Return the part of the PAN grid that a result takes.

    Args:
        pair: PAN and MS.
        extent: `intersection` of both, or the whole `pan`.
        bounds: take of that only the pixels whose centres lie within: bounds side by side neither overlap nor leave a
            gap. On a rotated grid the smallest rectangle of pixels around the bounds.
        bounds_crs: CRS of `bounds`, anything PROJ understands; None for that of the PAN.

    Raises:
        SceneError: the bounds miss the scene, the PAN has no georeference, or the CRS means nothing.
    """
    whole = pair.footprint if extent == "intersection" else Window(0, 0, *pair.pan.shape)
    if bounds is None:
        return whole
    if not pair.pan.georeferenced:
        raise SceneError("it has no georeference that --bounds could refer to", path=pair.pan.path)
    part = _pixels(pair, bounds if bounds_crs is None else _to_pan(pair, bounds, bounds_crs))
    inside = None if part is None else part.intersection(whole)
    if inside is None:
        covered = array_bounds(*whole.shape, pair.transform(whole))
        raise SceneError(
            "--bounds contains no pixel of it",
            path=pair.pan.path,
            found=f"{_list(bounds)} ({bounds_crs or 'CRS of the PAN'})",
            expected=f"a part of {_list(covered)} ({_name(pair.crs)})",
        )
    return inside


def chosen_bands(pair: ScenePair, names: Sequence[str] | None) -> tuple[int, ...]:
    """Return the places, from 0, of the named bands among those of the pair; all of them where none is named.

    Raises:
        SensorError: a name that the MS does not have, or one named twice.
    """
    own = [band.name for band in pair.bands]
    if names is None:
        return tuple(range(len(own)))
    places: list[int] = []
    for name in names:
        meant = name if name in own else _standard_name(pair, name)
        if meant not in own:
            raise SensorError(f"--out-bands: the MS has no band {name!r}", expected=",".join(own))
        if own.index(meant) in places:
            raise SensorError(f"--out-bands names the band {meant} twice", found=",".join(names))
        places.append(own.index(meant))
    return tuple(places)


def _standard_name(pair: ScenePair, name: str) -> str:
    with suppress(SensorError):
        return pair.sensor.select([name])[0].name
    return name


def _to_pan(pair: ScenePair, bounds: Bounds, crs: str) -> Bounds:
    if pair.crs is None:
        raise SceneError(
            "it has no CRS", path=pair.pan.path, cure="leave --bounds-crs out and give --bounds in its coordinates"
        )
    try:
        left, bottom, right, top = transform_bounds(CRS.from_user_input(crs), pair.crs, *bounds)
    except (CRSError, ValueError) as error:
        raise SceneError(
            "--bounds-crs is not a CRS", found=repr(crs), cure="write EPSG:4326, a WKT or a PROJ string"
        ) from error
    except RasterioError as error:
        raise SceneError(
            f"--bounds of {crs} cannot be transformed to {_name(pair.crs)}", path=pair.pan.path, found=_list(bounds)
        ) from error
    if not all(math.isfinite(value) for value in (left, bottom, right, top)):
        raise SceneError(
            f"--bounds of {crs} has no place in {_name(pair.crs)}", path=pair.pan.path, found=_list(bounds)
        )
    return left, bottom, right, top


def _pixels(pair: ScenePair, bounds: Bounds) -> Window | None:
    """Pixels of the PAN grid, which may lie outside of the image, whose centres lie in the bounds."""
    left, bottom, right, top = bounds
    inverse = ~pair.pan.transform
    corners = [inverse @ corner for corner in ((left, bottom), (left, top), (right, bottom), (right, top))]
    edges = []
    for axis in (1, 0):
        values = [corner[axis] for corner in corners]
        edges.append([math.ceil(value - 0.5 - _EDGE_PX) for value in (min(values), max(values))])
    (row, row_end), (col, col_end) = edges
    return Window(row, col, row_end - row, col_end - col) if row_end > row and col_end > col else None


def _list(bounds: Bounds) -> str:
    return ",".join(f"{value:.9g}" for value in bounds)


def _name(crs: CRS | None) -> str:
    return "no CRS" if crs is None else str(crs.to_string())[:40]
