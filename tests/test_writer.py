import errno
import os
import re
import shutil
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

from crossdiff_cli.errors import OutputError, OutputExistsError
from crossdiff_cli.geometry.window import Window
from crossdiff_cli.imaging.quantise import array_to_dtype
from crossdiff_cli.io.writer import OutputProfile, Writer
from crossdiff_cli.sensors.table import find_sensor
from crossdiff_cli.system import atomic
from crossdiff_cli.system.atomic import hidden_beside, move_into_place, replacing

GRID = Affine(0.5, 0, 500000, 0, -0.5, 5000000)


PHOTOMETRIC, EXTRA_SAMPLES = 262, 338
MINISBLACK, UNSPECIFIED = 1, 0


def short_tags(path, tag):
    """Values of a 16-bit field in each directory of a little-endian TIFF that has it."""
    data = path.read_bytes()
    big = data[2] == 43
    number, entry, offset, width = ("<Q", "<HHQ", "<Q", 8) if big else ("<H", "<HHI", "<I", 4)
    found = []
    (place,) = struct.unpack_from(offset, data, 8 if big else 4)
    while place:
        (count,) = struct.unpack_from(number, data, place)
        place += struct.calcsize(number)
        for _ in range(count):
            key, kind, values = struct.unpack_from(entry, data, place)
            if key == tag:
                assert kind == 3
                field = place + struct.calcsize(entry)
                where = field if 2 * values <= width else struct.unpack_from(offset, data, field)[0]
                found.append(struct.unpack_from(f"<{values}H", data, where))
            place += struct.calcsize(entry) + width
        (place,) = struct.unpack_from(offset, data, place)
    return found


def profile(**changes):
    values = {
        "shape": (300, 400), "dtype": "uint8", "crs": "EPSG:32633", "transform": GRID, "nodata": 0.0,
        "bands": find_sensor("vhr").select(["B", "G", "R", "NIR"]), "scales": [0.01] * 4, "offsets": [0.5] * 4,
        "tags": {"CROSSDIFF_VERSION": "x"}, "imagery": {"SATELLITEID": "WV04"},
    }  # fmt: skip
    return OutputProfile(**(values | changes))


def write(path, *, overwrite=False, **changes):
    data = np.random.default_rng(0).integers(1, 250, (4, 300, 400)).astype("uint8")
    with Writer(path, profile(**changes), overwrite=overwrite) as writer:
        writer.write(data[:, :256], Window(0, 0, 256, 400))
        writer.write(data[:, 256:], Window(256, 0, 44, 400))
        writer.tag(CROSSDIFF_CONSISTENCY="0.5")
    return data


@pytest.mark.parametrize("driver", ["GTiff", "COG"])
def test_file_says_what_it_is(tmp_path, driver):
    data = write(tmp_path / "out.tif", driver=driver)
    with rasterio.open(tmp_path / "out.tif") as file:
        assert np.array_equal(file.read(), data)
        assert file.transform == GRID
        assert file.crs.to_epsg() == 32633
        assert file.nodata == 0
        assert file.descriptions == ("B", "G", "R", "NIR")
        assert file.colorinterp == (ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.nir)
        assert file.scales == (0.01,) * 4
        assert file.offsets == (0.5,) * 4
        assert file.overviews(1)
        assert file.profile["tiled"]
        assert file.tags()["CROSSDIFF_VERSION"] == "x"
        assert file.tags()["CROSSDIFF_CONSISTENCY"] == "0.5"
        assert file.tags(4, ns="IMAGERY")["CENTRAL_WAVELENGTH_UM"].startswith("0.8")
        layout = file.tags(ns="IMAGE_STRUCTURE").get("LAYOUT")
        assert layout == ("COG" if driver == "COG" else None)
    assert [p.name for p in tmp_path.iterdir()] == ["out.tif"]


@pytest.mark.parametrize(("name", "value"), [("COMPRESS", "LZW"), ("ZLEVEL", "9"), ("BIGTIFF", "YES")])
def test_creation_options_overrule_the_defaults(tmp_path, name, value):
    data = write(tmp_path / "out.tif", creation={name: value})
    with rasterio.open(tmp_path / "out.tif") as file:
        assert np.array_equal(file.read(), data)
        assert file.profile["compress"] == ("lzw" if name == "COMPRESS" else "deflate")
    assert (tmp_path / "out.tif").read_bytes()[2] == (43 if name == "BIGTIFF" else 42)


def test_what_gdal_writes_beside_the_file_comes_with_it(tmp_path):
    """A world file, and the metadata of a baseline TIFF, under the name of the result."""
    write(tmp_path / "out.tif", creation={"TFW": "YES"})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.tfw", "out.tif"]
    world = [float(line) for line in (tmp_path / "out.tfw").read_text().split()]
    assert world == [GRID.a, GRID.d, GRID.b, GRID.e, *(GRID @ (0.5, 0.5))]
    write(tmp_path / "plain.tif", creation={"PROFILE": "BASELINE"})
    with rasterio.open(tmp_path / "plain.tif") as file:
        assert file.descriptions == ("B", "G", "R", "NIR")
    assert (tmp_path / "plain.tif.aux.xml").exists()


def test_what_lay_beside_an_earlier_file_is_gone(tmp_path):
    """GDAL believes a place, a mask and statistics beside the file more than the file itself."""
    out, aux = tmp_path / "out.tif", tmp_path / "out.tif.aux.xml"
    write(out)
    aux.write_text("<PAMDataset><GeoTransform>1, 1, 0, 1, 0, -1</GeoTransform></PAMDataset>")
    with rasterio.open(out) as file:
        assert file.transform != GRID
    (tmp_path / "other.tif.aux.xml").write_text("<PAMDataset/>")
    write(out, overwrite=True)
    with rasterio.open(out) as file:
        assert file.transform == GRID
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other.tif.aux.xml", "out.tif"]


def test_near_infrared_does_not_open_as_alpha(tmp_path):
    """The trap of four uint8 bands: dark near-infrared must not be transparent."""
    data = np.zeros((4, 300, 400), "uint8") + 7
    data[3, :100] = 0
    with Writer(tmp_path / "out.tif", profile(nodata=None)) as writer:
        writer.write(data, Window(0, 0, 300, 400))
    with rasterio.open(tmp_path / "out.tif") as file:
        assert ColorInterp.alpha not in file.colorinterp
        assert file.dataset_mask().min() == 255


@pytest.mark.parametrize("driver", ["GTiff", "COG"])
@pytest.mark.parametrize("names", ["B,G,R,NIR", "R,G,B,NIR", "CA,Y,RE,N2"])
@pytest.mark.parametrize("bigtiff", ["NO", "YES"])
def test_no_band_is_marked_as_alpha_for_readers_that_look_at_the_tiff_alone(tmp_path, names, driver, bigtiff):
    bands = find_sensor("vhr").select(names.split(","))
    data = write(tmp_path / "out.tif", bands=bands, driver=driver, nodata=None, creation={"BIGTIFF": bigtiff})
    directories = short_tags(tmp_path / "out.tif", EXTRA_SAMPLES)
    assert len(directories) >= 2  # the image and its overviews
    assert all(set(values) == {UNSPECIFIED} for values in directories)
    if driver == "GTiff":
        assert short_tags(tmp_path / "out.tif", PHOTOMETRIC)[0] == (MINISBLACK,)
    with rasterio.open(tmp_path / "out.tif") as file:
        assert np.array_equal(file.read(), data)
        assert (file.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == "COG") == (driver == "COG")


def test_a_fourth_band_of_an_rgb_tiff_is_no_alpha(tmp_path):
    bands = find_sensor("vhr").select(["R", "G", "B", "NIR"])
    write(tmp_path / "out.tif", bands=bands, creation={"PHOTOMETRIC": "RGB"}, nodata=None)
    assert set(short_tags(tmp_path / "out.tif", EXTRA_SAMPLES)) == {(UNSPECIFIED,)}
    with rasterio.open(tmp_path / "out.tif") as file:
        assert file.colorinterp == (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.nir)


def test_an_error_inside_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="stop"), Writer(tmp_path / "out.tif", profile()) as writer:
        writer.write(np.zeros((4, 256, 256), "uint8"), Window(0, 0, 256, 256))
        raise RuntimeError("stop")
    assert list(tmp_path.iterdir()) == []


def test_an_error_inside_leaves_the_old_result(tmp_path):
    old = tmp_path / "out.tif"
    old.write_text("old")
    with pytest.raises(KeyboardInterrupt), Writer(old, profile(), overwrite=True):
        raise KeyboardInterrupt
    assert old.read_text() == "old"


class Told(list):
    """Bands, while a signal arrives at the `arrives`th look at them."""

    def __init__(self, bands, arrives):
        super().__init__(bands)
        self.arrives = arrives

    def __iter__(self):
        self.arrives -= 1
        if self.arrives == 0:
            raise SystemExit(143)
        return super().__iter__()


@pytest.mark.parametrize("arrives", [1, 2])
def test_a_signal_while_the_file_is_being_made_leaves_nothing(tmp_path, arrives):
    bands = Told(profile().bands, arrives)
    with pytest.raises(SystemExit), Writer(tmp_path / "out.tif", profile(bands=bands)):
        pass
    assert bands.arrives == 0
    assert list(tmp_path.iterdir()) == []


def test_targets_that_cannot_be_written(tmp_path):
    (tmp_path / "there.tif").write_text("")
    with pytest.raises(OutputExistsError):
        Writer(tmp_path / "there.tif", profile())
    for path, culprit in ((tmp_path / "no" / "out.tif", tmp_path / "no"), (tmp_path, tmp_path)):
        with pytest.raises(OutputError) as caught:
            Writer(path, profile())
        assert caught.value.path == str(culprit)
    with (
        pytest.raises(OutputError, match="cannot be written"),
        Writer(tmp_path / "out.tif", profile(creation={"BLOCKXSIZE": "7"})),
    ):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["there.tif"]


@pytest.mark.parametrize("driver", ["GTiff", "COG"])
@pytest.mark.parametrize(
    ("creation", "reason"),
    [
        ({"COMPRESS": "JPEG"}, "BitsPerSample 16 not allowed for JPEG"),
        ({"PREDICTOR": "3"}, "only supported with Float"),
    ],
)
def test_what_the_format_does_not_allow_is_said_before_the_work(tmp_path, driver, creation, reason):
    """On the way in, before anything large is written; encoders in threads of their own would not say why."""
    big = profile(shape=(600, 600), dtype="uint16", driver=driver, creation=creation)
    with pytest.raises(OutputError) as refused, Writer(tmp_path / "out.tif", big):
        pytest.fail("went in")
    ((name, value),) = creation.items()
    assert refused.value.path == str(tmp_path / "out.tif")
    assert refused.value.problem == f"it cannot be written with {name}={value}"
    assert ".tmp" not in str(refused.value)
    assert reason in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def left(folder: Path, pid: int, suffix: str, of: str = "out.tif") -> Path:
    """The hidden file that a process of this machine leaves beside its target when it is killed."""
    hidden = hidden_beside(folder / of, suffix)
    return hidden.with_name(hidden.name.replace(f"-{os.getpid()}-", f"-{pid}-"))


def test_what_another_left_and_cannot_be_removed_is_no_hindrance(tmp_path, monkeypatch):
    """Nobody but root may remove another's file from a shared folder such as /tmp."""
    dead = int(Path("/proc/sys/kernel/pid_max").read_text())
    left(tmp_path, dead, ".tif").write_text("")

    def refuse(path, **_):
        if str(dead) in path.name:
            raise PermissionError(1, "Operation not permitted", str(path))
        os.unlink(path)  # noqa: PTH108

    monkeypatch.setattr(Path, "unlink", refuse)
    write(tmp_path / "out.tif")
    assert (tmp_path / "out.tif").is_file()


@pytest.mark.parametrize(("driver", "gigabytes"), [("GTiff", 0.9), ("COG", 1.7)])
def test_a_disk_that_may_be_too_small_is_warned_of(tmp_path, monkeypatch, caplog, driver, gigabytes):
    """4 bands of 12 000 x 9000 numbers of two bytes, with overviews 1.15 GB; a COG is copied at the end."""
    big = profile(shape=(12_000, 9000), dtype="uint16", driver=driver)
    for free in (4e9, gigabytes * 1e9):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        assert not caplog.text
        with pytest.raises(KeyboardInterrupt), Writer(tmp_path / "out.tif", big):
            raise KeyboardInterrupt
    needed = 4 * 12_000 * 9000 * 2 * 4 / 3 / 1e9 * (2 if driver == "COG" else 1)
    assert f"{gigabytes:.1f} GB are free" in caplog.text and f"of up to {needed:.1f} GB" in caplog.text


def test_pipes_and_devices_are_no_targets(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for target in (tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(OutputError) as caught:
            Writer(target, profile(), overwrite=True)
        assert caught.value.path == str(target)


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    """Process 1 runs, that of the highest number does not."""
    dead = int(Path("/proc/sys/kernel/pid_max").read_text())
    gone = [left(tmp_path, dead, suffix) for suffix in (".tif", ".cog.tif", ".tif.aux.xml")]
    other_host = left(tmp_path, dead, ".tif")
    other_host = other_host.with_name(re.sub(r"[0-9a-f]{6}-", "ffffff-", other_host.name))
    kept = [left(tmp_path, 1, ".tif"), left(tmp_path, dead, ".tif", of="other.tif"), other_host,
            tmp_path / ".out.tif.notes.tmp"]  # fmt: skip
    for path in (*gone, *kept):
        path.write_text("")
    write(tmp_path / "out.tif")
    assert sorted(tmp_path.iterdir()) == sorted([*kept, tmp_path / "out.tif"])


@pytest.mark.parametrize("driver", ["GTiff", "COG"])
@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_written_through(tmp_path, driver, there):
    """The file that it points to is made or replaced, with what belongs beside it; the link stays a link."""
    disk, work = tmp_path / "disk", tmp_path / "work"
    disk.mkdir()
    work.mkdir()
    if there:
        (disk / "real.tif").write_text("old")
    link = work / "out.tif"
    link.symlink_to(disk / "real.tif")
    data = write(link, driver=driver, overwrite=True, creation={"TFW": "YES"} if driver == "GTiff" else {})
    assert link.is_symlink()
    assert [path.name for path in work.iterdir()] == ["out.tif"]
    assert sorted(path.name for path in disk.iterdir()) == ["real.tfw", "real.tif"][driver == "COG" :]
    with rasterio.open(disk / "real.tif") as file:
        np.testing.assert_array_equal(file.read(), data)


def test_a_link_into_nowhere_is_refused(tmp_path):
    (tmp_path / "out.tif").symlink_to(tmp_path / "no" / "real.tif")
    with pytest.raises(OutputError) as caught:
        Writer(tmp_path / "out.tif", profile())
    assert caught.value.path == str(tmp_path / "no")


def test_pages_items_and_weights_are_written_through_links_too(tmp_path):
    """What is made under a link lies beside the real target while it is made, and replaces that alone."""
    (tmp_path / "disk").mkdir()
    link = tmp_path / "page.html"
    link.symlink_to(tmp_path / "disk" / "page.html")
    with replacing(link) as temporary:
        assert temporary.parent == tmp_path / "disk"
        temporary.write_text("new")
    assert link.is_symlink()
    assert (tmp_path / "disk" / "page.html").read_text() == "new"
    assert len(list((tmp_path / "disk").iterdir())) == 1


def test_a_file_is_moved_to_another_disk(tmp_path, monkeypatch):
    """As `degrade` does, whose folder is not that of a link in it."""
    done, target = tmp_path / "done.tif", tmp_path / "target.tif"
    done.write_text("data")
    replace_file = Path.replace

    def across(path, other):
        if path == done:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return replace_file(path, other)

    monkeypatch.setattr(Path, "replace", across)
    move_into_place(done, target)
    assert target.read_text() == "data"
    assert [path.name for path in tmp_path.iterdir()] == ["target.tif"]


def test_processes_and_machines_never_meet_at_a_temporary_name(tmp_path, monkeypatch):
    names = set()
    for host, pid in (("a", 1), ("b", 1), ("a", 2)):
        monkeypatch.setattr(atomic, "_host", lambda host=host: f"{ord(host):06x}")
        monkeypatch.setattr(os, "getpid", lambda pid=pid: pid)
        atomic._random.cache_clear()
        names |= {hidden_beside(tmp_path / "out.tif").name for _ in range(2)}
    assert len(names) == 3


def test_unwritten_blocks_are_noticed(tmp_path):
    """What never reached the disk is not passed on as a result."""
    with (
        pytest.raises(OutputError),
        Writer(tmp_path / "out.tif", profile(creation={"SPARSE_OK": "TRUE"}, nodata=None)) as writer,
    ):
        writer.write(np.ones((4, 256, 256), "uint8"), Window(0, 0, 256, 256))
        writer._dataset.write = lambda *_, **__: None  # a disk that is full, of which GDAL keeps silent
        writer.write(np.ones((4, 44, 400), "uint8"), Window(256, 0, 44, 400))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("nodata", "valid_becomes"), [(0, 1), (255, 254), (7, 8)])
def test_valid_pixels_never_become_nodata(nodata, valid_becomes):
    data = np.full((1, 2, 2), float(nodata), "float32")
    data[0, 0, 1] = 100.4
    mask = np.array([[True, True], [False, True]])
    out = array_to_dtype(data, mask, "uint8", float(nodata))
    assert out.tolist() == [[[valid_becomes, 100], [nodata, valid_becomes]]]


def test_rounding_and_saturation():
    data = np.array([[[-3.2, 0.5, 1.5, 254.6, 300.0]]], "float32")
    assert array_to_dtype(data, np.ones((1, 5), bool), "uint8", None).tolist() == [[[0, 0, 2, 255, 255]]]
    assert array_to_dtype(data, np.ones((1, 5), bool), "int16", None).tolist() == [[[-3, 0, 2, 255, 300]]]


def test_float_keeps_values_and_moves_off_nodata():
    out = array_to_dtype(
        np.array([[[-9999.0, 0.25, 1.0]]], "float32"), np.array([[True, True, False]]), "float32", -9999.0
    )
    assert out[0, 0, 0] != -9999
    assert abs(out[0, 0, 0] + 9999) < 0.01
    assert out[0, 0, 1:].tolist() == [0.25, -9999.0]
