"""`fuse` on xarray.DataArrays: the grid from coordinates, the result with coordinates."""

import numpy as np
import pytest
import xarray
from conftest import landscape

import crossdiff_cli as cd
from crossdiff_cli.errors import OptionError
from crossdiff_cli.io.labelled import grid_of

FOUR = {"sensor": "vhr", "bands": ("B", "G", "R", "NIR")}


def pair(first: int = 8) -> tuple[xarray.DataArray, xarray.DataArray]:
    """A PAN of .5 m whose MS of 2 m begins `first` PAN pixels to the south-east of its corner."""
    pan, ms = landscape((160, 160), 4, 4)
    pan_y, pan_x = 5e6 - 0.5 * (np.arange(160) + 0.5), 5e5 + 0.5 * (np.arange(160) + 0.5)
    ms_y, ms_x = 5e6 - 2 * (np.arange(40) + 0.5), 5e5 + 2 * (np.arange(40) + 0.5)
    cut = first // 4
    coords = {"band": list("BGRN"), "y": ms_y, "x": ms_x}
    dn = xarray.DataArray(ms.round().astype("uint16"), coords, ("band", "y", "x"), "dn", {"units": "1"})
    grey = xarray.DataArray(pan[0].round().astype("uint16"), dims=("y", "x"), coords={"y": pan_y, "x": pan_x})
    return grey.assign_coords(spatial_ref=0), dn[:, cut:, cut:]


def test_coordinates_place_the_ms_and_come_back():
    pan, ms = pair()
    grid = grid_of(pan, ms)
    assert grid is not None
    assert (grid.ratio, grid.offset) == (pytest.approx((4.0, 4.0)), pytest.approx((8.0, 8.0), abs=1e-6))
    fused = cd.fuse(pan, ms, **FOUR)
    assert isinstance(fused, xarray.DataArray)
    assert (fused.dims, fused.shape, fused.dtype, fused.name) == (("band", "y", "x"), (4, 160, 160), "uint16", "dn")
    assert list(fused.band.values) == list("BGRN")
    assert np.array_equal(fused.x, pan.x)
    assert np.array_equal(fused.y, pan.y)
    assert "spatial_ref" in fused.coords
    assert fused.attrs == {"units": "1"}
    plain = cd.fuse(pan.values, ms.values, ratio=4, offset=(8, 8), **FOUR)
    assert np.array_equal(fused.values, plain)


def test_without_coordinates_the_shapes_count():
    pan, ms = (image.drop_vars([*image.coords]) for image in pair(0))
    assert grid_of(pan, ms) is None
    fused = cd.fuse(pan, ms, **FOUR)
    assert fused.dims == ("band", "y", "x")
    assert np.array_equal(fused.values, cd.fuse(pan.values, ms.values, **FOUR))


def test_coordinates_that_are_no_grid_are_refused():
    pan, ms = pair(0)
    uneven = pan.assign_coords(x=pan.x.values + (pan.x.values > pan.x.values[80]))
    with pytest.raises(OptionError, match="not evenly spaced"):
        cd.fuse(uneven, ms, **FOUR)
    with pytest.raises(OptionError, match="opposite directions"):
        cd.fuse(pan[::-1], ms, **FOUR)
