"""A part of a scene: the pixels of the whole result, on the PAN grid."""

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from conftest import changed, landscape, sharpen_options, write_raster
from rasterio.transform import Affine
from rasterio.warp import transform

from crossdiff_cli.cli.main import main
from crossdiff_cli.errors import SceneError
from crossdiff_cli.geometry.window import Window
from crossdiff_cli.io.extent import extent_of
from crossdiff_cli.io.open_pair import open_pair
from crossdiff_cli.options import PairOptions
from crossdiff_cli.tasks.sharpen import sharpen

GRID = Affine(0.5, 0, 500000, 0, -0.5, 5000000)
FOUR = PairOptions(sensor="vhr", bands=("B", "G", "R", "NIR"))


@pytest.fixture
def options(small_weights):
    return sharpen_options(pair=FOUR, weights=small_weights, device="cpu", precision="fp32", tile=256)


def box(row, col, height, width):
    """Bounds of pixels of GRID."""
    left, top = GRID @ (col, row)
    right, bottom = GRID @ (col + width, row + height)
    return left, bottom, right, top


@pytest.fixture
def pair(make_pair):
    files = make_pair()
    with open_pair(files.pan, [files.ms], FOUR) as opened:
        yield opened


def test_a_part_is_a_part_of_the_whole(make_pair, tmp_path, options, read_all):
    """As the tile law: the part is what the whole result has there, whatever its place, with holes and all."""

    def edit(pan, ms):
        ms[:, 30:41, 50:70] = 0
        pan[:, :, :40] = 0

    files = make_pair(shape=(520, 600), edit=edit, nodata=0)
    sharpen(files.pan, [files.ms], tmp_path / "whole.tif", options)
    whole = read_all(tmp_path / "whole.tif").astype(int)
    for number, (row, col, height, width) in enumerate([(101, 33, 203, 299), (0, 0, 64, 520), (515, 590, 5, 10)]):
        out = tmp_path / f"{number}.tif"
        part = sharpen(files.pan, [files.ms], out, changed(options, bounds=box(row, col, height, width)))
        got, wanted = read_all(out).astype(int), whole[:, row : row + height, col : col + width]
        assert got.shape == wanted.shape
        assert np.abs(got - wanted).max() <= 1
        assert (got != wanted).mean() < 1e-3
        with rasterio.open(out) as file:
            assert file.transform.almost_equals(GRID @ Affine.translation(col, row))
            assert file.nodata == 0
        assert part.bands == ("B", "G", "R", "NIR")
    assert whole[:, 101:304, 33:332].std() > 50


def test_pixels_are_taken_by_their_centres(pair):
    """Bounds that cut pixels: two that share a side share no pixel and leave none out."""
    left, bottom, right, top = box(40, 40, 100, 100)
    for cut in (0.1, 0.25, 0.3, 0.5, 0.7):
        west = extent_of(pair, "intersection", (left, bottom, left + 20 + cut, top))
        east = extent_of(pair, "intersection", (left + 20 + cut, bottom, right, top))
        assert west.stop[1] == east.col
        assert (west.col, east.stop[1]) == (40, 140)
        assert (west.row, west.height) == (40, 100)
        centre = GRID @ (east.col + 0.5, 0)
        assert left + 20 + cut <= centre[0] + 1e-9 < left + 20 + cut + 0.5 + 1e-9


def test_bounds_are_cut_to_the_scene(pair):
    far = (0.0, 0.0, 1e7, 1e7)
    assert extent_of(pair, "intersection", far) == Window(0, 0, 256, 256)
    assert extent_of(pair, "intersection", box(-50, -50, 60, 80)) == Window(0, 0, 10, 30)


def test_bounds_in_another_crs(pair):
    """The corners of the bounds, by an independent transform, lie on the border of the window."""
    xs, ys = transform("EPSG:32633", "EPSG:4326", [500020, 500100], [4999900, 4999980])
    window = extent_of(pair, "intersection", (xs[0], ys[0], xs[1], ys[1]), "EPSG:4326")
    assert abs(window.row - 40) <= 1
    assert abs(window.col - 40) <= 1
    assert abs(window.stop[0] - 200) <= 1
    assert abs(window.stop[1] - 200) <= 1


def test_a_rotated_grid_gets_the_rectangle_around(tmp_path):
    turned = GRID @ Affine.rotation(30)
    pan, ms = landscape((256, 256), 4, 4)
    files = [
        write_raster(tmp_path / "pan.tif", pan.astype("uint16"), turned),
        write_raster(tmp_path / "ms.tif", ms.astype("uint16"), turned @ Affine.scale(4)),
    ]
    with open_pair(files[0], files[1:], FOUR) as opened:
        middle = turned @ (128.0, 128.0)
        window = extent_of(opened, "pan", (middle[0] - 10, middle[1] - 10, middle[0] + 10, middle[1] + 10))
    side = 40 * (np.cos(np.pi / 6) + np.sin(np.pi / 6))
    assert window.height == pytest.approx(side, abs=1)
    assert window.width == pytest.approx(side, abs=1)
    assert window.row + window.height / 2 == pytest.approx(128, abs=1)


def test_nodata_only_where_the_bounds_leave_the_ms(tmp_path, options, read_all):
    """`--extent pan` with bounds: nodata beyond the MS; without any beyond, none is declared."""
    pan, ms = landscape((256, 256), 4, 4)
    files = [
        write_raster(tmp_path / "pan.tif", pan.astype("uint16"), GRID),
        write_raster(tmp_path / "ms.tif", ms[:, :, 10:].astype("uint16"), GRID @ Affine(4, 0, 40, 0, 4, 0)),
    ]
    over = changed(options, extent="pan", bounds=box(0, 20, 64, 64))
    sharpen(files[0], files[1:], tmp_path / "over.tif", over)
    with rasterio.open(tmp_path / "over.tif") as file:
        assert file.nodata == 0
        assert np.array_equal(file.dataset_mask()[0] > 0, np.arange(64) >= 20)
    sharpen(files[0], files[1:], tmp_path / "in.tif", changed(over, bounds=box(0, 60, 64, 64)))
    with rasterio.open(tmp_path / "in.tif") as file:
        assert file.nodata is None


@pytest.mark.parametrize(
    ("bounds", "crs", "text"),
    [
        ((0.0, 0.0, 1.0, 1.0), None, "contains no pixel"),
        ((500000.0, 4999999.0, 500000.1, 4999999.1), None, "contains no pixel"),
        ((0.0, 0.0, 1.0, 1.0), "EPSG:nonsense", "is not a CRS"),
        ((0.0, 0.0, 1.0, 1.0), "EPSG:4326", "contains no pixel"),
    ],
)
def test_bounds_that_cannot_be(pair, bounds, crs, text):
    with pytest.raises(SceneError, match=text):
        extent_of(pair, "intersection", bounds, crs)


def test_bounds_need_a_georeference(make_pair):
    files = make_pair(georeferenced=False)
    with open_pair(files.pan, [files.ms], FOUR) as opened, pytest.raises(SceneError, match="no georeference"):
        extent_of(opened, "intersection", (0.0, 0.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--bounds", "1,2,3"], "LEFT,BOTTOM,RIGHT,TOP"),
        (["--bounds", "3,2,1,4"], "left must be less than right"),
        (["--bounds", "1,2,3,nan"], "left must be less"),
        (["--bounds-crs", "EPSG:4326"], "--bounds-crs needs --bounds"),
        (["--out-bands", "R,,B"], "empty name"),
        (["--out-bands", "R", "--report", "page.html"], "without --out-bands"),
    ],
)
def test_usage(make_pair, tmp_path, arguments, text):
    files = make_pair()
    done = CliRunner().invoke(main, ["sharpen", files.pan, files.ms, "-o", str(tmp_path / "out.tif"), *arguments])
    assert done.exit_code == 2
    assert text in done.output


@pytest.mark.parametrize("text", ["{},{},{},{}", "{} {} {} {}", "[{}, {}, {}, {}]"])
def test_command(make_pair, tmp_path, untrained_weights, text):
    files = make_pair()
    out = tmp_path / "out.tif"
    arguments = ["sharpen", files.pan, files.ms, "-o", str(out), "--weights", str(untrained_weights), "--bounds"]
    done = CliRunner().invoke(main, [*arguments, text.format(*box(80, 20, 120, 80)), "--out-bands", "R,G,B", "-q"])
    assert done.exit_code == 0, done.output
    with rasterio.open(out) as file:
        assert file.bounds == (500010, 4999900, 500050, 4999960) == box(80, 20, 120, 80)
        assert file.count == 3
