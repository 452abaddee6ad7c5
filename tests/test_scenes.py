"""Which files are pairs, and which scenes are trained on."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import rasterio
import torch
import torch.nn.functional as F
from conftest import write_raster

from crossdiff_cli.errors import CrossDiffError, TrainingError
from crossdiff_cli.io.pairing import find_pairs
from crossdiff_cli.training import training_scene
from crossdiff_cli.training.manifest import Entry
from crossdiff_cli.training.scenes import load_scenes, resolve
from crossdiff_cli.training.selection import split
from crossdiff_cli.training.training_scene import load_scene


def avg(image):
    return F.avg_pool2d(image[None], 9, stride=1, padding=4)[0]


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def test_pairs_differ_in_one_word_of_the_path(tmp_path):
    touch(
        tmp_path,
        "a_PAN.tif",
        "a_MUL.TIF",
        "PAN/b.tif",
        "MS/b.tif",
        "c/pan.tif",
        "c/ms.tif",
        "c/reference.tif",
        "po_1-P1BS.tif",
        "po_1-M1BS.tif",
        "notes.txt",
        "d_pan.tfw",
        "map.tif",
    )
    pairs, remarks = find_pairs(tmp_path)
    found = {(str(p.pan.relative_to(tmp_path)), str(p.ms.relative_to(tmp_path))) for p in pairs}
    assert found == {
        ("a_PAN.tif", "a_MUL.TIF"),
        ("PAN/b.tif", "MS/b.tif"),
        ("c/pan.tif", "c/ms.tif"),
        ("po_1-P1BS.tif", "po_1-M1BS.tif"),
    }
    assert [p.reference.name for p in pairs if p.reference] == ["reference.tif"]
    assert remarks == []
    assert len({p.name for p in pairs}) == 4


def test_what_is_not_one_and_one_is_said(tmp_path):
    touch(tmp_path, "a_pan.tif", "a_ms.tif", "a_ms.vrt", "b_pan.tif")
    pairs, remarks = find_pairs(tmp_path)
    assert pairs == []
    assert remarks == [
        "a_pan.tif, a_ms.tif, a_ms.vrt: 1 PAN and 2 MS go by one name, not one and one: left out",
        "b_pan.tif: 1 PAN and 0 MS go by one name, not one and one: left out",
    ]


def test_words_inside_other_words_do_not_count(tmp_path):
    touch(tmp_path, "panama_ms.tif", "panama_pan.tif", "spam.tif")
    pairs, _ = find_pairs(tmp_path)
    assert [(p.pan.name, p.ms.name, p.name) for p in pairs] == [("panama_pan.tif", "panama_ms.tif", "panama")]


def test_manifests_folders_and_pairs_together(tmp_path, make_pair):
    a = make_pair(name="a_")
    manifest = tmp_path / "m.json"
    manifest.write_text(
        json.dumps(
            [
                {"name": "x", "files": {"pan": "p.tif", "ms": "m.tif"}},
                {"name": "y", "files": {"pan": "p.tif", "ms": "m.tif"}, "split": "validation"},
            ]
        )
    )
    entries = resolve([str(tmp_path), str(manifest), "q.tif", "r.tif"], "train")
    assert [(e.name, e.pan) for e in entries] == [("a", a.pan), ("x", str(tmp_path / "p.tif")), ("r.tif", "q.tif")]
    assert [e.name for e in resolve([str(tmp_path), str(manifest), "q.tif", "r.tif"], "validation")] == ["y"]
    with pytest.raises(TrainingError, match="no scene to train on"):
        resolve([], "train")
    with pytest.raises(TrainingError, match=r"q\.tif: it is neither a manifest .* no MS follows it"):
        resolve([str(manifest), "q.tif"], "train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match=r"empty: it holds no PAN and MS .* name the files"):
        resolve([str(tmp_path / "empty")], "train")


def test_an_unreadable_scene_is_left_out_or_fatal(tmp_path, make_pair, caplog):
    good = make_pair(name="good", bands=3)
    (tmp_path / "bad.tif").write_bytes(b"no image")
    entries = resolve([good.pan, good.ms, good.pan, str(tmp_path / "bad.tif")], "train")
    with caplog.at_level(logging.WARNING):
        scenes = load_scenes(entries)
    assert [scene.name for scene in scenes] == [good.ms]
    assert "bad.tif is left out" in caplog.text
    with pytest.raises(CrossDiffError, match=r"bad\.tif"):
        load_scenes(entries, strict=True)
    with pytest.raises(TrainingError, match="no scene can be read.*found 0 of 1"):
        load_scenes(entries[1:])


@pytest.fixture
def large(tmp_path, make_pair, monkeypatch):
    """A scene of 1024 x 512 PAN pixels with a reference that is its MS, enlarged, where 256 x 256 is large."""
    monkeypatch.setattr(training_scene, "_WHOLE_PX", 256**2)
    monkeypatch.setattr(training_scene, "_PART_MS_PX", 32)
    monkeypatch.setattr(training_scene, "_PARTS", 6)
    monkeypatch.setattr(training_scene, "_MIN_REFERENCE_DETAIL", -1.0)
    files = make_pair(shape=(1024, 512), name="large")
    with rasterio.open(files.pan) as pan, rasterio.open(files.ms) as ms:
        truth = ms.read().repeat(4, axis=1).repeat(4, axis=2)
        write_raster(tmp_path / "truth.tif", truth, pan.transform)
    return Entry("large", files.pan, files.ms, str(tmp_path / "truth.tif"), "vhr", ("B", "G", "R", "NIR"), "train")


def test_of_a_large_scene_the_most_detailed_parts_are_read(large):
    """What stands in them is what stands there in the scene, PAN, MS and reference alike, normalised as the whole."""
    whole = load_scene(large)
    parts = load_scenes([large])
    assert [part.name for part in parts] == ["large"] * 6
    assert {tuple(part.pan.shape[2:]) for part in parts} == {(128, 128)}
    windows = whole.pan[0, 0].unfold(0, 128, 128).unfold(1, 128, 128).reshape(-1, 128, 128)
    detail = [float((w - avg(w)).square().mean()) for w in windows]
    found = [next(i for i, w in enumerate(windows) if torch.allclose(w, p.pan[0, 0], atol=1e-6)) for p in parts]
    assert len(set(found)) == 6
    assert {*found} <= {*sorted(range(len(detail)), key=lambda i: -detail[i])[:9]}
    for place, part in zip(found, parts, strict=True):
        row, col = 128 * (place // 4), 128 * (place % 4)
        assert torch.allclose(part.reference, whole.reference[:, :, row : row + 128, col : col + 128], atol=1e-6)
        first = [
            round((start - offset) / 4)
            for start, offset in zip((row, col), whole.sensor_model.grid.offset, strict=True)
        ]
        lead = [round(-offset / 4) for offset in part.sensor_model.grid.offset]
        inner = part.ms[0, :, lead[0] : lead[0] + 32, lead[1] : lead[1] + 32]
        assert torch.allclose(inner, whole.ms[0, :, first[0] : first[0] + 32, first[1] : first[1] + 32], atol=1e-6)


def test_every_fourth_part_is_judged_and_not_trained_on(large):
    parts = load_scenes([replace(large, reference=None)])
    trained, windows = split(parts, 4)
    assert [any(part is kept for kept in trained) for part in parts] == [True, True, True, False, True, True]
    assert windows and {window.scene for window in windows} == {"large"}
    anew = [replace(part, name="large, resimulated") for _ in range(4) for part in parts[:-1]]
    assert all(scene.part != 3 for scene in split(anew, 4)[0]), "what is judged was trained on, imaged anew"
    judged = parts[3].pan[0, 0]
    for window in windows:
        if window.example.reference is None:
            size = window.example.pan.shape[-1]
            assert any(torch.equal(w, window.example.pan[0, 0])
                       for w in judged.unfold(0, size, 1).unfold(1, size, 1).reshape(-1, size, size))  # fmt: skip


def test_a_small_scene_is_read_whole(make_pair):
    files = make_pair(shape=(480, 480))
    (scene,) = load_scenes([Entry("a", files.pan, files.ms, None, "vhr", ("B", "G", "R", "NIR"), "train")])
    assert scene.pan.shape[2:] == (480, 480)
    rest, windows = split([scene] * 5, 4)  # as of a scene imaged anew five times
    assert windows and not any(kept.pan_mask[:, 370:].any() for kept in rest)


def test_a_large_scene_without_valid_pixels_in_its_parts_is_refused(large, monkeypatch):
    monkeypatch.setattr(training_scene, "spread", lambda *_: [])
    with pytest.raises(TrainingError, match="large: none of the windows looked at holds valid pixels .*found 0 of 48"):
        load_scenes([large], strict=True)
