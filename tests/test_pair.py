import numpy as np
import pytest
import rasterio
from conftest import landscape, write_raster
from rasterio.transform import Affine
from rasterio.warp import Resampling, reproject, transform_bounds

from crossdiff_cli.errors import NoOverlapError, RatioError, SceneError, SensorError, UnreadableError
from crossdiff_cli.geometry.window import Window
from crossdiff_cli.io.open_pair import open_pair
from crossdiff_cli.options import PairOptions

PAN = Affine(0.5, 0, 500000, 0, -0.5, 5000000)
FOUR = PairOptions(sensor="vhr", bands=("B", "G", "R", "NIR"))


def test_pan_window_and_the_ms_under_it(make_pair):
    files = make_pair()
    with open_pair(files.pan, [files.ms], FOUR) as pair, rasterio.open(files.ms) as ms:
        patch = pair.read(Window(64, 128, 32, 48))
        assert patch.pan.shape == (1, 32, 48)
        row, col = round((64 + patch.offset[0]) / 4), round((128 + patch.offset[1]) / 4)
        height, width = patch.ms_mask.shape
        assert np.array_equal(patch.ms, ms.read(window=((row, row + height), (col, col + width))))
        assert patch.valid.all()


def test_band_files_in_any_order_stack_in_the_order_given(make_pair, tmp_path, read_all):
    files = make_pair()
    bands = read_all(files.ms)
    with rasterio.open(files.ms) as source:
        grid = source.transform
    names = [
        write_raster(tmp_path / f"scene_{name}.tif", bands[i : i + 1], grid)
        for i, name in ((2, "red"), (0, "blu"), (1, "grn"))
    ]
    with open_pair(files.pan, names, PairOptions(sensor="vhr")) as pair:
        assert [band.name for band in pair.bands] == ["R", "B", "G"]
        patch = pair.read(Window(0, 0, 64, 64))
        assert np.array_equal(patch.ms[1, 4:20, 4:20], bands[0, :16, :16])


def test_band_files_on_different_grids_are_refused(make_pair):
    files, other = make_pair(), make_pair(shape=(200, 200), name="other")
    with pytest.raises(SceneError):
        open_pair(files.pan, [files.ms, other.ms], FOUR)


def test_extents_that_differ_by_a_part_of_an_ms_pixel(tmp_path):
    pan, ms = landscape((130, 122), 4, 4)
    files = (
        write_raster(tmp_path / "pan.tif", pan.astype("float32"), PAN),
        write_raster(tmp_path / "ms.tif", ms.astype("float32"), PAN @ Affine.translation(1.5, -0.75) @ Affine.scale(4)),
    )
    with open_pair(files[0], [files[1]], FOUR) as pair:
        assert pair.grid.offset == pytest.approx((-0.75, 1.5))
        assert pair.footprint == Window(0, 1, 127, 120)


@pytest.mark.parametrize("epsg", ["EPSG:32632", "EPSG:4326"])
def test_an_ms_in_another_crs_is_warped_to_its_place(tmp_path, epsg):
    """The MS, warped away by GDAL and back by the pair, lies where it was (independent: GDAL's own warp)."""
    y, x = np.mgrid[0:150, 0:150]
    smooth = np.stack([500 + 300 * np.sin(x / 9) * np.cos(y / 11), 400 + 200 * np.cos(x / 8 + y / 10)]).astype(
        "float32"
    )
    grid, crs = PAN @ Affine.scale(4), "EPSG:32633"
    bounds = transform_bounds(crs, epsg, *rasterio.transform.array_bounds(150, 150, grid))
    step = (bounds[2] - bounds[0]) / 170
    away = Affine(step, 0, bounds[0], 0, -step, bounds[3])
    warped = np.full((2, int((bounds[3] - bounds[1]) / step), 170), np.nan, "float32")
    reproject(
        smooth, warped, src_transform=grid, src_crs=crs, dst_transform=away, dst_crs=epsg, resampling=Resampling.cubic,
        dst_nodata=np.nan,
    )  # fmt: skip
    pan = write_raster(tmp_path / "pan.tif", np.ones((1, 600, 600), "float32"), PAN, crs)
    ms = write_raster(tmp_path / "ms.tif", warped, away, epsg, nodata=np.nan)
    with open_pair(pan, [ms], PairOptions(sensor="generic", bands=("G", "R"))) as pair:
        assert any("warped" in note for note in pair.notes)
        assert pair.grid.ratio == (4.0, 4.0)
        patch = pair.read(Window(160, 160, 320, 320))
    row, col = round((160 + patch.offset[0]) / 4), round((160 + patch.offset[1]) / 4)
    height, width = patch.ms_mask.shape
    assert patch.ms_mask.all()
    assert np.abs(patch.ms - smooth[:, row : row + height, col : col + width]).max() < 12


def test_warping_keeps_pixels_outside_the_ms_masked(tmp_path):
    pan = write_raster(tmp_path / "pan.tif", np.ones((1, 400, 400), "uint16"), PAN)
    half = rasterio.warp.transform_bounds("EPSG:32633", "EPSG:4326", 500000, 4999900, 500100, 5000000)
    step = (half[2] - half[0]) / 50
    ms = write_raster(
        tmp_path / "ms.tif",
        np.full((4, 40, 50), 77, "uint16"),
        Affine(step, 0, half[0], 0, -step, half[3]),
        "EPSG:4326",
    )
    with open_pair(pan, [ms], FOUR) as pair:
        patch = pair.read(Window(0, 0, 400, 400))
        valid = patch.valid
    assert not valid[:, 300:].any()
    assert valid[20:100, 20:150].all()
    assert (patch.ms[:, patch.ms_mask] == 77).all()


def test_undeclared_black_collar_is_nodata_unless_told_otherwise(make_pair):
    def collar(pan, ms):
        ms[:, :, :10] = 0
        pan[:, :, :40] = 0

    files = make_pair(edit=collar)
    with open_pair(files.pan, [files.ms], FOUR) as pair:
        assert pair.nodata == 0
        assert any("taken for nodata" in note for note in pair.notes)
        valid = pair.read(Window(0, 0, 256, 256)).valid
        assert not valid[:, :40].any()
        assert valid[:, 40:].all()
    options = PairOptions(sensor="vhr", bands=FOUR.bands, nodata="none")
    with open_pair(files.pan, [files.ms], options) as pair:
        assert pair.nodata is None
        assert pair.read(Window(0, 0, 256, 256)).valid.all()


TURNS = [Affine.identity(), Affine.scale(1, -1), Affine.scale(-1, 1), Affine.rotation(180), Affine.rotation(90)]


@pytest.mark.parametrize("turned_ms", TURNS)
@pytest.mark.parametrize("turned_pan", TURNS)
def test_any_way_up_is_read_and_anything_beside_it_is_refused(tmp_path, turned_pan, turned_ms):
    """Upside down, mirrored or turned: the MS, whose values are its places, is found on the ground of the PAN."""

    def raster(name, bands, size, pixel, turn, shift=0.0):
        grid = (
            PAN
            @ Affine.translation(80 + shift, 80)
            @ turn
            @ Affine.scale(pixel)
            @ Affine.translation(-size / 2, -size / 2)
        )
        rows, cols = np.mgrid[:size, :size] + 0.5
        x, y = grid.a * cols + grid.b * rows + grid.c, grid.d * cols + grid.e * rows + grid.f
        values = np.stack([x - PAN.c + 100, PAN.f - y + 100] * 2)[:bands].astype("float32")
        return write_raster(tmp_path / f"{name}.tif", values, grid), grid

    (pan, grid), (ms, _), (far, _) = (
        raster("pan", 1, 160, 1, turned_pan),
        raster("ms", 4, 40, 4, turned_ms),
        raster("far", 4, 40, 4, turned_ms, shift=170),
    )
    with open_pair(pan, [ms], FOUR) as pair:
        assert pair.footprint == Window(0, 0, 160, 160)
        patch = pair.read(Window(40, 48, 80, 64))
        assert patch.valid.all()
        rows, cols = ((np.arange(n) + 0.5) * 4 + o for n, o in zip(patch.ms_mask.shape, patch.offset, strict=True))
        x, y = grid @ (cols[None] + 48, rows[:, None] + 40)
        assert np.abs(patch.ms[0] - (x - PAN.c + 100))[patch.ms_mask].max() < 0.02
        assert np.abs(patch.ms[1] - (PAN.f - y + 100))[patch.ms_mask].max() < 0.02
    with pytest.raises(NoOverlapError):
        open_pair(pan, [far], FOUR)


def test_a_pair_in_two_crs_that_lies_apart_is_refused(tmp_path, make_pair):
    files = make_pair()
    far = write_raster(tmp_path / "far.tif", np.ones((4, 64, 64), "uint16"), PAN @ Affine.scale(4), crs="EPSG:32634")
    with pytest.raises(NoOverlapError):
        open_pair(files.pan, [far], FOUR)


def test_pairs_that_cannot_be_sharpened(make_pair, tmp_path):
    files = make_pair()
    far = make_pair(origin=(900000.0, 5000000.0), name="far")
    cases = [
        ((files.ms, [files.pan]), SceneError, files.ms, "4 bands"),
        ((files.pan, [far.ms]), NoOverlapError, far.ms, None),
        ((files.pan, [files.pan]), RatioError, files.pan, "ratio 1"),
        ((str(tmp_path / "none.tif"), [files.ms]), UnreadableError, str(tmp_path / "none.tif"), None),
    ]
    for (pan, ms), kind, path, found in cases:
        with pytest.raises(kind) as caught:
            open_pair(pan, ms, FOUR)
        assert caught.value.path == path
        assert found in (None, caught.value.found)
    one = write_raster(tmp_path / "one.tif", np.ones((1, 64, 64), "uint16"), PAN @ Affine.scale(4))
    with pytest.raises(RatioError):
        open_pair(one, [files.pan], PairOptions(sensor="vhr", bands=("B",)))
    with pytest.raises(SensorError) as caught:
        open_pair(files.pan, [files.ms], PairOptions(bands=("B", "G")))
    assert (caught.value.found, caught.value.expected) == ("2 names (B,G)", 4)
    with pytest.raises(SensorError):
        open_pair(files.pan, [files.ms], PairOptions(sensor="wv99"))


def test_without_georeference_the_proportions_must_agree(make_pair, tmp_path):
    files = make_pair(georeferenced=False)
    with open_pair(files.pan, [files.ms], FOUR) as pair:
        assert pair.grid.ratio == (4, 4)
        assert pair.transform(pair.footprint) is None
    odd = write_raster(tmp_path / "odd.tif", np.ones((4, 64, 50), "uint16"))
    with pytest.raises(SceneError) as caught:
        open_pair(files.pan, [odd], FOUR)
    assert (caught.value.path, caught.value.found) == (odd, "50 x 64 pixels")
