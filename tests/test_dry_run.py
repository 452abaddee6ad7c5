"""`sharpen --dry-run` says what the run then does, and writes nothing."""

import json
from types import SimpleNamespace

import pytest
import rasterio
import torch
from click.testing import CliRunner

from crossdiff_cli.batch.forecast import BatchForecast, SceneSize
from crossdiff_cli.batch.manifest import Scene
from crossdiff_cli.cli.main import main
from crossdiff_cli.inference.plan import window_bytes
from crossdiff_cli.tasks.dry_run import SharpenForecast


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


def test_a_batch_is_forecast(make_pair, small_weights, tmp_path):
    """Sizes as of the results, the time by pixels, and what cannot be sharpened with its reason; nothing is written."""
    large, small = make_pair(shape=(480, 640), name="large_"), make_pair(shape=(256, 320), name="small_")
    manifest = tmp_path / "scenes.csv"
    rows = [f"{name},{files.pan},{files.ms}" for name, files in (("large", large), ("small", small))]
    manifest.write_text("\n".join(["name,pan,ms", *rows, "gone,none.tif,none.tif"]))
    words = ["batch", str(manifest), "-o", str(tmp_path / "out"), "--sensor", "vhr", "--bands", "B,G,R,NIR",
             "--weights", str(small_weights), "--device", "cpu", "--jobs", "2"]  # fmt: skip
    done = CliRunner().invoke(main, [*words, "--dry-run"])
    assert done.exit_code == 0, done.output
    assert [json.loads(line)["name"] for line in done.stdout.splitlines()] == ["large", "small", "gone"]
    assert not (tmp_path / "out").exists()
    lines = done.stderr.splitlines()
    table = {line.split()[0]: line.split()[1:] for line in lines[1:3]}
    assert table["large"][:3] == ["640", "480", "4"]
    assert table["small"][:3] == ["320", "256", "4"]
    assert lines[3].startswith("2 scenes, 0 skipped: 0.4 Mpx")
    assert "estimated time" in lines[4]
    assert lines[5].startswith("gone cannot be sharpened: ")
    assert "none.tif" in lines[5]
    assert len(lines) == 6
    assert CliRunner().invoke(main, [*words, "--dry-run", "-q"]).stderr == ""


def test_the_time_of_a_batch_goes_by_pixels(tmp_path):
    scene = Scene("a", "pan.tif", ("ms.tif",), tmp_path / "a.tif")
    measured = SharpenForecast("a", {}, (100, 100), "uint16", 1, (100, 100), 0, 1, 5_000_000, 80_000, 9.0, 1.0)
    sizes = [SceneSize(scene, (100, 100), 4, 80_000), SceneSize(scene, (50, 100), 4, 40_000)]
    forecast = BatchForecast(sizes, {}, 0, 3, measured)
    assert [forecast.seconds(size) for size in sizes] == [9.0, 5.0]
    assert "memory of the tiles: 0.01 GB" in str(forecast)
