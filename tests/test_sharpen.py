"""The laws of the design, each on the file that comes out."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from conftest import BAND_OF_PAN, changed, landscape, sharpen_options, shifted_pair, write_raster
from rasterio.env import get_gdal_config
from rasterio.rpc import RPC
from rasterio.transform import Affine

from crossdiff_cli.errors import DeviceError, OutputError
from crossdiff_cli.io import cache
from crossdiff_cli.io.writer import Writer
from crossdiff_cli.options import PairOptions
from crossdiff_cli.tasks.sharpen import sharpen

GRID = Affine(0.5, 0, 500000, 0, -0.5, 5000000)
FOUR = PairOptions(sensor="vhr", bands=("B", "G", "R", "NIR"))


@pytest.fixture
def options(small_weights):
    return sharpen_options(pair=FOUR, weights=small_weights, device="cpu", precision="fp32", tile=256)


def reference_free_correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def test_tile_law(make_pair, tmp_path, options, read_all):
    """Tiles of 256 and 1024 give the same file, pixel for pixel, over a scene with a hole and a collar."""

    def edit(pan, ms):
        ms[:, 30:41, 50:70] = 0
        pan[:, :, :40] = 0

    files = make_pair(shape=(600, 720), edit=edit, nodata=0)
    for size in (256, 512, 1024):
        sharpen(files.pan, [files.ms], tmp_path / f"{size}.tif", changed(options, tile=size))
    small, middle, large = (read_all(tmp_path / f"{size}.tif").astype(int) for size in (256, 512, 1024))
    for other in (small, middle):
        assert np.abs(other - large).max() <= 1
        assert (other != large).mean() < 1e-4
    assert large.std() > 50


@pytest.mark.parametrize(("stored", "rows"), [({}, 256), ({"tiled": True, "blockxsize": 128, "blockysize": 128}, 0)])
def test_the_block_cache_holds_the_strips_that_tiles_share(make_pair, tmp_path, options, monkeypatch, stored, rows):
    """Both readers have the strips of PAN and MS under a row of tiles at hand; of a tiled file nothing is kept."""
    monkeypatch.setattr(cache, "_LEAST", 1)
    held = []
    write = Writer.write

    def watched(self, *arguments):
        held.append(get_gdal_config("GDAL_CACHEMAX"))
        write(self, *arguments)

    monkeypatch.setattr(Writer, "write", watched)
    files = make_pair(shape=(512, 1024), **stored)
    sharpen(files.pan, [files.ms], tmp_path / "out.tif", options)
    strips = options.runtime.readers * rows * (1024 + 256 * 4 / 4) * 2
    assert max(1, strips) <= min(held) <= max(held) <= max(1, 3 * strips)


def test_a_stretched_ms_is_put_right(tmp_path, options, read_all):
    """Bands that follow the PAN exactly are come by closer than without, and tiles do not show."""
    pan, ms = shifted_pair(tmp_path, (0.0, 0.0), stretch=(0.01, -0.006))
    four = changed(options, dtype="float32")
    results = []
    for name, chosen in (
        ("small", four), ("large", changed(four, tile=1024)), ("off", changed(four, align=False)),
    ):  # fmt: skip
        sharpen(pan, [ms], tmp_path / f"{name}.tif", chosen)
        results.append(read_all(tmp_path / f"{name}.tif").astype("float64"))
    with rasterio.open(tmp_path / "small.tif") as file:
        col, row = (float(value) for value in file.tags()["CROSSDIFF_STRETCH"].split(","))
    assert (row, col) == pytest.approx((0.01, -0.006), abs=0.001)
    truth = np.concatenate([gain * read_all(pan) + offset for gain, offset in BAND_OF_PAN])
    small, large, off = (np.sqrt(np.square(result - truth)[:, 16:-16, 16:-16].mean()) for result in results)
    assert large < 0.8 * off
    assert small == pytest.approx(large, rel=1e-4)
    assert np.abs(results[0] - results[1]).max() < 0.05


def test_determinism(make_pair, tmp_path, options):
    files = make_pair(shape=(400, 400))
    for name in ("a.tif", "b.tif"):
        sharpen(files.pan, [files.ms], tmp_path / name, options)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


@pytest.mark.parametrize(("gain", "offset"), [(1.0, 3000.0), (7.0, 0.0), (0.25, -500.0)])
def test_radiometric_law(make_pair, tmp_path, options, read_all, gain, offset):
    """A gain and an offset on the DN of one band do the same to that band of the result, and nothing to the others."""
    files = make_pair(dtype="float32")
    changed = read_all(files.ms)
    changed[1] = gain * changed[1] + offset
    ms = write_raster(tmp_path / "changed.tif", changed, GRID @ Affine.scale(4))
    sharpen(files.pan, [files.ms], tmp_path / "a.tif", options)
    sharpen(files.pan, [ms], tmp_path / "b.tif", options)
    before, after = read_all(tmp_path / "a.tif"), read_all(tmp_path / "b.tif")
    assert np.allclose(after[1], gain * before[1] + offset, atol=0.02 * max(gain, 1))
    assert np.allclose(after[[0, 2, 3]], before[[0, 2, 3]], atol=0.02)


def test_pan_gain_changes_nothing(make_pair, tmp_path, options, read_all):
    files = make_pair(dtype="float32")
    pan = write_raster(tmp_path / "bright.tif", 3 * read_all(files.pan) + 100, GRID)
    sharpen(files.pan, [files.ms], tmp_path / "a.tif", options)
    sharpen(pan, [files.ms], tmp_path / "b.tif", options)
    assert np.allclose(read_all(tmp_path / "a.tif"), read_all(tmp_path / "b.tif"), atol=0.05)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_output_has_the_type_of_the_ms(make_pair, tmp_path, options, dtype):
    files = make_pair(dtype=dtype)
    sharpen(files.pan, [files.ms], tmp_path / "out.tif", options)
    with rasterio.open(tmp_path / "out.tif") as file:
        assert set(file.dtypes) == {dtype}


def test_consistency_law(make_pair, tmp_path, options):
    """Back-projection brings the degraded result closer to the MS, and the figure is reported."""
    files = make_pair(shape=(400, 400))
    with_it = sharpen(files.pan, [files.ms], tmp_path / "a.tif", options)
    without = sharpen(files.pan, [files.ms], tmp_path / "b.tif", changed(options, iterations=0))
    assert 0 < with_it.consistency < 0.8 * without.consistency
    assert with_it.consistency < 0.05
    with rasterio.open(tmp_path / "a.tif") as file:
        assert float(file.tags()["CROSSDIFF_CONSISTENCY"]) == pytest.approx(with_it.consistency, abs=1e-5)


def test_mask_law(make_pair, tmp_path, options, read_all):
    """What stands in masked pixels has no influence, masked pixels are nodata, valid pixels never are."""

    def hole(value):
        def edit(pan, ms):
            ms[:, 20:31, 20:40] = value
            pan[:, 150:170, 30:90] = value

        return edit

    results = []
    for value in (-9999, 20000):
        files = make_pair(dtype="int16", edit=hole(value), nodata=value, name=str(value))
        sharpen(files.pan, [files.ms], tmp_path / f"{value}.tif", options)
        results.append(read_all(tmp_path / f"{value}.tif"))
    expected = np.zeros((256, 256), bool)
    expected[80:124, 80:160] = True
    expected[150:170, 30:90] = True
    for value, result in zip((-9999, 20000), results, strict=True):
        assert np.array_equal((result == value).all(axis=0), expected)
        assert not (result == value)[:, ~expected].any()
    assert np.array_equal(results[0][:, ~expected], results[1][:, ~expected])
    with rasterio.open(tmp_path / "-9999.tif") as file:
        assert file.nodata == -9999
        assert np.array_equal(file.dataset_mask() == 0, expected)


def test_geometry_law_extents_off_by_part_of_a_pixel(tmp_path, untrained_weights, options, read_all):
    """The result lies on the PAN grid, cropped to the MS, whatever the offset of the two grids."""
    pan, ms = landscape((260, 244), 4, 4)
    pan_file = write_raster(tmp_path / "pan.tif", pan.astype("uint16"), GRID)
    ms_file = write_raster(
        tmp_path / "ms.tif", ms.astype("uint16"), GRID @ Affine.translation(1.5, -0.75) @ Affine.scale(4)
    )
    sharpen(pan_file, [ms_file], tmp_path / "out.tif", changed(options, weights=untrained_weights))
    with rasterio.open(tmp_path / "out.tif") as file:
        assert (file.height, file.width) == (259, 243)
        assert file.transform.almost_equals(GRID @ Affine.translation(1, 0))
        assert file.crs.to_epsg() == 32633


def test_extent_pan_keeps_the_whole_grid(tmp_path, options, read_all):
    pan, ms = landscape((256, 256), 4, 4)
    pan_file = write_raster(tmp_path / "pan.tif", pan.astype("uint16"), GRID)
    ms_file = write_raster(tmp_path / "ms.tif", ms[:, :40].astype("uint16"), GRID @ Affine.scale(4))
    sharpen(pan_file, [ms_file], tmp_path / "out.tif", changed(options, extent="pan"))
    with rasterio.open(tmp_path / "out.tif") as file:
        assert (file.height, file.width, file.transform, file.nodata) == (256, 256, GRID, 0)
        assert file.dataset_mask()[:160].min() == 255
        assert file.dataset_mask()[160:].max() == 0


@pytest.mark.parametrize("ratio", [2, 3, 4, 6])
def test_every_ratio_gives_the_detail_of_the_pan(make_pair, tmp_path, untrained_weights, options, read_all, ratio):
    files = make_pair(shape=(240, 240), ratio=ratio, dtype="float32")
    sharpen(files.pan, [files.ms], tmp_path / "out.tif", changed(options, weights=untrained_weights))
    out, pan = read_all(tmp_path / "out.tif"), read_all(files.pan)
    detail = np.diff(out.mean(axis=0), axis=0)[20:-20, 20:-20]
    assert reference_free_correlation(detail, np.diff(pan[0], axis=0)[20:-20, 20:-20]) > 0.9


def test_non_integer_ratio(tmp_path, untrained_weights, options, read_all):
    y, x = np.mgrid[0:390, 0:390] + 0.5
    pan = (500 + 200 * np.sin(x / 20) * np.cos(y / 25))[None].astype("float32")
    v, u = (np.mgrid[0:100, 0:100] + 0.5) * 3.9
    ms = np.stack([400 + 100 * np.sin(u / 20) * np.cos(v / 25)] * 3).astype("float32")
    pan_file = write_raster(tmp_path / "pan.tif", pan, GRID)
    ms_file = write_raster(tmp_path / "ms.tif", ms, GRID @ Affine.scale(3.9))
    three = changed(options, weights=untrained_weights, pair=PairOptions(sensor="vhr", bands=("B", "G", "R")))
    result = sharpen(pan_file, [ms_file], tmp_path / "out.tif", three)
    assert result.ratio == pytest.approx(3.9)
    out = read_all(tmp_path / "out.tif")
    wanted = 400 + 100 * np.sin(x / 20) * np.cos(y / 25)
    assert np.abs(out[0] - wanted)[10:-10, 10:-10].max() < 4


def test_two_crs(tmp_path, make_pair, options, read_all):
    files = make_pair(shape=(320, 320), dtype="float32")
    away = tmp_path / "away.tif"
    with rasterio.open(files.ms) as source, rasterio.vrt.WarpedVRT(source, crs="EPSG:4326", nodata=-1) as vrt:
        rasterio.shutil.copy(vrt, away, driver="GTiff")
    sharpen(files.pan, [str(away)], tmp_path / "out.tif", options)
    with rasterio.open(tmp_path / "out.tif") as out, rasterio.open(files.pan) as pan:
        assert out.crs == pan.crs
        shift = ~pan.transform @ out.transform
        assert (shift.a, shift.e) == pytest.approx((1, 1))
        assert shift.c == pytest.approx(round(shift.c), abs=1e-6)
        valid = out.dataset_mask() > 0
        assert valid.mean() > 0.95


@pytest.mark.parametrize("devices", ["cpu", "cpu,cpu"])
def test_atomic_law_on_sigterm(make_pair, tmp_path, small_weights, devices):
    files = make_pair(shape=(2048, 2048))
    out = tmp_path / "result" / "out.tif"
    out.parent.mkdir()
    command = [sys.executable, "-m", "crossdiff_cli", "sharpen", files.pan, files.ms, "-o", str(out), "--tile", "256",
               "--device", devices, "--weights", str(small_weights)]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(out.parent.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert list(out.parent.iterdir()), "the run did not begin to write"
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert list(out.parent.iterdir()) == []


def test_atomic_law_on_kill(make_pair, tmp_path, small_weights, options):
    """Killed without warning, a run leaves nothing at its target, and the next one removes what lies beside it."""
    files = make_pair(shape=(512, 512))
    out = tmp_path / "result" / "out.tif"
    out.parent.mkdir()
    script = (
        "import os, signal; from crossdiff_cli.io.writer import Writer; from crossdiff_cli.cli.main import main\n"
        "write, count = Writer.write, iter(range(9))\n"
        "Writer.write = lambda *a: os.kill(os.getpid(), signal.SIGKILL) if next(count) == 2 else write(*a)\n"
        f"main(['sharpen', {files.pan!r}, {files.ms!r}, '-o', {str(out)!r}, '--weights', {str(small_weights)!r}, "
        "'--tile', '256'])"
    )
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL) as process:
        assert process.wait(60) == -signal.SIGKILL
    (left,) = out.parent.iterdir()
    assert re.fullmatch(rf"\.out\.tif\.[0-9a-f]+-{process.pid}-[0-9a-f]+\.tmp\.tif", left.name)
    small = make_pair()
    sharpen(small.pan, [small.ms], out, options)
    assert [path.name for path in out.parent.iterdir()] == ["out.tif"]


def test_full_disk_leaves_nothing_and_says_so(make_pair, tmp_path, small_weights):
    """A file size limit makes every write beyond 200 kB fail, as a full disk does."""
    files = make_pair(shape=(1024, 1024), dtype="float32")
    out = tmp_path / "result" / "out.tif"
    out.parent.mkdir()
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000));"
        "sys.argv[0] = 'crossdiff'; from crossdiff_cli.cli.main import main; main()"
    )
    command = [
        sys.executable,
        "-c",
        script,
        "sharpen",
        files.pan,
        files.ms,
        "-o",
        str(out),
        "--weights",
        str(small_weights),
    ]
    done = subprocess.run([*command, "--tile", "256"], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert "cannot write" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(out.parent.iterdir()) == []


@pytest.mark.slow
def test_memory_law(tmp_path, small_weights):
    """Peak memory of an 8k x 8k PAN is within 10 % of that of a 4k x 4k one at the same tile size.

    Tiles are small, so that even the smaller scene has enough of them for every order of reading and writing.
    """
    script = Path(__file__).with_name("peak_memory.py")
    peaks = {}
    for size in (4096, 8192):
        pan, ms = tmp_path / f"pan{size}.tif", tmp_path / f"ms{size}.tif"
        rng = np.random.default_rng(0)
        for path, bands, side, grid in ((pan, 1, size, GRID), (ms, 4, size // 4, GRID @ Affine.scale(4))):
            profile = {
                "driver": "GTiff",
                "count": bands,
                "height": side,
                "width": side,
                "dtype": "uint16",
                "tiled": True,
            }
            with rasterio.open(path, "w", **profile, transform=grid, crs="EPSG:32633") as file:
                for row in range(0, side, 512):
                    block = rng.integers(100, 900, (bands, min(512, side - row), side)).astype("uint16")
                    file.write(block, window=((row, row + block.shape[1]), (0, side)))
        out = tmp_path / f"out{size}.tif"
        command = [sys.executable, str(script), str(pan), str(ms), str(out), str(small_weights)]
        environment = {**os.environ, "OMP_NUM_THREADS": "2"}
        peaks[size] = int(subprocess.check_output(command, text=True, env=environment, timeout=500).split()[-1])
        out.unlink()
    assert peaks[8192] < 1.1 * peaks[4096], peaks


def test_bad_options(make_pair, tmp_path, options):
    files = make_pair()
    out = tmp_path / "out.tif"
    with pytest.raises(OutputError, match="does not fit uint8"):
        sharpen(files.pan, [files.ms], out, changed(options, dtype="uint8", pair=replace(FOUR, nodata=-1.0)))
    with pytest.raises(DeviceError):
        sharpen(files.pan, [files.ms], out, changed(options, device="cuda:99"))
    with pytest.raises(DeviceError):
        sharpen(files.pan, [files.ms], out, changed(options, device="toaster"))
    assert not out.exists()


def test_rpc_and_acquisition_tags_are_carried(tmp_path, untrained_weights, options):
    """The RPCs of the PAN follow the crop; date and satellite survive."""
    pan, ms = landscape((256, 256), 4, 4)
    pan_file = write_raster(tmp_path / "pan.tif", pan.astype("uint16"), GRID)
    ms_file = write_raster(
        tmp_path / "ms.tif", ms[:, 10:, 5:].astype("uint16"), GRID @ Affine.translation(20, 40) @ Affine.scale(4)
    )
    rpcs = RPC(
        height_off=10, height_scale=500, lat_off=45, lat_scale=0.1, long_off=15, long_scale=0.1, line_off=128,
        line_scale=128, samp_off=127, samp_scale=128, line_num_coeff=[0.1] * 20, line_den_coeff=[1.0] + [0.0] * 19,
        samp_num_coeff=[0.2] * 20, samp_den_coeff=[1.0] + [0.0] * 19,
    )  # fmt: skip
    with rasterio.open(pan_file, "r+") as file:
        file.rpcs = rpcs
        file.update_tags(TIFFTAG_DATETIME="2020:04:05 10:11:12", SECRET="not carried")
        file.update_tags(ns="IMAGERY", SATELLITEID="WV04", ACQUISITIONDATETIME="2020-04-05 10:11:12")
    sharpen(pan_file, [ms_file], tmp_path / "out.tif", changed(options, weights=untrained_weights))
    with rasterio.open(tmp_path / "out.tif") as file:
        assert file.rpcs.line_off == 128 - 40
        assert file.rpcs.samp_off == 127 - 20
        assert file.rpcs.line_num_coeff == [0.1] * 20
        assert file.tags()["TIFFTAG_DATETIME"] == "2020:04:05 10:11:12"
        assert "SECRET" not in file.tags()
        assert file.tags(ns="IMAGERY")["SATELLITEID"] == "WV04"
        assert file.tags()["CROSSDIFF_SOURCES"] == "pan.tif,ms.tif"
        assert str(tmp_path) not in str(file.tags())


def test_bf16_is_the_same_picture(make_pair, tmp_path, options, read_all):
    """Only the network runs in bf16: interpolation, detail and back-projection stay exact."""
    files = make_pair(shape=(256, 256))
    for precision in ("fp32", "bf16"):
        sharpen(files.pan, [files.ms], tmp_path / f"{precision}.tif", changed(options, precision=precision))
    a, b = (read_all(tmp_path / f"{precision}.tif").astype(float) for precision in ("fp32", "bf16"))
    assert 0 < np.abs(a - b).max() < 0.03 * a.std() * 10
    assert np.abs(a - b).mean() < 0.01 * a.std()


@pytest.mark.parametrize("order", [(3, 2, 1, 0), (2, 0, 3, 1)])
def test_the_order_of_the_bands_changes_no_bit_but_their_order(tmp_path, options, read_all, order):
    """With noise in every band, whose share in back-projection was once drawn anew for every position."""
    pan, ms = shifted_pair(tmp_path, (0.6, -1.3), red=(0.5, -0.4))
    with rasterio.open(ms) as file:
        data, profile = file.read(), file.profile
    data += np.random.default_rng(0).normal(0, 1, data.shape) * np.array([3, 6, 9, 4])[:, None, None]
    names, results = ("B", "G", "R", "NIR"), {}
    for name, places in (("own", (0, 1, 2, 3)), ("other", order)):
        path, out = tmp_path / f"{name}.tif", tmp_path / f"{name}.out.tif"
        with rasterio.open(path, "w", **profile) as file:
            file.write(data[list(places)])
        pair = PairOptions(sensor="qb", bands=tuple(names[i] for i in places))
        sharpen(str(pan), [str(path)], out, changed(options, pair=pair))
        results[name] = read_all(out)
    np.testing.assert_array_equal(results["other"], results["own"][list(order)])
