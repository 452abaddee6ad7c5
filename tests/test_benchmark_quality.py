"""`benchmarks/quality.py`: the table of methods over a manifest."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import rasterio
import torch
from rasterio.transform import Affine

from crossdiff_cli.options import PairOptions
from crossdiff_cli.quality.files import JudgedFiles

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def manifest(make_pair, tmp_path):
    """A georeferenced pair and one without, the second with a thermal band that no method gets."""
    scenes = []
    for name, bands, sensor, georeferenced in (
        ("town", ["B", "G", "R", "NIR"], "qb", True),
        ("plain", ["R", "G", "B", "NIR", "TIR"], "l7", False),
    ):
        files = make_pair(bands=len(bands), name=name, georeferenced=georeferenced, ratio=4 if sensor == "qb" else 2)
        scenes.append(
            {"name": name, "split": "validation", "sensor": sensor, "bands": bands,
             "files": {"pan": Path(files.pan).name, "ms": Path(files.ms).name}}
        )  # fmt: skip
    path = tmp_path / "index.json"
    path.write_text(json.dumps(scenes))
    return path


def bench(*arguments, code=0):
    command = [sys.executable, str(BENCHMARKS / "quality.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done


def test_table_rows_and_reuse(manifest, tmp_path, untrained_weights):
    first = tmp_path / "first"
    keep = tmp_path / "keep"
    bench(manifest, "-o", first, "-m", "EXP", "-m", f"ours={untrained_weights}", "--keep", keep, "--no-sheet")
    record = json.loads((first / "quality.json").read_text())
    assert len(record["rows"]) == 2 * 3 * 2
    assert not [row for row in record["rows"] if "error" in row]
    for row in record["rows"]:
        assert ("ergas" in row) == (row["scale"] != "full")
        assert len(row["bands"]) == 4
    row = next(r for r in record["rows"] if (r["scene"], r["scale"], r["method"]) == ("town", "reduced", "EXP"))
    case, options = keep / "cases" / "town", PairOptions(sensor="qb", bands=("B", "G", "R", "NIR"))
    reduced = [str(case / "reduced" / f"{name}.tif") for name in ("pan", "ms", "reference")]
    with JudgedFiles(
        str(keep / "results" / "town.reduced.EXP.tif"), reduced[0], [reduced[1]], reduced[2], options
    ) as files:
        assert files.report().ergas == pytest.approx(row["ergas"])
    with rasterio.open(keep / "cases" / "plain" / "ms.tif") as file:
        assert file.count == 4
        assert file.transform == Affine(2, 0, 500000, 0, -2, 5000000)

    second = tmp_path / "second"
    results = keep / "results"
    for path in results.glob("*.ours.tif"):
        path.rename(results / path.name.replace(".ours", ""))
    bench(manifest, "-o", second, "-m", f"theirs={results}", "--add", first / "quality.json", "--aside", "plain",
          "-m", "truth", "--no-sheet")  # fmt: skip
    again = json.loads((second / "quality.json").read_text())
    assert again["rows"][:12] == record["rows"]
    same = {(r["scene"], r["scale"]): r["hqnr"] for r in again["rows"] if r["method"] == "theirs"}
    assert same == {(r["scene"], r["scale"]): r["hqnr"] for r in record["rows"] if r["method"] == "ours"}
    truth = [r for r in again["rows"] if r["method"] == "truth"]
    assert {(r["scene"], r["scale"]) for r in truth} == {
        (scene, scale) for scene in ("town", "plain") for scale in ("reduced", "natural")
    }
    assert not any(r["ergas"] or r["overshoot"] for r in truth)
    text = (second / "quality.md").read_text(encoding="utf-8")
    assert "**0.000" not in text, "the truth is no competitor"
    assert "## Full resolution: VHR, 1 scene\n" in text
    assert "Full resolution: Landsat" not in text
    assert "Not in the means: plain." in text
    assert "| plain |" in text


def test_missing_results_are_told_and_methods_checked(manifest, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    bench(manifest, "-o", tmp_path / "out", "-m", f"theirs={empty}", "--scenes", "town", "--no-sheet")
    text = (tmp_path / "out" / "quality.md").read_text(encoding="utf-8")
    assert "## No result" in text
    assert "town.full.tif does not exist" in text
    assert "no method 'GSB'" in bench(manifest, "-o", tmp_path / "out", "-m", "GSB", code=1).stderr
    assert "does not exist" in bench(manifest, "-o", tmp_path / "out", "-m", "x=/none", code=1).stderr


def rows_of(text):
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    return {cells[0]: [float(c) for c in cells[1:]] for cells in lines if len(cells) == 12 and cells[0] != "fault"}


def test_the_faults_are_as_the_documentation_says():
    command = [sys.executable, str(BENCHMARKS / "faults.py")]
    found = rows_of(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    told = rows_of((BENCHMARKS.parent / "docs" / "quality.md").read_text(encoding="utf-8"))
    assert len(told) == 12
    for name, figures in told.items():
        assert found[name] == pytest.approx(figures, abs=0.01), name


def test_sharpness_is_told_by_contrast(manifest):
    """The flat half of a synthetic pair has noise of its own in the result; in the other half the result is the PAN."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from sharpness import by_contrast
    finally:
        sys.path.remove(str(BENCHMARKS))
    draw = torch.Generator().manual_seed(0)
    pan, noise = (100 + torch.randn(1, 64, 64, generator=draw, dtype=torch.float64) for _ in range(2))
    fused = noise.clone()
    pan[:, :, 32:] *= 50
    fused[:, :, 32:] = 3 * pan[:, :, 32:]
    flattest, second, third, most = by_contrast(fused, pan, torch.ones(64, 64, dtype=torch.bool), 4)
    assert min(flattest, second) > 0.7
    assert max(third, most) < 0.1
    command = [sys.executable, str(BENCHMARKS / "sharpness.py"), str(manifest), "-m", "EXP", "-m", "truth"]
    table = subprocess.run([*command, "--aside", "plain"], capture_output=True, text=True, check=True).stdout
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    assert sorted(row[:3] for row in rows) == [
        ["VHR", "full", "EXP"],
        *(["VHR", scale, method] for scale in ("natural", "reduced") for method in ("EXP", "truth")),
    ]
    assert all(len(row) == 7 and 0 < float(cell) < 2 for row in rows for cell in row[3:])


def test_noise_is_put_into_one_image_and_judged_against_a_truth_without(manifest):
    """The interpolated MS knows nothing of the noise of the PAN; that of the MS is in it."""
    command = [sys.executable, str(BENCHMARKS / "noise.py"), str(manifest), "-m", "EXP", "--aside", "plain"]
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    assert [(row[0], float(row[1])) for row in rows] == [(i, s) for i in ("PAN", "MS") for s in (0, 0.03, 0.06, 0.12)]
    pan, ms = rows[:4], rows[4:]
    assert len({tuple(row[4:]) for row in (*pan, ms[0])}) == 1
    sam = [float(row[5]) for row in ms]
    assert sam[0] <= sam[1] < sam[2] < sam[3]
