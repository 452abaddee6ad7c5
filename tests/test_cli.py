import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from conftest import write_raster

from crossdiff_cli.cli.main import main

COMMANDS = sorted(main.commands)


@pytest.fixture
def run():
    runner = CliRunner()

    def invoke(*arguments):
        return runner.invoke(main, [str(a) for a in arguments])

    return invoke


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS), ["sensors"]])
def test_start_law(arguments):
    """Help needs click alone: neither torch nor rasterio nor numpy is imported."""
    script = (
        "import sys; from crossdiff_cli.cli.main import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'rasterio', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 100


def test_version_and_unknown_command(run):
    assert run("--version").output.startswith("crossdiff, version ")
    assert run("nonsense").exit_code == 2


def test_sharpen_writes_the_file_and_one_json_line(run, make_pair, tmp_path, small_weights):
    files = make_pair()
    out = tmp_path / "out.tif"
    arguments = [files.pan, files.ms, "-o", out, "--weights", small_weights, "--tile", 256, "--sensor", "qb", "--json"]
    done = run("-q", "sharpen", *arguments)
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["sensor"] == "qb"
    assert result["bands"] == ["B", "G", "R", "NIR"]
    assert result["ratio"] == 4
    assert result["seconds"] > 0
    assert set(result["stage_seconds"]) == {"read", "fuse", "write"}
    assert all(0 < seconds < result["seconds"] for seconds in result["stage_seconds"].values())
    with rasterio.open(out) as file:
        assert file.count == 4
        assert file.shape == (256, 256)


def test_sharpen_bands_and_bidx(run, make_pair, tmp_path, small_weights):
    files = make_pair()
    out = tmp_path / "out.tif"
    done = run(
        "sharpen",
        files.pan,
        files.ms,
        "-o",
        out,
        "--weights",
        small_weights,
        "-b",
        "3,1",
        "--bands",
        "R,B",
        "--sensor",
        "vhr",
    )
    assert done.exit_code == 0, done.output
    with rasterio.open(out) as file:
        assert file.descriptions == ("R", "B")


def test_separate_band_files(run, make_pair, tmp_path, small_weights, read_all):
    files = make_pair()
    bands = read_all(files.ms)
    with rasterio.open(files.ms) as source:
        names = [
            write_raster(tmp_path / f"x_{name}.tif", bands[i : i + 1], source.transform)
            for i, name in enumerate(("blu", "grn", "red", "nir"))
        ]
    done = run("sharpen", files.pan, *reversed(names), "-o", tmp_path / "out.tif", "--weights", small_weights)
    assert done.exit_code == 0, done.output
    with rasterio.open(tmp_path / "out.tif") as file:
        assert [d[0] for d in file.descriptions] == ["N", "R", "G", "B"]


def test_cog_and_creation_options(run, make_pair, tmp_path, small_weights):
    files = make_pair(shape=(600, 600))
    out = tmp_path / "out.tif"
    done = run(
        "sharpen", files.pan, files.ms, "-o", out, "--weights", small_weights, "--of", "COG", "--co", "COMPRESS=LZW"
    )
    assert done.exit_code == 0, done.output
    with rasterio.open(out) as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.profile["compress"] == "lzw"
        assert file.tags()["CROSSDIFF_SENSOR"] == "vhr"
        assert file.overviews(1)


def bad_inputs(make_pair, tmp_path):
    files = make_pair()
    (tmp_path / "there.tif").write_text("old")
    (tmp_path / "text.tif").write_text("no raster")
    whole = Path(files.pan).read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[: len(whole) // 2])
    grid = rasterio.open(files.ms).transform
    far = make_pair(origin=(9e5, 5e6), name="far")
    complex_ms = write_raster(tmp_path / "complex.tif", np.ones((1, 64, 64), "complex64"), grid)
    coarse = write_raster(tmp_path / "coarse.tif", np.ones((1, 64, 64), "uint16"), grid)
    one = write_raster(tmp_path / "one.tif", np.ones((1, 256, 256), "uint16"), rasterio.open(files.pan).transform)
    dark = write_raster(tmp_path / "dark.tif", np.zeros((4, 64, 64), "uint16"), grid, nodata=0)
    five = write_raster(tmp_path / "five.tif", np.ones((5, 64, 64), "uint16"), grid)
    (tmp_path / "foreign.safetensors").write_bytes(b"x" * 200)
    out = ["-o", tmp_path / "out.tif"]
    four = ["--sensor", "vhr"]
    return {
        "missing file": ([tmp_path / "none.tif", files.ms, *out], 1, "none.tif"),
        "not a raster": ([files.pan, tmp_path / "text.tif", *out], 1, "text.tif"),
        "swapped": ([files.ms, files.pan, *out], 1, "PAN before MS"),
        "swapped, one band": ([coarse, one, *out, "--bands", "B"], 1, "swapped"),
        "no overlap": ([files.pan, far.ms, *out], 1, "do not overlap"),
        "ratio one": ([files.pan, one, *out], 1, "same pixel size"),
        "complex": ([files.pan, complex_ms, *out], 1, "complex"),
        "truncated": ([tmp_path / "cut.tif", files.ms, *out, *four], 1, "cut.tif"),
        "output exists": ([files.pan, files.ms, "-o", tmp_path / "there.tif"], 1, "--overwrite"),
        "no folder": ([files.pan, files.ms, "-o", tmp_path / "no" / "out.tif"], 1, "does not exist"),
        "unknown sensor": ([files.pan, files.ms, *out, "--sensor", "wv99"], 1, "wv99"),
        "wrong band count": (
            [files.pan, files.ms, *out, "--sensor", "lg", "--bands", "B,G"],
            1,
            "expected 4",
        ),
        "unfit sensor": ([files.pan, five, *out, "--sensor", "wv3"], 1, "found 5, expected 8, 4 or 3"),
        "unknown band": ([files.pan, files.ms, *out, "--bands", "B,G,R,Q"], 1, "Q"),
        "all masked": ([files.pan, dark, *out, *four], 1, "no valid pixel"),
        "no weights": ([files.pan, files.ms, *out, "--weights", tmp_path / "none"], 1, "no weight file"),
        "foreign weights": (
            [files.pan, files.ms, *out, "--weights", tmp_path / "foreign.safetensors"],
            1,
            "foreign.safetensors",
        ),
        "no such device": ([files.pan, files.ms, *out, "--device", "cuda:77"], 1, "cuda:77"),
        "odd tile": ([files.pan, files.ms, *out, "--tile", "100"], 2, "multiple of 256"),
        "odd creation option": ([files.pan, files.ms, *out, "--co", "X"], 2, "NAME=VALUE"),
        "odd nodata": ([files.pan, files.ms, *out, "--nodata", "none!"], 2, "none"),
        "no output": ([files.pan, files.ms], 2, "--output"),
        "no ms": ([files.pan, *out], 2, "MS"),
        "band numbers": ([files.pan, files.ms, *out, "-b", "x"], 2, "no list of numbers"),
        "band out of range": ([files.pan, files.ms, *out, "-b", "9"], 1, "no band 9"),
    }


def test_every_bad_input_is_one_clear_line(run, make_pair, tmp_path, untrained_weights):
    for name, (arguments, code, text) in bad_inputs(make_pair, tmp_path).items():
        weights = [] if "--weights" in arguments else ["--weights", untrained_weights]
        done = run("-q", "sharpen", *arguments, *weights)
        assert done.exit_code == code, (name, done.output, done.exception)
        assert text in done.output, (name, done.output)
        assert "Traceback" not in done.output
        assert isinstance(done.exception, SystemExit), (name, done.exception)
        if code == 1:
            assert len(done.stderr.strip().splitlines()) == 1, (name, done.stderr)
        assert not (tmp_path / "out.tif").exists(), name
    assert (tmp_path / "there.tif").read_text() == "old"
    assert not [p for p in tmp_path.iterdir() if ".tmp" in p.name]


def test_sensors_lists_every_key(run):
    from crossdiff_cli.sensors.table import SENSORS

    lines = run("sensors").output.splitlines()
    assert [line.split()[0] for line in lines] == list(SENSORS)
    records = [json.loads(line) for line in run("sensors", "--json").output.splitlines()]
    assert {r["sensor"] for r in records} == set(SENSORS)


def test_info_says_what_was_understood(run, make_pair):
    files = make_pair()
    done = run("-q", "info", files.pan, files.ms, "--json", "--sensor", "qb")
    facts = json.loads(done.stdout)
    assert facts["sensor"] == "qb"
    assert facts["bands"] == ["B", "G", "R", "NIR"]
    assert facts["result_size"] == [256, 256]
    assert facts["crs"] == "EPSG:32633"
    assert "B, G, R, NIR" in run("-q", "info", files.pan, files.ms, "--sensor", "qb").stdout
    assert run("info", files.ms, files.pan).exit_code == 1


def test_quiet_before_and_after_the_command(run, make_pair, tmp_path, small_weights):
    files = make_pair()
    common = [files.pan, files.ms, "-o", tmp_path / "out.tif", "--weights", small_weights, "--overwrite", "--tile", 256]
    assert "Mpx/s" in run("sharpen", *common).stderr
    assert run("-q", "sharpen", *common).stderr == ""
    assert run("sharpen", *common, "-q").stderr == ""
