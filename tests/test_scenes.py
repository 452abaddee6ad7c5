"""Which files are pairs, and which scenes are trained on."""

import json
import logging
from pathlib import Path

import pytest

from crossdiff_cli.errors import CrossDiffError, TrainingError
from crossdiff_cli.scene.pairing import find_pairs
from crossdiff_cli.training.scenes import load_scenes, resolve


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
    with pytest.raises(TrainingError, match=r"q\.tif is neither a manifest .* no MS follows it"):
        resolve([str(manifest), "q.tif"], "train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match=r"empty holds no PAN and MS .* name the files"):
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
    with pytest.raises(TrainingError, match="none of the 1 scenes can be read"):
        load_scenes(entries[1:])
