"""The speed benchmark on a tiny scene, and what its page says of given figures."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import speed  # noqa: E402
import speed_table  # noqa: E402

MACHINE = {
    "name": "A machine", "cores": 2, "threads": 2, "torch": "2", "flop_per_pixel": {"4": 200_000, "8": 300_000},
    "precision": "fp32", "flop_per_s": 2e11, "disk_bytes_per_s": 1e8,
}  # fmt: skip


def row(method, size, seconds, **changes):
    pixels = size**2
    return {
        "method": method, "size": size, "bands": 4, "device": "auto", "seconds": seconds, "cpu_seconds": 2 * seconds,
        "peak_mb": 1000, "start_seconds": 2.0, "load_before": 0.0, "bytes_in": 2 * pixels, "bytes_out": 8 * pixels,
    } | changes  # fmt: skip


def test_a_tiny_run(tmp_path, monkeypatch):
    """Two methods on one small scene; figures of other runs are kept, those of the same run replaced."""
    kept = [row("sharpen", 4096, 30.0), row("plain", 512, 1e9)]
    (tmp_path / "speed.json").write_text(json.dumps({"machine": MACHINE, "rows": kept}))
    monkeypatch.setattr(speed, "machine", lambda device: MACHINE)
    methods = ["plain", *(["gdal"] if shutil.which("gdal_pansharpen.py") else [])]
    arguments = ["--sizes", "512", "--bands", "4", "--methods", *methods, "-o", str(tmp_path / "speed.json")]
    monkeypatch.setattr(sys, "argv", ["speed.py", *arguments])
    speed.main()
    rows = json.loads((tmp_path / "speed.json").read_text())["rows"]
    assert [(r["method"], r["size"]) for r in rows] == [("sharpen", 4096), *((method, 512) for method in methods)]
    for fresh in rows[1:]:
        assert 0 < fresh["start_seconds"] <= fresh["seconds"] < 1000
        assert 0 < fresh["cpu_seconds"]
        assert 10 < fresh["peak_mb"] < 2000
        assert fresh["bytes_out"] > fresh["bytes_in"] > 512 * 512
    page = (tmp_path / "speed.md").read_text()
    assert "| 512 px | 4 | plain |" in page
    assert "| 4096 px | 4 | sharpen |" in page


def test_scenes_are_what_they_say(tmp_path):
    """The MS is the PAN's ground at the centres of its pixels, as large as it must be."""
    pan, ms = speed.make_scene(tmp_path, 1280, 8)
    with rasterio.open(pan) as fine, rasterio.open(ms) as coarse:
        assert (fine.shape, coarse.shape, coarse.count, coarse.dtypes[0]) == ((1280, 1280), (320, 320), 8, "uint16")
        assert coarse.bounds == fine.bounds
        mean = fine.read(1).reshape(320, 4, 320, 4).mean(axis=(1, 3))
        assert np.corrcoef(mean.ravel(), coarse.read(4).ravel())[0, 1] > 0.95


def test_the_plain_copy_is_as_large_as_the_result(tmp_path):
    pan, ms = speed.make_scene(tmp_path, 600, 4)
    speed.plain(pan, ms, tmp_path / "out.tif")
    with rasterio.open(tmp_path / "out.tif") as out, rasterio.open(ms) as coarse:
        assert (out.shape, out.count) == ((600, 600), 4)
        assert out.read(2)[::4, ::4].mean() == pytest.approx(coarse.read(2).mean() + 7.5, abs=2)


def test_a_command_that_fails_ends_the_benchmark_with_its_words(tmp_path):
    with pytest.raises(SystemExit, match="no such thing"):
        speed.measure([sys.executable, "-c", "raise SystemExit('no such thing')"], tmp_path / "out.tif")


def test_peak_memory_is_that_of_the_command_alone(tmp_path):
    """Of a process that takes 300 MB, and of one that takes nothing, started from this large one."""
    large, small = (
        speed.measure([sys.executable, "-c", f"x = bytearray({size}); x[::4096] = x[::4096]"], tmp_path / "out.tif")
        for size in (300 * 2**20, 1)
    )
    assert 300 < large["peak_mb"] < 340
    assert small["peak_mb"] < 40


def test_unknown_words_are_refused():
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "speed.py"), "--methods", "magic"], capture_output=True, check=False
    )
    assert done.returncode == 2


def test_the_page_marks_what_was_measured_on_a_busy_machine():
    quiet = speed_table.page(MACHINE, [row("sharpen", 4096, 30.0)], busy=0.3)
    assert "\\*" not in quiet
    noisy = speed_table.page(MACHINE, [row("sharpen", 4096, 30.0, load_before=2.0)], busy=0.3)
    assert "| 30.0\\* | 0.56\\* |" in noisy
    assert "must be measured again" in noisy


def test_the_page_works_out_floor_and_cost():
    """By hand: 0.2 MFLOP at 0.2 TFLOP/s is 1 s/Mpx; 10 bytes at 100 MB/s is 0.1 s/Mpx."""
    rows = [row("sharpen", 10_000, 200.0), row("sharpen", 5000, 49.0), row("plain", 10_000, 20.0)]
    page = speed_table.page(MACHINE, rows, busy=0.3)
    assert "| 4 | 200,000 | 1.00 | 10.0 | 0.100 | 1.00 | 0.50 |" in page
    assert "10000 px against 5000 px: time per pixel +2.0 %, peak memory +0.0 %" in page
    # 10 TB of 2 bytes for each PAN pixel and 0.5 for its share of four bands: 4e12 pixels at 0.5 Mpx/s.
    assert "| 4 | sharpen, auto | 0.50 | 2,222 | 13.2 | arithmetic (a plain copy takes 10 % of the time) |" in page
    assert "No GPU has been measured" in page


def test_what_a_command_says_of_its_stages_is_kept(tmp_path):
    said = json.dumps({"stage_seconds": {"read": 1.0, "fuse": 2.5, "write": 0.5}})
    for output, wanted in ((said, json.loads(said)), ("no JSON", {}), ("[1]", {})):
        found = speed.measure([sys.executable, "-c", f"print({output!r})"], tmp_path / "out.tif")
        assert {name: found[name] for name in found if name == "stage_seconds"} == wanted
    page = speed_table.page(MACHINE, [row("sharpen", 512, 4.0, stage_seconds=json.loads(said)["stage_seconds"])], 0.5)
    assert "| 1.0 / 2.5 / 0.5 |" in page
