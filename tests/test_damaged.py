"""Damaged, hostile and unfit files: refused in one line that names the file, or used without the damaged part.

Each test stands for something that `benchmarks/fuzz.py` found, or that an untrusted file could do.
"""

import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from conftest import write_raster
from rasterio.transform import Affine

from crossdiff_cli.cli.main import main
from crossdiff_cli.errors import RatioError, SceneError, TrainingError, UnreadableError
from crossdiff_cli.geometry.grid import map_grids
from crossdiff_cli.geometry.window import Window
from crossdiff_cli.io.open_pair import open_pair
from crossdiff_cli.io.raster import Raster
from crossdiff_cli.options import PairOptions
from crossdiff_cli.training.manifest import read_manifest

GRID = Affine(0.5, 0, 500000, 0, -0.5, 5000000)
FOUR = PairOptions(sensor="vhr", bands=("B", "G", "R", "NIR"))


def vrt(path, body, size=8, geotransform="500000, 2, 0, 5000000, 0, -2"):
    path.write_text(
        f'<VRTDataset rasterXSize="{size}" rasterYSize="{size}"><SRS>EPSG:32633</SRS>'
        f"<GeoTransform>{geotransform}</GeoTransform>{body}</VRTDataset>"
    )
    return str(path)


def source_band(name, band, dtype="UInt16", size=8):
    rectangle = f'xOff="0" yOff="0" xSize="{size}" ySize="{size}"'
    return (
        f'<VRTRasterBand dataType="{dtype}" band="{band}"><SimpleSource><SourceFilename relativeToVRT="1">{name}'
        f"</SourceFilename><SourceBand>1</SourceBand><SrcRect {rectangle}/><DstRect {rectangle}/></SimpleSource>"
        "</VRTRasterBand>"
    )


@pytest.mark.parametrize("numbers", ["nan, 2, 0, 5000000, 0, -2", "0, 2, 0, 1e300, 0, -2", "0, 0, 0, 0, 0, -2"])
def test_a_geotransform_that_is_no_place(tmp_path, numbers):
    write_raster(tmp_path / "a.tif", np.ones((1, 8, 8), "uint16"))
    with pytest.raises(SceneError) as caught:
        Raster(vrt(tmp_path / "x.vrt", source_band("a.tif", 1), geotransform=numbers))
    assert caught.value.path == str(tmp_path / "x.vrt")


def test_a_pixel_of_almost_no_size_is_named_and_not_divided_by(make_pair, tmp_path):
    """Ratio 1e-5 was rounded to 0."""
    files = make_pair()
    tiny = write_raster(tmp_path / "tiny.tif", np.ones((4, 64, 64), "uint16"), GRID @ Affine.scale(1e-5))
    with pytest.raises(RatioError):
        open_pair(files.pan, [tiny], FOUR)
    assert map_grids(GRID, GRID @ Affine.scale(1e-5), (64, 64)).ratio == pytest.approx((1e-5, 1e-5))


def test_thousands_of_bands_in_a_header(tmp_path):
    """Rasterio asks band by band and needs minutes for 65535."""
    path = write_raster(tmp_path / "a.tif", np.ones((1100, 2, 2), "uint8"), interleave="pixel")
    with pytest.raises(SceneError) as caught:
        Raster(path)
    assert (caught.value.found, caught.value.expected) == (1100, "at most 1024")


def test_a_damaged_mask_is_not_passed_over(tmp_path):
    """The pixels could be read, and masked ones would be taken for data."""
    path = tmp_path / "a.tif"
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        write_raster(path, np.ones((1, 64, 64), "uint8"))
        with rasterio.open(path, "r+") as file:
            file.write_mask(np.full((64, 64), 255, "uint8"))
    data = bytearray(path.read_bytes())
    first = int.from_bytes(data[4:8], "little")
    second_at = first + 2 + 12 * int.from_bytes(data[first : first + 2], "little")
    second = int.from_bytes(data[second_at : second_at + 4], "little")
    for entry in range(second + 2, second + 2 + 12 * int.from_bytes(data[second : second + 2], "little"), 12):
        if int.from_bytes(data[entry : entry + 2], "little") == 257:  # height of the mask
            data[entry + 8 : entry + 12] = bytes(4)
    path.write_bytes(data)
    with pytest.raises(UnreadableError) as caught:
        Raster(str(path))
    assert caught.value.path == str(path)


def test_bands_of_different_types(tmp_path):
    """A VRT may mix them; rasterio refuses to read them together."""
    low, high = np.arange(64, dtype="uint8").reshape(1, 8, 8), np.full((1, 8, 8), 1234.5, "float32")
    write_raster(tmp_path / "low.tif", low)
    write_raster(tmp_path / "high.tif", high)
    mixed = vrt(tmp_path / "x.vrt", source_band("low.tif", 1, "Byte") + source_band("high.tif", 2, "Float32"))
    with Raster(mixed) as raster:
        assert raster.dtype == "float32"
        data, mask = raster.read(Window(2, 0, 6, 8))
        reduced, _ = raster.read_reduced(Window(0, 0, 8, 8), (4, 4))
    assert np.array_equal(data, np.concatenate([low, high])[:, 2:])
    assert mask.all()
    assert reduced.shape == (2, 4, 4)


def test_messages_of_gdal_in_another_encoding(tmp_path, capfd):
    """Neither the log of rasterio nor its exception can take them: a traceback stood before the error."""
    (tmp_path / "x.vrt").write_bytes(b'<VRTDataset rasterXSize="8" \xb0\xa1="8"></VRTDataset>')
    done = CliRunner().invoke(main, ["-q", "info", str(tmp_path / "x.vrt"), str(tmp_path / "x.vrt")])
    assert isinstance(done.exception, SystemExit)
    assert done.stderr.startswith(f"Error: {tmp_path / 'x.vrt'}: ")
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in capfd.readouterr().err


def test_file_names_in_another_encoding(tmp_path):
    write_raster(tmp_path / "a.tif", np.ones((1, 8, 8), "uint16"))
    body = source_band("a.tif", 1) + source_band("b.tif", 2)
    path = Path(vrt(tmp_path / "x.vrt", body))
    path.write_bytes(path.read_bytes().replace(b"b.tif", b"\xb0\xa1.tif"))
    with pytest.raises(SceneError) as caught, open_pair(str(path), [str(path)], FOUR):
        pass
    assert caught.value.path == str(path)


@pytest.mark.parametrize(("old", "new"), [("lineNumCoef", "lineXumCoef"), ("0.5", "zero"), ("\t0.5", "\xb60.5")])
def test_damaged_rational_polynomials_are_left_out(tmp_path, caplog, old, new):
    path = write_raster(tmp_path / "a.tif", np.ones((1, 8, 8), "uint16"))
    names = (
        "lineOffset",
        "sampOffset",
        "latOffset",
        "longOffset",
        "heightOffset",
        "lineScale",
        "sampScale",
        "latScale",
    )
    rows = [f"\t{name} = 1;\n" for name in (*names, "longScale", "heightScale")]
    rows += [
        f"\t{name} = (\n" + ",\n".join(["\t\t\t0.5"] * 20) + ");\n"
        for name in ("lineNumCoef", "lineDenCoef", "sampNumCoef", "sampDenCoef")
    ]
    text = 'satId = "WV04";\nBEGIN_GROUP = IMAGE\n\terrBias = 1.0;\n\terrRand = 0.1;\n' + "".join(rows)
    sidecar = tmp_path / "a.RPB"
    sidecar.write_text(text + "END_GROUP = IMAGE\nEND;\n")
    with Raster(path) as raster:
        assert raster.rpcs is not None
    sidecar.write_text(text.replace(old, new, 1) + "END_GROUP = IMAGE\nEND;\n", encoding="latin-1")
    with caplog.at_level(logging.WARNING), Raster(path) as raster:
        assert raster.rpcs is None
    assert "a.tif: " in caplog.text
    assert "left out" in caplog.text


def test_a_crs_that_leads_nowhere(make_pair, tmp_path):
    files = make_pair()
    local = 'LOCAL_CS["somewhere",UNIT["metre",1]]'
    ms = write_raster(tmp_path / "local.tif", np.ones((4, 64, 64), "uint16"), GRID @ Affine.scale(4), local)
    with pytest.raises(SceneError) as caught:
        open_pair(files.pan, [ms], FOUR)
    assert caught.value.path == ms
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, "\ud800", "[null]", '[{"files": {"pan": 3}}]'])
def test_manifests_that_are_none(tmp_path, content):
    path = tmp_path / "scenes.json"
    path.write_bytes(content.encode(errors="surrogatepass"))
    with pytest.raises(TrainingError, match=r"scenes\.json: it is not a manifest") as caught:
        read_manifest(path, "train")
    assert len(str(caught.value)) < 500


def test_a_bad_byte_does_not_print_the_manifest(tmp_path):
    path = tmp_path / "scenes.json"
    path.write_bytes(b"[" + b" " * 10_000 + b"\xff]")
    with pytest.raises(TrainingError) as caught:
        read_manifest(path, "train")
    assert len(str(caught.value)) < 500


@pytest.fixture
def pipe(tmp_path):
    """A named pipe without a writer; whoever waits for one after all is let go when the test would hang."""
    path = tmp_path / "pipe.json"
    os.mkfifo(path)
    rescue = threading.Timer(30, lambda: os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK)))
    rescue.start()
    yield path
    assert rescue.is_alive(), "the pipe was waited for"
    rescue.cancel()


@pytest.mark.parametrize("place", ["pan", "ms", "weights", "manifest", "output"])
def test_a_pipe_is_refused_and_not_waited_for(make_pair, tmp_path, pipe, place):
    files, out = make_pair(), tmp_path / "out.tif"
    arguments = {
        "pan": ["sharpen", pipe, files.ms, "-o", out],
        "ms": ["info", files.pan, pipe],
        "weights": ["sharpen", files.pan, files.ms, "-o", out, "--weights", pipe],
        "manifest": ["pretrain", pipe, "-o", tmp_path / "run"],
        "output": ["sharpen", files.pan, files.ms, "-o", pipe, "--overwrite"],
    }[place]
    done = CliRunner().invoke(main, ["-q", *map(str, arguments)])
    assert done.exit_code == 1
    assert "pipe" in done.stderr.replace("pipe.json", "")
    assert len(done.stderr.splitlines()) == 1
    assert not out.exists()
    assert pipe.is_fifo()


@pytest.mark.parametrize("place", ["/dev/zero", "/dev/null", "folder"])
def test_devices_and_folders_as_input(make_pair, tmp_path, place):
    files = make_pair()
    (tmp_path / "folder").mkdir()
    done = CliRunner().invoke(main, ["-q", "info", files.pan, str(tmp_path / place)])
    assert done.exit_code == 1
    assert place in done.stderr
    assert isinstance(done.exception, SystemExit)


def test_a_device_is_not_replaced(make_pair, untrained_weights):
    """A rename onto /dev/null would take it away from the whole machine."""
    files = make_pair()
    arguments = ["-q", "sharpen", files.pan, files.ms, "-o", "/dev/full", "--overwrite"]
    done = CliRunner().invoke(main, [*arguments, "--weights", str(untrained_weights)])
    assert done.exit_code == 1
    assert "Error: /dev/full: " in done.stderr
    assert Path("/dev/full").is_char_device()


def test_a_vrt_runs_no_code(make_pair, tmp_path):
    """GDAL can run Python inside a VRT; it must stay switched off."""
    files, trace = make_pair(), tmp_path / "trace"
    write_raster(tmp_path / "a.tif", np.ones((1, 64, 64), "uint16"), GRID @ Affine.scale(4))
    code = f"def run(*a, **k):\n    open({str(trace)!r}, 'w')"
    band = source_band("a.tif", 1, size=64).replace(
        'band="1">',
        'band="1" subClass="VRTDerivedRasterBand"><PixelFunctionType>run</PixelFunctionType>'
        f"<PixelFunctionLanguage>Python</PixelFunctionLanguage><PixelFunctionCode><![CDATA[{code}]]></PixelFunctionCode>",
    )
    path = vrt(tmp_path / "x.vrt", band, size=64)
    done = CliRunner().invoke(main, ["-q", "info", files.pan, path, "--bands", "B"])
    assert done.exit_code == 1
    assert "x.vrt" in done.stderr
    assert not trace.exists()


def test_absurd_sizes_take_no_memory(make_pair, tmp_path):
    """A sparse file of a few kilobytes that says it is two million pixels wide and high."""
    files = make_pair()
    side = 2_000_000
    path = tmp_path / "huge.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=1, dtype="uint16", tiled=True, blockxsize=1024,
        blockysize=1024, sparse_ok=True, bigtiff="YES", transform=GRID, crs="EPSG:32633",
    ):  # fmt: skip
        pass
    script = (
        "import resource, sys; from crossdiff_cli.cli.main import main; import torch, rasterio\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * 4096\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, used + 2**30))\n"
        f"main(['-q', 'info', {str(path)!r}, {files.ms!r}, '--sensor', 'vhr', '--json'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert "Traceback" not in done.stderr
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["result_size"] == [256, 256]
