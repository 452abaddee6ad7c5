"""`sharpen --dry-run` says what the run then does, and writes nothing."""

import json
from types import SimpleNamespace

import pytest
import rasterio
import torch
from click.testing import CliRunner

from crossdiff_cli.cli.main import main
from crossdiff_cli.inference.plan import window_bytes


@pytest.fixture
def arguments(make_pair, small_weights, tmp_path):
    files = make_pair(shape=(480, 640))
    chosen = ["--sensor", "vhr", "--bands", "B,G,R,NIR", "--weights", str(small_weights), "--precision", "fp32"]
    return [
        "sharpen",
        files.pan,
        files.ms,
        "-o",
        str(tmp_path / "out.tif"),
        "--tile",
        "256",
        "--device",
        "cpu",
        *chosen,
    ]


def test_the_forecast_is_what_the_run_does(arguments, tmp_path):
    done = CliRunner().invoke(main, [*arguments, "--dry-run", "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert not list(tmp_path.glob("*out*"))
    run = CliRunner().invoke(main, [*arguments, "--json"])
    result = json.loads(run.stdout)
    for name in ("output", "sensor", "bands", "ratio", "shift_px", "nyquist_gains", "mtf_source"):
        assert said[name] == result[name]
    with rasterio.open(tmp_path / "out.tif") as file:
        assert (said["shape"], said["dtype"]) == ([file.height, file.width], file.dtypes[0])
        assert said["output_bytes"] == file.read().nbytes
    assert (said["tiles"], said["tile"]) == (6, [256, 256])
    assert said["seconds"] > 0
    worker = SimpleNamespace(device=torch.device("cpu"), dtype=torch.float32)
    least, most = (window_bytes([worker], 4, side**2) for side in (256, 256 + 2 * said["halo"]))
    assert least < said["tile_bytes"] / said["workers"] <= most


def test_it_is_printed_for_a_reader_and_refuses_as_the_run_does(arguments, tmp_path):
    done = CliRunner().invoke(main, [*arguments, "--dry-run"])
    for part in ("640 x 480 px", "6 of up to 256 x 256 px", "memory of the tiles", "estimated time", "not written"):
        assert part in done.stdout
    (tmp_path / "out.tif").write_bytes(b"kept")
    done = CliRunner().invoke(main, [*arguments, "--dry-run"])
    assert done.exit_code == 1
    assert "--overwrite replaces it" in done.output
    assert (tmp_path / "out.tif").read_bytes() == b"kept"
