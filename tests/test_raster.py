from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import rasterio
from conftest import write_raster
from rasterio.enums import ColorInterp
from rasterio.env import get_gdal_config

from crossdiff_cli.errors import SceneError, UnreadableError
from crossdiff_cli.geometry.window import Window
from crossdiff_cli.io.cache import bounded_cache
from crossdiff_cli.io.raster import Raster


@pytest.fixture
def data():
    return np.random.default_rng(0).integers(1, 2000, (4, 60, 70)).astype("uint16")


def test_a_window_beyond_the_image_is_invalid_there(tmp_path, data):
    with Raster(write_raster(tmp_path / "a.tif", data)) as raster:
        got, mask = raster.read(Window(-5, 60, 20, 20))
    assert np.array_equal(got[:, 5:, :10], data[:, :15, 60:])
    assert mask[5:, :10].all()
    assert not mask[:5].any()
    assert not mask[:, 10:].any()
    assert not got[:, ~mask].any()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
def test_dtypes_are_read_as_float32(tmp_path, dtype):
    values = np.random.default_rng(1).integers(0, 120, (2, 20, 20)).astype(dtype)
    with Raster(write_raster(tmp_path / "a.tif", values)) as raster:
        got, mask = raster.read(Window(0, 0, 20, 20))
        assert raster.dtype == dtype
    assert got.dtype == np.float32
    assert np.array_equal(got, values.astype(np.float32))
    assert mask.all()


def test_nodata_in_any_band_masks_the_pixel(tmp_path, data):
    data[2, 10, 10] = 0
    with Raster(write_raster(tmp_path / "a.tif", data, nodata=0)) as raster:
        got, mask = raster.read(Window(0, 0, 60, 70))
    assert not mask[10, 10]
    assert mask.sum() == mask.size - 1
    assert not got[:, 10, 10].any()


def test_nan_and_infinity_are_masked(tmp_path):
    values = np.ones((2, 20, 20), "float32")
    values[0, 3, 4], values[1, 5, 6] = np.nan, np.inf
    with Raster(write_raster(tmp_path / "a.tif", values)) as raster:
        got, mask = raster.read(Window(0, 0, 20, 20))
    assert sorted(zip(*np.nonzero(~mask), strict=True)) == [(3, 4), (5, 6)]
    assert np.isfinite(got).all()


def test_internal_mask_band(tmp_path, data):
    path = tmp_path / "a.tif"
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        write_raster(path, data)
        with rasterio.open(path, "r+") as file:
            valid = np.full((60, 70), 255, "uint8")
            valid[:7] = 0
            file.write_mask(valid)
    with Raster(str(path)) as raster:
        _, mask = raster.read(Window(0, 0, 60, 70))
        assert raster.count == 4
    assert not mask[:7].any()
    assert mask[7:].all()


def test_a_true_alpha_band_is_a_mask_and_no_data(tmp_path):
    values = np.full((4, 20, 20), 99, "uint8")
    values[3] = 255
    values[3, :5] = 0
    path = write_raster(tmp_path / "a.tif", values, photometric="RGB", alpha="YES")
    with Raster(path) as raster:
        _, mask = raster.read(Window(0, 0, 20, 20))
        assert raster.count == 3
    assert not mask[:5].any()
    assert mask[5:].all()


def test_near_infrared_taken_for_alpha_by_gdal_is_data(tmp_path):
    values = np.random.default_rng(0).integers(0, 250, (4, 20, 20)).astype("uint8")
    path = write_raster(tmp_path / "a.tif", values, photometric="RGB", alpha="YES")
    with rasterio.open(path) as file:
        assert file.colorinterp[3] == ColorInterp.alpha
    with Raster(path) as raster:
        got, mask = raster.read(Window(0, 0, 20, 20))
        assert raster.count == 4
    assert np.array_equal(got[3], values[3])
    assert mask.all()


def test_one_band_by_suffix(tmp_path, data):
    path = write_raster(tmp_path / "a.tif", data)
    with Raster(f"{path},band=3") as raster:
        got, _ = raster.read(Window(0, 0, 60, 70))
    assert np.array_equal(got[0], data[2])
    with pytest.raises(SceneError) as caught:
        Raster(f"{path},band=7")
    assert (caught.value.path, caught.value.found) == (path, "4 bands")


def test_threads_read_at_once(tmp_path, data):
    with Raster(write_raster(tmp_path / "a.tif", data)) as raster, ThreadPoolExecutor(4) as pool:
        windows = [Window(r, c, 20, 20) for r in range(0, 40, 5) for c in range(0, 50, 5)]
        for window, (got, _) in zip(windows, pool.map(raster.read, windows), strict=True):
            assert np.array_equal(got, data[:, window.row : window.row + 20, window.col : window.col + 20])


def test_missing_foreign_complex_and_truncated_files(tmp_path, data):
    with pytest.raises(UnreadableError) as caught:
        Raster(str(tmp_path / "nowhere.tif"))
    assert caught.value.path == str(tmp_path / "nowhere.tif")
    text = tmp_path / "text.tif"
    text.write_text("no raster")
    with pytest.raises(UnreadableError):
        Raster(str(text))
    with pytest.raises(SceneError) as caught:
        Raster(write_raster(tmp_path / "c.tif", np.zeros((1, 8, 8), "complex64")))
    assert caught.value.found == "complex64"
    whole = tmp_path / "whole.tif"
    write_raster(whole, data, compress="deflate")
    cut = tmp_path / "cut.tif"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(UnreadableError), Raster(str(cut)) as raster:
        raster.read(Window(0, 0, 60, 70))


def test_a_damaged_sidecar_does_no_harm(tmp_path, data):
    path = write_raster(tmp_path / "a.tif", data)
    (tmp_path / "a.xml").write_text("<isd><IMD><BAND_B></IMD")
    with Raster(path) as raster:
        got, mask = raster.read(Window(0, 0, 60, 70))
    assert np.array_equal(got, data)
    assert mask.all()


def test_strips_are_what_windows_side_by_side_have_in_common(tmp_path):
    values = np.zeros((3, 64, 600), "uint16")
    with Raster(write_raster(tmp_path / "strips.tif", values)) as strips:
        assert strips.strip_bytes == 600 * 3 * 2
    with Raster(write_raster(tmp_path / "tiles.tif", values, tiled=True, blockxsize=256, blockysize=64)) as tiles:
        assert tiles.strip_bytes == 0


@pytest.mark.parametrize(("wanted", "given_mib"), [(0, 32), (100 * 2**20, 100), (1e12, 192)])
def test_the_block_cache_has_what_is_wanted_within_limits(wanted, given_mib):
    with bounded_cache(["pan.tif"]):
        with bounded_cache(["pan.tif"], wanted):
            assert get_gdal_config("GDAL_CACHEMAX") == given_mib * 2**20
        assert get_gdal_config("GDAL_CACHEMAX") == 32 * 2**20


@pytest.mark.parametrize(
    "path", ["/vsicurl/https://host/ms.tif", "https://host/ms.tif", "/vsizip//vsis3/order.zip/ms.tif", "s3://b/ms.tif"]
)
def test_over_a_network_the_block_cache_is_large(path):
    with bounded_cache(["pan.tif", path]):
        assert get_gdal_config("GDAL_CACHEMAX") == 192 * 2**20
