"""Inputs that are no plain files: over HTTP, in archives, as VRTs; and what a bad connection does."""

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from conftest import sharpen_options, write_raster
from http_files import Faults, serve
from rasterio.shutil import copy as copy_raster
from rasterio.transform import Affine

from crossdiff_cli.cli.main import main
from crossdiff_cli.io.raster import Raster
from crossdiff_cli.options import PairOptions
from crossdiff_cli.tasks.sharpen import sharpen as fuse

BLOCKS = {"tiled": True, "blockxsize": 64, "blockysize": 64}


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    monkeypatch.setenv("VSI_CACHE", "FALSE")


@pytest.fixture
def files(make_pair):
    """A pair of some hundred kilobytes, so that GDAL asks for its bytes in several requests."""
    return make_pair(shape=(512, 512), **BLOCKS)


@pytest.fixture
def sharpen(tmp_path, untrained_weights):
    def run(pan, *ms):
        out = tmp_path / "result" / "out.tif"
        out.parent.mkdir(exist_ok=True)
        options = ["-o", out, "--weights", untrained_weights, "--tile", 256, "--sensor", "vhr", "--overwrite", "-j", 1]
        return CliRunner().invoke(main, ["-q", "sharpen", *map(str, [pan, *ms, *options])]), out

    return run


@pytest.fixture
def expected(files, sharpen, read_all):
    done, out = sharpen(files.pan, files.ms)
    assert done.exit_code == 0, done.stderr
    pixels = read_all(out)
    out.unlink()
    return pixels


def test_over_http_by_range(files, tmp_path, sharpen, expected, read_all):
    faults = Faults()
    with serve(tmp_path, faults) as address:
        done, out = sharpen(f"/vsicurl/{address}/pan.tif", f"{address}/ms.tif")
    assert done.exit_code == 0, done.stderr
    assert np.array_equal(read_all(out), expected)
    assert all("bytes=" in request for request in faults.requests if ".tif" in request)


def test_in_a_zip_archive_here_and_over_http(files, tmp_path, sharpen, expected, read_all):
    with zipfile.ZipFile(tmp_path / "delivery.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("pan.tif", "ms.tif"):
            archive.write(tmp_path / name, f"order/{name}")
    archive = tmp_path / "delivery.zip"
    done, out = sharpen(f"/vsizip/{archive}/order/pan.tif", f"zip://{archive}!/order/ms.tif")
    assert done.exit_code == 0, done.stderr
    assert np.array_equal(read_all(out), expected)
    with serve(tmp_path) as address:
        done, out = sharpen(*(f"/vsizip//vsicurl/{address}/delivery.zip/order/{name}.tif" for name in ("pan", "ms")))
    assert done.exit_code == 0, done.stderr
    assert np.array_equal(read_all(out), expected)


def test_vrts_here_and_over_http(files, tmp_path, sharpen, expected, read_all):
    for name in ("pan", "ms"):
        copy_raster(str(tmp_path / f"{name}.tif"), str(tmp_path / f"{name}.vrt"), driver="VRT")
    done, out = sharpen(tmp_path / "pan.vrt", tmp_path / "ms.vrt")
    assert done.exit_code == 0, done.stderr
    assert np.array_equal(read_all(out), expected)
    with serve(tmp_path) as address:
        for name in ("pan", "ms"):
            text = (tmp_path / f"{name}.vrt").read_text()
            remote = text.replace('relativeToVRT="1"', 'relativeToVRT="0"').replace(
                f">{name}.tif<", f">/vsicurl/{address}/{name}.tif<"
            )
            assert remote != text
            (tmp_path / f"far_{name}.vrt").write_text(remote)
        done, out = sharpen(tmp_path / "far_pan.vrt", tmp_path / "far_ms.vrt")
    assert done.exit_code == 0, done.stderr
    assert np.array_equal(read_all(out), expected)


@pytest.mark.parametrize("kind", ["drop", "refuse"])
@pytest.mark.parametrize("sound", [4, 12])
def test_a_connection_lost_in_mid_read(files, tmp_path, sharpen, kind, sound):
    """The name, one line, and no file: not zeros in the place of the pixels that did not come."""
    faults = Faults(sound=sound, kind=kind)
    with serve(tmp_path, faults) as address:
        done, out = sharpen(f"/vsicurl/{address}/pan.tif", f"/vsicurl/{address}/ms.tif")
    assert len(faults.requests) > sound, "the fault did not set in"
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)
    assert address in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert list(out.parent.iterdir()) == []


def test_retries_are_those_of_gdal(files, tmp_path, sharpen, expected, read_all, monkeypatch):
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "4")
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.01")
    faults = Faults(sound=5, kind="refuse", times=3)
    with serve(tmp_path, faults) as address:
        done, out = sharpen(f"/vsicurl/{address}/pan.tif", f"/vsicurl/{address}/ms.tif")
    assert len(faults.requests) > 8
    assert done.exit_code == 0, done.stderr
    assert np.array_equal(read_all(out), expected)


def test_a_server_that_stalls_is_given_up(files, tmp_path, sharpen, monkeypatch):
    monkeypatch.setenv("GDAL_HTTP_LOW_SPEED_TIME", "1")
    with serve(tmp_path, Faults(sound=5, kind="stall")) as address:
        done, out = sharpen(f"/vsicurl/{address}/pan.tif", f"/vsicurl/{address}/ms.tif")
    assert done.exit_code == 1
    assert address in done.stderr
    assert list(out.parent.iterdir()) == []


def test_what_is_not_there(files, tmp_path, sharpen):
    with serve(tmp_path) as address:
        for missing in (f"/vsicurl/{address}/none.tif", f"/vsizip/{tmp_path}/none.zip/pan.tif"):
            done, out = sharpen(missing, files.ms)
            assert done.exit_code == 1
            assert f"Error: {missing}: the file cannot be opened" in done.stderr
            assert len(done.stderr.splitlines()) == 1, done.stderr
    done, out = sharpen("/vsicurl/http://127.0.0.1:9/pan.tif", files.ms)
    assert done.exit_code == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert list(out.parent.iterdir()) == []


def test_a_vrt_that_lost_its_source(files, tmp_path, sharpen):
    copy_raster(files.ms, str(tmp_path / "ms.vrt"), driver="VRT")
    with rasterio.open(files.ms) as source:
        assert source.count == 4
    (tmp_path / "ms.tif").unlink()
    done, out = sharpen(files.pan, tmp_path / "ms.vrt")
    assert done.exit_code == 1
    assert "ms.vrt" in done.stderr
    assert list(out.parent.iterdir()) == []


@pytest.mark.slow
def test_a_part_of_a_cog_over_http_fetches_little_more_than_its_blocks(tmp_path, small_weights, monkeypatch):
    """`--bounds` of a scene of 4096 x 4096 px: the blocks of the sample windows and of the part, each once.

    What is needed are the blocks that the same run reads from the local files, by `Raster`. The blocks of the MS are
    35 MB, more than the cache of a local run holds.
    """
    block, rng = 512, np.random.default_rng(3)
    grid = Affine(0.5, 0, 5e5, 0, -0.5, 5e6)
    for name, side, bands, scale in (("pan", 4096, 1, 1), ("ms", 2048, 4, 2)):
        data = rng.integers(300, 500, (bands, side, side), dtype="uint16")
        write_raster(tmp_path / "plain.tif", data, grid @ Affine.scale(scale))
        copy_raster(tmp_path / "plain.tif", tmp_path / f"{name}.tif", driver="COG", COMPRESS="NONE", BLOCKSIZE=block)
    needed = set()
    read = Raster._read_inside

    def noted(self, window, reduced=None):
        assert reduced is None
        rows, cols = (
            range(a // block, -(-b // block)) for a, b in zip((window.row, window.col), window.stop, strict=True)
        )
        needed.update((Path(self.path).name, row, col) for row in rows for col in cols)
        return read(self, window, reduced)

    bounds = (500900.0, 4998900.0, 501000.0, 4999000.0)
    options = sharpen_options(
        PairOptions(sensor="vhr", bands=("B", "G", "R", "NIR")), small_weights, "cpu", bounds=bounds, readers=1
    )
    with monkeypatch.context() as patch:
        patch.setattr(Raster, "_read_inside", noted)
        fuse(str(tmp_path / "pan.tif"), [str(tmp_path / "ms.tif")], tmp_path / "local.tif", options)
    faults = Faults()
    with serve(tmp_path, faults) as address:
        fuse(f"/vsicurl/{address}/pan.tif", [f"{address}/ms.tif"], tmp_path / "remote.tif", options)
    fetched = 0
    for request in faults.requests:
        first, last = re.search(r"bytes=(\d+)-(\d+)", request).groups()
        fetched += int(last) - int(first) + 1
    least = sum(block * block * 2 * (4 if name == "ms.tif" else 1) for name, _, _ in needed)
    assert least < 0.9 * sum((tmp_path / f"{name}.tif").stat().st_size for name in ("pan", "ms"))
    assert fetched <= 1.3 * least
    with rasterio.open(tmp_path / "local.tif") as local, rasterio.open(tmp_path / "remote.tif") as remote:
        assert np.array_equal(local.read(), remote.read())
