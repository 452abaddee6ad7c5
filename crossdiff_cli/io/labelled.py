"""Arrays with named dimensions and coordinates (xarray.DataArray): grids from coordinates, and back."""

import sys
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from crossdiff_cli.errors import OptionError
from crossdiff_cli.geometry.grid import GridMapping

_UNEVEN = 1e-3
"""Largest deviation of a coordinate from even spacing, as a share of the spacing."""


def is_labelled(image: object) -> TypeGuard[Any]:
    """Return whether an image is an xarray.DataArray; xarray is not imported for it."""
    xarray = sys.modules.get("xarray")
    return xarray is not None and isinstance(image, xarray.DataArray)


def grid_of(pan: Any, ms: Any) -> GridMapping | None:
    """Return how the MS (band, y, x) lies on the PAN (y, x) by their coordinates of pixel centres.

    Returns:
        None where either has no coordinates along its last two dimensions.

    Raises:
        OptionError: coordinates that are not evenly spaced or run in opposite directions.
    """
    ratio, offset = [], []
    for axis in (-2, -1):
        found = [_axis(image, axis) for image in (pan, ms)]
        if found[0] is None or found[1] is None:
            return None
        (pan_first, pan_step), (ms_first, ms_step) = found[0], found[1]
        if pan_step * ms_step <= 0:
            raise OptionError(f"the coordinates {pan.dims[axis]!r} of PAN and MS run in opposite directions")
        ratio.append(ms_step / pan_step)
        offset.append(((ms_first - ms_step / 2) - (pan_first - pan_step / 2)) / pan_step)
    return GridMapping((ratio[0], ratio[1]), (offset[0], offset[1]))


def _axis(image: Any, axis: int) -> tuple[float, float] | None:
    """Return the first coordinate of a dimension and the spacing; None without coordinates or of a single pixel."""
    name = image.dims[axis]
    if name not in image.coords or image.sizes[name] < 2:
        return None
    values = np.asarray(image.coords[name].values, dtype=np.float64)
    step = float(values[-1] - values[0]) / (len(values) - 1)
    if not step or np.abs(np.diff(values) - step).max() > _UNEVEN * abs(step):
        raise OptionError(f"the coordinates {name!r} are not evenly spaced", cure="give ratio and offset instead")
    return float(values[0]), step


def labelled(fused: NDArray[Any], pan: Any, ms: Any) -> Any:
    """Return a result (C, H, W) as a DataArray: bands, name and attributes of the MS, rows and columns of the PAN."""
    names = (ms.dims[0], *pan.dims[-2:])
    coords = {name: value for name, value in ms.coords.items() if set(value.dims) <= {ms.dims[0]}}
    coords |= {name: value for name, value in pan.coords.items() if set(value.dims) <= set(pan.dims[-2:])}
    return type(ms)(fused, coords=coords, dims=names, name=ms.name, attrs=ms.attrs)
