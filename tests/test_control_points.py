"""PAN and MS that ground control points place: related through the ground, the MS warped where it must be."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from conftest import PAN_GRID, sharpen_options, write_raster
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import transform as to_crs

from crossdiff_cli.cli.main import main
from crossdiff_cli.errors import NoOverlapError, SceneError
from crossdiff_cli.geometry.window import Window
from crossdiff_cli.io.open_pair import open_pair
from crossdiff_cli.options import PairOptions
from crossdiff_cli.tasks.sharpen import sharpen

FOUR = PairOptions(sensor="vhr", bands=("B", "G", "R", "NIR"))
CRS_ = CRS.from_epsg(32633)
PAN_SHAPE, MS_SHAPE = (320, 360), (80, 90)
ORIGIN = np.array(PAN_GRID @ (0, 0))
STEP = PAN_GRID.a


def ground(x, y):
    """What the scene shows at a place: smooth, so that interpolation hardly counts."""
    u, v = (np.asarray(x) - ORIGIN[0]) / STEP, (np.asarray(y) - ORIGIN[1]) / STEP
    return 500 + 150 * np.sin(u / 17) * np.cos(v / 23) + 100 * np.sin((u + 2 * v) / 41)


def plain(ratio):
    grid = PAN_GRID @ Affine.scale(ratio)
    return lambda col, row: grid @ (np.asarray(col), np.asarray(row))


def bent(ratio, by=3.0, turn=0.0):
    """A camera's geometry: turned by some degrees and bent by `by` PAN pixels."""
    grid = PAN_GRID @ Affine.rotation(turn) @ Affine.scale(ratio)

    def place(col, row):
        col, row = np.asarray(col, float), np.asarray(row, float)
        x, y = grid @ (col, row)
        return x + by * STEP * np.sin(row * ratio / 90), y + by * STEP * np.cos(col * ratio / 110)

    return place


def moved(place, cols, rows):
    """The geometry of an image that begins so many pixels farther."""
    return lambda col, row: place(np.asarray(col) + cols, np.asarray(row) + rows)


def write(path: Path, shape, bands, place, *, points=None, crs=CRS_, **profile):
    """An image of the ground, with control points every `points` pixels, or the geotransform of `plain`."""
    rows, cols = np.mgrid[: shape[0], : shape[1]] + 0.5
    values = ground(*place(cols, rows))
    data = np.stack([values * (1 + 0.1 * band) for band in range(bands)]).round().astype("uint16")
    if points is None:
        origin, right, down = (np.array(place(*at)) for at in ((0, 0), (1, 0), (0, 1)))
        transform = Affine(right[0] - origin[0], down[0] - origin[0], origin[0], right[1] - origin[1],
                           down[1] - origin[1], origin[1])  # fmt: skip
        return write_raster(path, data, transform, **profile)
    write_raster(path, data, None, **profile)
    at = [(r, c) for r in np.linspace(0, shape[0], points) for c in np.linspace(0, shape[1], points)]
    x, y = place(*np.array(at).T[::-1])
    x, y = to_crs(CRS_, crs, x, y)
    with rasterio.open(path, "r+") as file:
        file.gcps = [GroundControlPoint(r, c, *p) for (r, c), p in zip(at, zip(x, y, strict=True), strict=True)], crs
    return str(path)


def error_on_the_pan(pair, place):
    """Largest deviation of the MS, where `pair` says it lies, from the ground there, but for a border."""
    rows, cols = pair.ms[0].shape
    data, mask = pair.ms[0].read(Window(0, 0, rows, cols))
    row, col = np.mgrid[:rows, :cols] + 0.5
    x, y = pair.grid.transform @ (col, row)
    wanted = ground(*place(x, y))
    inner = mask.copy()
    for _ in range(3):
        inner[1:-1, 1:-1] &= inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    inner[:3] = inner[-3:] = False
    inner[:, :3] = inner[:, -3:] = False
    assert inner.mean() > 0.5
    return float(np.abs(data[0] - wanted)[inner].max())


@pytest.mark.parametrize("turn", [0.0, 7.0])
def test_an_ms_with_control_points_is_warped_to_a_rectified_pan(tmp_path, turn):
    pan = write(tmp_path / "pan.tif", PAN_SHAPE, 1, plain(1))
    ms = write(tmp_path / "ms.tif", MS_SHAPE, 4, bent(4, 4.0, turn), points=9)
    with open_pair(pan, [ms], FOUR) as pair:
        assert any("thin-plate spline" in note for note in pair.notes)
        assert pair.grid.ratio == (4.0, 4.0)
        assert error_on_the_pan(pair, plain(1)) < 2  # of 500 +- 250; a shift of a tenth of an MS pixel makes 4


def test_control_points_in_another_crs(tmp_path):
    pan = write(tmp_path / "pan.tif", PAN_SHAPE, 1, plain(1))
    ms = write(tmp_path / "ms.tif", MS_SHAPE, 4, bent(4), points=9, crs=CRS.from_epsg(4326))
    with open_pair(pan, [ms], FOUR) as pair:
        assert error_on_the_pan(pair, plain(1)) < 2


def test_an_ms_in_another_crs_lies_where_the_pan_is(tmp_path):
    """The warp between two CRS, by the same measure."""
    pan = write(tmp_path / "pan.tif", PAN_SHAPE, 1, plain(1))
    west, north = (float(v[0]) for v in to_crs(CRS_, "EPSG:3857", [ORIGIN[0]], [ORIGIN[1]]))
    grid = Affine(4 * STEP * 1.4, 0, west - 200 * STEP, 0, -4 * STEP * 1.4, north + 200 * STEP)
    rows, cols = np.mgrid[:160, :160] + 0.5
    x, y = grid @ (cols, rows)
    back = to_crs("EPSG:3857", CRS_, x.ravel(), y.ravel())
    values = ground(*(np.asarray(v).reshape(160, 160) for v in back))
    ms = write_raster(tmp_path / "ms.tif", np.stack([values] * 4).round().astype("uint16"), grid, crs="EPSG:3857")
    with open_pair(pan, [ms], FOUR) as pair:
        assert any("warped" in note for note in pair.notes)
        assert error_on_the_pan(pair, plain(1)) < 2


def test_one_geometry_of_both_leaves_the_ms_as_it_is(tmp_path):
    pan = write(tmp_path / "pan.tif", PAN_SHAPE, 1, bent(1), points=9)
    ms = write(tmp_path / "ms.tif", MS_SHAPE, 4, bent(4), points=9)
    with open_pair(pan, [ms], FOUR) as pair, rasterio.open(ms) as file:
        assert pair.grid.ratio == pytest.approx((4, 4), abs=1e-3)
        assert pair.grid.offset == pytest.approx((0, 0), abs=0.05)
        assert np.array_equal(pair.ms[0].read(Window(0, 0, *MS_SHAPE))[0], file.read())


def test_two_geometries_meet_in_the_frame_of_the_pan(tmp_path):
    pan = write(tmp_path / "pan.tif", PAN_SHAPE, 1, bent(1, 3.0, 2.0), points=9)
    ms = write(tmp_path / "ms.tif", MS_SHAPE, 4, bent(4, -3.0), points=9)
    with open_pair(pan, [ms], FOUR) as pair:
        assert error_on_the_pan(pair, bent(1, 3.0, 2.0)) < 2


def test_a_rectified_ms_is_warped_to_a_pan_with_control_points(tmp_path):
    pan = write(tmp_path / "pan.tif", PAN_SHAPE, 1, bent(1, 5.0), points=9)
    ms = write(tmp_path / "ms.tif", MS_SHAPE, 4, plain(4))
    with open_pair(pan, [ms], FOUR) as pair:
        assert pair.crs is None
        assert error_on_the_pan(pair, bent(1, 5.0)) < 2


@pytest.mark.parametrize("kind", ["nodata", "alpha", "mask", "files"])
def test_masks_of_a_warped_ms(tmp_path, kind):
    """A hole of 20 x 20 MS pixels stays one, however it is marked; beside it every pixel is valid."""
    pan = write(tmp_path / "pan.tif", PAN_SHAPE, 1, plain(1))
    ms = write(tmp_path / "ms.tif", MS_SHAPE, 5 if kind == "alpha" else 4, bent(4), points=9)
    hole = (slice(30, 50), slice(40, 60))
    with rasterio.open(ms, "r+") as file:
        data = file.read()
        if kind == "alpha":
            data[4], data[4][hole] = 65535, 0
            file.colorinterp = [rasterio.enums.ColorInterp.gray] * 4 + [rasterio.enums.ColorInterp.alpha]
        elif kind == "mask":
            valid = np.full(MS_SHAPE, 255, "uint8")
            valid[hole] = 0
            file.write_mask(valid)
        else:
            data[:, *hole], file.nodata = 7, 7
        file.write(data)
    files = [f"{ms},band={n}" for n in (1, 2, 3, 4)] if kind == "files" else [ms]
    with open_pair(pan, files, FOUR) as pair:
        _, mask = pair.ms[-1].read(Window(0, 0, *pair.ms_shape))
    assert not mask[34:46, 44:56].any()
    assert mask[4:24, 4:-4].all()
    assert mask[56:-4, 4:-4].all()


def test_the_result_keeps_the_points_of_the_pan(tmp_path, small_weights):
    """Each point names the same ground and the same PAN pixel as before: its place moves with the crop."""
    pan = write(tmp_path / "pan.tif", PAN_SHAPE, 1, bent(1), points=9)
    ms = write(tmp_path / "ms.tif", (60, 70), 4, moved(bent(4), 5, 7), points=9)
    out = tmp_path / "out.tif"
    sharpen(pan, [ms], out, sharpen_options(FOUR, small_weights, "cpu", stac=True))
    with rasterio.open(pan) as before, rasterio.open(out) as after:
        assert after.shape == (240, 280)
        assert after.transform.is_identity
        assert after.crs is None
        assert after.gcps[1] == CRS_
        wanted, found = before.gcps[0], after.gcps[0]
    assert [(p.row - 28, p.col - 20, p.x, p.y) for p in wanted] == [(p.row, p.col, p.x, p.y) for p in found]
    corner = np.array(json.loads(out.with_suffix(".json").read_text())["geometry"]["coordinates"][0][0])
    x, y = to_crs(CRS_, "EPSG:4326", *([float(v)] for v in bent(1)(20, 28)))
    np.testing.assert_allclose(corner, [x[0], y[0]], atol=2e-6)  # 0.2 m


def test_points_of_other_ground_are_refused(tmp_path):
    pan = write(tmp_path / "pan.tif", PAN_SHAPE, 1, plain(1))
    ms = write(tmp_path / "ms.tif", MS_SHAPE, 4, moved(bent(4), 500, 0), points=9)
    with pytest.raises(NoOverlapError):
        open_pair(pan, [ms], FOUR)


def test_two_points_are_too_few(tmp_path):
    pan = write(tmp_path / "pan.tif", PAN_SHAPE, 1, plain(1))
    ms = write(tmp_path / "ms.tif", MS_SHAPE, 4, bent(4), points=9)
    with rasterio.open(ms, "r+") as file:
        file.gcps = file.gcps[0][:2], CRS_
    with pytest.raises(SceneError) as caught:
        open_pair(pan, [ms], FOUR)
    assert (caught.value.path, caught.value.found) == (ms, 2)
    assert "gdal_translate" in caught.value.cure


def test_points_on_one_line_place_nothing(tmp_path):
    pan = write(tmp_path / "pan.tif", PAN_SHAPE, 1, plain(1))
    ms = write(tmp_path / "ms.tif", MS_SHAPE, 4, bent(4), points=9)
    with rasterio.open(ms, "r+") as file:
        file.gcps = file.gcps[0][:9], CRS_
    result = CliRunner().invoke(main, ["sharpen", pan, ms, "-o", str(tmp_path / "out.tif"), "--bands", "B,G,R,NIR"])
    assert result.exit_code == 1
    assert len(result.output.strip().splitlines()) == 1
    assert "ms.tif" in result.output
