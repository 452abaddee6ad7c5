"""Fill values that no file declares, and numbers that float32 does not hold."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from conftest import PAN_GRID, landscape, sharpen_options, write_raster
from rasterio.transform import Affine

from crossdiff_cli.errors import SceneError
from crossdiff_cli.estimate.survey import survey
from crossdiff_cli.geometry.window import Window
from crossdiff_cli.io.open_pair import open_pair
from crossdiff_cli.io.raster import Raster
from crossdiff_cli.options import PairOptions
from crossdiff_cli.tasks.sharpen import sharpen

FOUR = PairOptions(sensor="vhr", bands=("B", "G", "R", "NIR"))
MS_GRID = PAN_GRID @ Affine.scale(4)


def pair_of(folder, dtype, fill=None, *, where=np.s_[:, :40], pan_fill=None, scale=1.0):
    """A pair of 512 x 512 PAN pixels, some MS pixels of which hold a fill value in every band."""
    pan, ms = (np.rint(x * scale).astype(dtype) for x in landscape((512, 512), 4, 4))
    if fill is not None:
        ms[:, *where] = fill
    if pan_fill is not None:
        pan[:, :, :160] = pan_fill
    return write_raster(folder / "pan.tif", pan, PAN_GRID), write_raster(folder / "ms.tif", ms, MS_GRID)


@pytest.mark.parametrize(
    ("dtype", "fill"),
    [
        ("float32", -3.4028234663852886e38), ("float32", 1e20), ("float32", 1e30), ("float32", -9999.0),
        ("float32", 0.0), ("float64", -9999.0), ("int16", -32768), ("int16", -9999),
        ("int32", -2147483648), ("uint16", 65535), ("uint16", 0), ("uint8", 0),
    ],
)  # fmt: skip
def test_a_fill_value_is_taken_for_nodata_with_a_warning(tmp_path, caplog, dtype, fill):
    pan, ms = pair_of(tmp_path, dtype, fill, scale=0.25 if dtype == "uint8" else 1.0)
    with open_pair(pan, [ms], FOUR) as pair:
        found = survey(pair.sample_windows(), pair.grid, pair.bands)
        mask = pair.read(Window(0, 0, 512, 512)).ms_mask
        assert len(pair.notes) == 1
        assert [record.levelname for record in caplog.records].count("WARNING") >= 1
    assert not mask[4:-4, 4:44].any()
    assert mask[4:-4, 44:-4].all()
    assert float(found.normalisation.ms_mean.min()) > 20
    assert float(found.normalisation.ms_std.max()) < 400
    if fill != -2147483648:  # float32 does not hold it
        with open_pair(pan, [ms], replace(FOUR, nodata="none")) as pair:
            assert pair.read(Window(0, 0, 512, 512)).ms_mask[4:-4, 4:-4].all()


def test_doubles_that_float32_does_not_reach_are_invalid_as_infinities_are(tmp_path):
    pan, ms = pair_of(tmp_path, "float64", -1.7976931348623157e308)
    with open_pair(pan, [ms], FOUR) as pair:
        patch = pair.read(Window(0, 0, 512, 512))
    assert not patch.ms_mask[4:-4, 4:44].any()
    assert np.isfinite(patch.ms).all()


@pytest.mark.parametrize("fill", [-9999.0, 1e20])
def test_fill_in_the_pan_alone_is_found_too(tmp_path, fill):
    pan, ms = pair_of(tmp_path, "float32", pan_fill=fill)
    with open_pair(pan, [ms], FOUR) as pair:
        patch = pair.read(Window(0, 0, 512, 512))
    assert not patch.pan_mask[:, :160].any()
    assert patch.pan_mask[:, 160:].all()
    assert patch.ms_mask[4:-4, 4:-4].all()


@pytest.mark.parametrize("where", [np.s_[30:62, 64:96], np.s_[:, 64:128]], ids=["block inside", "half"])
def test_a_missing_block_is_fill(tmp_path, where):
    pan, ms = pair_of(tmp_path, "uint16", 65535, where=where)
    with open_pair(pan, [ms], FOUR) as pair:
        mask = pair.read(Window(0, 0, 512, 512)).ms_mask[4:-4, 4:-4]
    assert not mask[where].any()
    assert mask.mean() > 0.4


@pytest.mark.parametrize("top", [2047, 65535])
def test_saturated_roofs_are_data(tmp_path, top):
    """Scattered, small, and one on the border."""
    pan, ms = landscape((512, 512), 4, 4)
    rng = np.random.default_rng(0)
    for row, col in ((0, 50), *rng.integers(4, 120, (25, 2))):
        ms[:, row : row + 3, col : col + 3] = top
        pan[:, 4 * row : 4 * row + 12, 4 * col : 4 * col + 12] = top
    files = (
        write_raster(tmp_path / "pan.tif", pan.astype("uint16"), PAN_GRID),
        write_raster(tmp_path / "ms.tif", ms.astype("uint16"), MS_GRID),
    )
    with open_pair(files[0], [files[1]], FOUR) as pair:
        assert pair.notes == ()
        patch = pair.read(Window(0, 0, 512, 512))
    assert patch.ms_mask[4:-4, 4:-4].all()
    assert patch.pan_mask.all()


def test_a_flat_image_with_a_few_odd_pixels_has_no_fill(tmp_path):
    pan, ms = np.full((1, 512, 512), 300, "uint16"), np.full((4, 128, 128), 200, "uint16")
    pan[:, 100:104, 100:104], ms[:, 25, 25] = 60000, 60000
    files = write_raster(tmp_path / "pan.tif", pan, PAN_GRID), write_raster(tmp_path / "ms.tif", ms, MS_GRID)
    with open_pair(files[0], [files[1]], FOUR) as pair:
        assert pair.notes == ()


def test_fill_does_not_change_what_lies_far_from_it(tmp_path, small_weights, read_all):
    options = sharpen_options(FOUR, small_weights, "cpu", "fp32", align=False, noise=False)
    results = {}
    for fill in (-9999, 1e20):
        folder = tmp_path / str(fill)
        folder.mkdir()
        pan, ms = pair_of(folder, "float32", fill)
        sharpen(pan, [ms], folder / "out.tif", options)
        results[fill] = read_all(folder / "out.tif")
        with rasterio.open(folder / "out.tif") as file:
            assert file.nodata == pytest.approx(fill)
    assert np.array_equal(results[-9999][:, :, 160:], results[1e20][:, :, 160:])


@pytest.mark.parametrize(
    ("stored", "text"),
    [(-3.4028234663852886e38, "-3.402823e+38"), (-3.4028234663852886e38, "-3.40282e+38"), (-0.1, "-0.1"), (7.0, "7")],
)
@pytest.mark.parametrize("by", ["file", "vrt", "option"])
def test_nodata_in_few_digits_masks_what_gdal_masks(tmp_path, stored, text, by):
    data = np.full((1, 8, 8), 7.5, "float32")
    data[0, :3] = stored
    path = write_raster(tmp_path / "a.tif", data, PAN_GRID, **({"nodata": float(text)} if by == "file" else {}))
    if by == "vrt":
        path = str(tmp_path / "a.vrt")
        (tmp_path / "a.vrt").write_text(
            '<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Float32" band="1">'
            f"<NoDataValue>{text}</NoDataValue>"
            '<SimpleSource><SourceFilename relativeToVRT="1">a.tif</SourceFilename><SourceBand>1'
            "</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
        )
    with Raster(path, nodata=float(text) if by == "option" else None) as raster:
        values, mask = raster.read(Window(0, 0, 8, 8))
    assert mask.tolist() == [[False] * 8] * 3 + [[True] * 8] * 5
    assert set(values.ravel().tolist()) == {0.0, 7.5}
    if by != "option":
        with rasterio.open(path) as file:
            assert np.array_equal(file.read_masks(1) > 0, mask)


@pytest.mark.parametrize("dtype", ["int32", "uint32"])
def test_integers_that_float32_does_not_hold_are_refused(tmp_path, dtype, small_weights):
    pan, ms = pair_of(tmp_path, dtype)
    with rasterio.open(ms, "r+") as file:
        data = file.read()
        data[1, 60, 60] = 2**24 + 1
        file.write(data)
    with pytest.raises(SceneError) as caught:
        sharpen(pan, [ms], tmp_path / "out.tif", sharpen_options(FOUR, small_weights, "cpu"))
    assert caught.value.path == ms
    assert caught.value.found == f"{dtype} values to {2**24 + 1}"
    assert not (tmp_path / "out.tif").exists()


def test_float64_that_float32_rounds_too_coarsely_is_refused(tmp_path):
    pan, ms = pair_of(tmp_path, "float64")
    with open_pair(pan, [ms], FOUR):
        pass
    with rasterio.open(ms, "r+") as file:
        file.write(file.read() / 1000 + 1e7)
    with pytest.raises(SceneError) as caught:
        open_pair(pan, [ms], FOUR)
    assert caught.value.path == ms


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_refused_pair_leaves_no_file_open(tmp_path, make_pair):
    """Also while the exceptions, whose tracebacks hold what was opened, are kept."""
    files, far = make_pair(), make_pair(origin=(900000.0, 5000000.0), name="far")
    other = write_raster(tmp_path / "other.tif", np.ones((4, 64, 64), "uint16"), MS_GRID, crs="EPSG:32634")
    kept = []
    before = open_files()
    for _ in range(20):
        for ms in ([far.ms], [files.pan], [other], [files.ms, far.ms], [f"{files.ms},band=9"]):
            with pytest.raises(SceneError) as caught:
                open_pair(files.pan, ms, FOUR)
            kept.append(caught.value)
    assert open_files() <= before + 2
    assert len(kept) == 100


def test_a_warped_ms_is_closed_with_its_source(tmp_path, make_pair):
    files = make_pair()
    turned = write_raster(
        tmp_path / "turned.tif",
        np.ones((4, 64, 64), "uint16"),
        PAN_GRID @ Affine.translation(0, 256) @ Affine.scale(4, -4),
    )
    before = open_files()
    for _ in range(20):
        with open_pair(files.pan, [turned], FOUR) as pair:
            pair.read(Window(0, 0, 64, 64))
    assert open_files() <= before + 2
