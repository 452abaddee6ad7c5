"""The simulator beyond the example: any sensor's bands, made-up ones near them, misregistration, a manifest."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from crossdiff_cli.sensors import find_sensor
from crossdiff_cli.training.manifest import read_manifest
from crossdiff_cli.training.training_scene import load_scene

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def make_scene():
    sys.path.insert(0, str(EXAMPLES))
    try:
        spec = importlib.util.spec_from_file_location("make_scene", EXAMPLES / "make_scene.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules["make_scene"] = module
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(EXAMPLES))


def test_a_scene_has_the_bands_and_ratio_of_its_sensor(make_scene, tmp_path):
    make_scene.main(["-o", str(tmp_path), "--sensor", "wv2", "--size", "40", "--reference"])
    with rasterio.open(tmp_path / "pan.tif") as pan, rasterio.open(tmp_path / "ms.tif") as ms:
        assert (pan.width, ms.width, ms.count) == (160, 40, 8)
        assert [d.lower() for d in ms.descriptions][:3] == ["ca", "blue", "green"]
        assert pan.bounds == ms.bounds
        numbers = ms.read()
    assert numbers.min() > 0
    assert numbers.max() <= 2**11 - 1
    assert 100 < np.median(numbers) < 1500
    assert not (tmp_path / "pan.IMD").exists()


def test_jitter_follows_the_seed_and_stays_near(make_scene):
    camera = make_scene.cameras.camera
    plain, one, again, other = (camera("ge1", rng and np.random.default_rng(rng)) for rng in (None, 1, 1, 2))
    assert one == again != other
    table = {band.name: band for band in find_sensor("ge1").bands}
    for exact, near in zip(plain.ms, one.ms, strict=True):
        assert (exact.low + exact.high) / 2 == pytest.approx(table[exact.name].center_nm)
        assert abs(near.low - exact.low) <= 5
        assert abs(near.nyquist_gain - exact.nyquist_gain) <= 0.03


def test_the_shift_is_where_the_ms_lies(make_scene):
    """The correlation of the MS with the average of the shifted reference peaks at the shift that was asked for."""
    scene = make_scene.simulate(64, 3, with_reference=True, shift=(4.0, -8.0))
    truth, ms = scene.reference[1].astype(float), scene.ms[1].astype(float)

    def agreement(dy: int, dx: int) -> float:
        moved = np.roll(truth, (-dy, -dx), axis=(0, 1)).reshape(64, 4, 64, 4).mean(axis=(1, 3))
        return float(np.corrcoef(moved[8:-8, 8:-8].ravel(), ms[8:-8, 8:-8].ravel())[0, 1])

    found = max((agreement(dy, dx), dy, dx) for dy in range(-12, 13, 2) for dx in range(-12, 13, 2))
    assert found[1:] == (4, -8)


def test_a_set_of_scenes_can_be_trained_on(make_scene, tmp_path):
    make_scene.main(["-o", str(tmp_path), "--sensor", "qb", "--size", "48", "--reference", "--jitter", "--count", "2",
                     "--manifest", "--seed", "30"])  # fmt: skip
    entries = read_manifest(tmp_path / "manifest.json", "train")
    assert [entry.name for entry in entries] == ["simulated qb 30", "simulated qb 31"]
    assert json.loads((tmp_path / "manifest.json").read_text())[0]["files"]["pan"] == "30/pan.tif"
    scenes = [load_scene(entry) for entry in entries]
    for scene in scenes:
        assert scene.reference is not None
        assert scene.spectrum.ratio == 4
    assert not torch.equal(scenes[0].ms, scenes[1].ms)
