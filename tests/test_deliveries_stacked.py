"""Eight bands in two images of four (MS1 and MS2), and deliveries in archives."""

import shutil
import tarfile
import zipfile

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from delivery_files import maxar, maxar_image, pixels

from crossdiff_cli.cli.main import main
from crossdiff_cli.errors import SceneError
from crossdiff_cli.geometry.window import Window
from crossdiff_cli.io.open_pair import open_pair
from crossdiff_cli.options import PairOptions

FIRST, SECOND = "N R G B", "N2 RE Y C"


def two_halves(folder, second_catalogue="1040010012345600", halves=("MS1", "MS2")):
    pan, ms = pixels(8)
    maxar_image(folder / "x_P001_PAN", pan, 1, "P", letter="P", band_id="P", satellite="WV02")
    for half, groups, data, stamp, catalogue in (
        ("MS2", SECOND, ms[4:], "18JAN01100000", second_catalogue),
        ("MS1", FIRST, ms[:4], "18JAN01100001", "1040010012345600"),
    ):
        if half in halves:
            what = {"letter": "M", "band_id": half, "satellite": "WV02", "stamp": stamp, "catalogue": catalogue}
            maxar_image(folder / "x_P001_MUL", data, 4, groups, **what)
    return pan, ms


@pytest.mark.parametrize("name", ["", "x_P001_PAN", "x_P001_MUL"])
def test_the_two_halves_of_eight_bands_are_stacked(tmp_path, name):
    pan, ms = two_halves(tmp_path)
    given = [tmp_path] if not name else [next((tmp_path / name).glob("*.IMD"))]
    with open_pair(str(given[0])) as pair:
        assert [band.name for band in pair.bands] == ["N1", "R", "G", "B", "N2", "RE", "Y", "CA"]
        assert pair.sensor.key == "wv2"
        whole = np.concatenate([raster.read(Window(0, 0, *pair.ms_shape))[0] for raster in pair.ms])
        assert np.array_equal(whole, ms)
        assert np.array_equal(pair.pan.read(Window(0, 0, *pair.pan.shape))[0], pan)
        assert len(pair.inputs.memory) in (0, 2, 3)


def test_a_missing_tile_of_the_second_half_is_named(tmp_path):
    two_halves(tmp_path)
    next((tmp_path / "x_P001_MUL").glob("18JAN01100000-*_R1C2-*.TIF")).unlink()
    with pytest.raises(SceneError, match="1 of the 2 image files .* are missing: 18JAN01100000-M2AS_R1C2"):
        open_pair(str(tmp_path))


def test_one_half_alone_is_four_bands(tmp_path):
    two_halves(tmp_path, halves=("MS2",))
    with open_pair(str(tmp_path)) as pair:
        assert [band.name for band in pair.bands] == ["N2", "RE", "Y", "CA"]


def test_halves_of_two_acquisitions_are_not_stacked(tmp_path):
    two_halves(tmp_path, second_catalogue="1040010099999900")
    with open_pair(str(tmp_path)) as pair:
        assert [band.name for band in pair.bands] == ["N1", "R", "G", "B"]


@pytest.fixture
def archive(tmp_path):
    maxar(tmp_path / "order")
    path = tmp_path / "order.zip"
    with zipfile.ZipFile(path, "w") as file:
        for name in (tmp_path / "order").rglob("*"):
            file.write(name, name.relative_to(tmp_path))
    return path


@pytest.fixture(params=["zip", "tar", "tar.gz", "tgz"])
def packed(request, tmp_path):
    """A Maxar delivery in an archive, which alone is left, and what its folder gave before."""
    maxar(tmp_path / "order")
    with open_pair(str(tmp_path / "order"), []) as pair:
        expected = describe(pair)
    path = tmp_path / f"order.{request.param}"
    if request.param == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name in sorted((tmp_path / "order").rglob("*")):
                file.write(name, name.relative_to(tmp_path))
    else:
        with tarfile.open(path, "w:gz" if request.param in ("tar.gz", "tgz") else "w") as file:
            file.add(tmp_path / "order", "order")
    shutil.rmtree(tmp_path / "order")
    return path, expected


def describe(pair):
    whole = (Window(0, 0, *pair.pan.shape), Window(0, 0, *pair.ms_shape))
    pixels = [pair.pan.read(whole[0])[0], *(raster.read(whole[1])[0] for raster in pair.ms)]
    return pair.sensor.key, [band.name for band in pair.bands], pair.grid, [image.tolist() for image in pixels]


def test_a_delivery_in_an_archive_is_read_in_place(packed):
    path, expected = packed
    kind = "zip" if path.suffix == ".zip" else "tar"
    for name in (str(path), f"/vsi{kind}/{path}", f"{path}/order", f"{kind}://{path}!/order"):
        with open_pair(name, []) as pair:
            assert describe(pair) == expected
    with open_pair(str(path), [str(path)]) as pair:
        assert describe(pair) == expected
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]  # GDAL leaves nothing beside it


def test_a_pair_in_an_archive_is_found_by_its_names(make_pair, tmp_path):
    files = make_pair(shape=(64, 64))
    with zipfile.ZipFile(tmp_path / "town.zip", "w") as file:
        file.write(files.pan, "town/town_pan.tif")
        file.write(files.ms, "town/town_ms.tif")
    with open_pair(str(tmp_path / "town.zip"), [], PairOptions(sensor="vhr", bands=("B", "G", "R", "NIR"))) as pair:
        assert pair.pan.path.startswith("/vsizip/")
        assert pair.ratio == 4


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("order.tar.gz", b"no archive", "the archive cannot be read"),
        ("order.tar.bz2", b"", "unpack it"),
        ("order.7z", b"", "unpack it"),
        ("order.zip", b"no archive", "the archive cannot be read"),
        ("order.tar", b"x" * 2000, "the archive cannot be read"),
    ],
)
@pytest.mark.parametrize("command", ["info", "sharpen"])
def test_archives_that_cannot_be_read_in_place_are_refused(tmp_path, name, content, line, command):
    path = tmp_path / name
    path.write_bytes(content)
    out = ["-o", str(tmp_path / "out.tif")] if command == "sharpen" else []
    done = CliRunner().invoke(main, ["-q", command, str(path), *out])
    assert done.exit_code == 1
    assert done.stderr.startswith(f"Error: {path}: ")
    assert line in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_what_an_archive_lacks_is_told_by_its_name(archive, tmp_path):
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as file:
        file.writestr("order/readme.txt", "nothing")
        file.writestr("../outside.txt", "it would lie outside")
    for name in (str(tmp_path / "empty.zip"), f"{archive}/none"):
        with pytest.raises(SceneError) as caught:
            open_pair(name, [])
        assert name in str(caught.value)
        assert "/crossdiff-" not in str(caught.value)
    assert not list(tmp_path.parent.glob("outside.txt"))


def test_images_in_an_archive_are_read(archive, tmp_path):
    pan, ms = (next((tmp_path / "order").rglob(f"*{letter}2AS_R1C1*.TIF")) for letter in "PM")
    names = [f"/vsizip/{archive}/{path.relative_to(tmp_path)}" for path in (pan, ms)]
    with open_pair(names[0], names[1:]) as pair, rasterio.open(ms) as file:
        assert np.array_equal(pair.ms[0].read(Window(0, 0, *pair.ms_shape))[0], file.read())
