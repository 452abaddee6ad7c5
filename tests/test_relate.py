"""PAN and MS in other CRS, turned, or with longitudes counted differently: masks and footprints stay what they are."""

from dataclasses import replace

import numpy as np
import pytest
import rasterio
from conftest import PAN_GRID, landscape, sharpen_options, write_raster
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.transform import Affine
from rasterio.warp import Resampling, calculate_default_transform, reproject

from crossdiff_cli.geometry.window import Window
from crossdiff_cli.io.open_pair import open_pair
from crossdiff_cli.io.raster import Raster
from crossdiff_cli.options import PairOptions
from crossdiff_cli.tasks.sharpen import sharpen

FOUR = PairOptions(sensor="vhr", bands=("B", "G", "R", "NIR"))
MS_GRID = PAN_GRID @ Affine.scale(4)
NULL_SHIFT = (
    'PROJCS["UTM 33N",GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563],'
    'TOWGS84[0,0,0,0,0,0,0]],PRIMEM["Greenwich",0],UNIT["degree",0.0174532925199433]],PROJECTION["Transverse_Mercator"],'
    'PARAMETER["latitude_of_origin",0],PARAMETER["central_meridian",15],PARAMETER["scale_factor",0.9996],'
    'PARAMETER["false_easting",500000],PARAMETER["false_northing",0],UNIT["metre",1]]'
)


def south_up(folder, dtype="uint16", **profile):
    """A pair whose MS is stored from south to north, half as large as the PAN, with a black collar at its west."""
    pan, ms = (x.astype(dtype) for x in landscape((512, 512), 4, 4))
    ms = ms[:, :64, :64]
    ms[:, :, :16] = 0
    mirrored = MS_GRID @ Affine.translation(0, 64) @ Affine.scale(1, -1)
    return (
        write_raster(folder / "pan.tif", pan, PAN_GRID),
        write_raster(folder / "ms.tif", ms[:, ::-1], mirrored, **profile),
    )


def test_an_undeclared_collar_is_found_before_the_ms_is_warped(tmp_path):
    pan, ms = south_up(tmp_path)
    with open_pair(pan, [ms], FOUR) as pair:
        assert len(pair.notes) == 2
        mask = pair.read(Window(0, 0, 256, 256)).ms_mask[4:-4, 4:-4]
    assert not mask[:, :15].any()
    assert mask[1:-1, 18:-1].all()


def test_nodata_none_counts_for_a_warped_ms_too(tmp_path):
    pan, ms = south_up(tmp_path, nodata=0)
    with open_pair(pan, [ms], replace(FOUR, nodata="none")) as pair:
        assert pair.read(Window(0, 0, 256, 256)).ms_mask[5:-5, 5:-5].all()


def test_a_warped_pair_is_cropped_to_the_common_footprint(tmp_path, small_weights):
    pan, ms = south_up(tmp_path)
    sharpen(pan, [ms], tmp_path / "out.tif", sharpen_options(FOUR, small_weights, "cpu"))
    with rasterio.open(tmp_path / "out.tif") as file:
        assert file.shape == (256, 256)
        assert file.transform == PAN_GRID


def test_a_near_infrared_band_that_gdal_takes_for_alpha_is_warped(tmp_path):
    pan, ms = landscape((512, 512), 4, 4)
    pan, ms = (pan * 0.25).astype("uint8"), (ms * 0.25).astype("uint8")
    mirrored = MS_GRID @ Affine.translation(0, 128) @ Affine.scale(1, -1)
    pan = write_raster(tmp_path / "pan.tif", pan, PAN_GRID)
    path = write_raster(tmp_path / "ms.tif", ms[:, ::-1], mirrored, photometric="RGB", alpha="UNSPECIFIED")
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    with open_pair(pan, [path], PairOptions(sensor="vhr", bands=("R", "G", "B", "NIR"))) as pair:
        patch = pair.read(Window(0, 0, 512, 512))
    assert patch.ms_mask[5:-5, 5:-5].all()
    assert np.abs(patch.ms[:, 8:-8, 8:-8] - ms[:, 4:-4, 4:-4]).max() < 1


@pytest.mark.parametrize(
    "crs", ["EPSG:32633+5773", NULL_SHIFT, "EPSG:25833"], ids=["compound", "null towgs84", "ETRS89"]
)
def test_equivalent_crs_cause_no_warp(tmp_path, crs):
    pan, ms = (x.astype("uint16") for x in landscape((256, 256), 4, 4))
    pan = write_raster(tmp_path / "pan.tif", pan, PAN_GRID, CRS.from_epsg(32633))
    ms = write_raster(tmp_path / "ms.tif", ms, MS_GRID, CRS.from_user_input(crs))
    with open_pair(pan, [ms], FOUR) as pair:
        assert pair.notes == ()
        assert pair.ms[0].transform == MS_GRID
        assert pair.crs == CRS.from_epsg(32633)


def test_another_zone_is_warped_to_where_it_lies(tmp_path):
    pan, ms = (x.astype("float32") for x in landscape((512, 512), 4, 4))
    pan = write_raster(tmp_path / "pan.tif", pan, PAN_GRID)
    with rasterio.open(write_raster(tmp_path / "own.tif", ms, MS_GRID)) as own:
        grid, width, height = calculate_default_transform(own.crs, "EPSG:32634", own.width, own.height, *own.bounds)
        moved = np.full((4, height, width), np.nan, "float32")
        reproject(
            ms, moved, src_transform=own.transform, src_crs=own.crs, dst_transform=grid, dst_crs="EPSG:32634",
            resampling=Resampling.cubic, dst_nodata=np.nan,
        )  # fmt: skip
    other = write_raster(tmp_path / "other.tif", moved, grid, "EPSG:32634", nodata=np.nan)
    with open_pair(pan, [other], FOUR) as pair:
        patch = pair.read(Window(0, 0, 512, 512))
        inner = patch.ms_mask.copy()
        inner[:12], inner[-12:], inner[:, :12], inner[:, -12:] = False, False, False, False
        row, col = (round(o / 4) for o in patch.offset)
        wanted = np.full_like(patch.ms, np.nan)
        rows, cols = patch.ms.shape[1:]
        wanted[:, -row : 128 - row, -col : 128 - col] = ms[:, : rows + row, : cols + col]
    assert inner.mean() > 0.5
    assert np.nanmedian(np.abs(patch.ms - wanted)[:, inner]) < 25


@pytest.mark.parametrize("start", [(-0.01, 359.99), (359.99, -0.01)])
def test_longitudes_of_0_to_360_degrees_meet_those_of_180_to_180(tmp_path, start):
    pan, ms = (x.astype("uint16") for x in landscape((256, 256), 4, 4))
    grids = [Affine(1e-5, 0, west, 0, -1e-5, 45) for west in start]
    pan = write_raster(tmp_path / "pan.tif", pan, grids[0], "EPSG:4326")
    ms = write_raster(tmp_path / "ms.tif", ms, grids[1] @ Affine.scale(4), "EPSG:4326")
    with open_pair(pan, [ms], FOUR) as pair:
        assert pair.footprint == Window(0, 0, 256, 256)
        assert pair.grid.offset == pytest.approx((0, 0), abs=1e-3)


def test_a_feathered_alpha_band_is_no_near_infrared(tmp_path):
    data = np.full((4, 64, 64), 120, "uint8")
    data[3] = 255
    data[3, :, :3], data[3, :, 3] = 0, 128
    path = write_raster(tmp_path / "a.tif", data, PAN_GRID, photometric="RGB", alpha="UNSPECIFIED")
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    with Raster(path) as raster:
        assert raster.indexes == [1, 2, 3]
        assert not raster.read(Window(0, 0, 64, 64))[1][:, :3].any()
