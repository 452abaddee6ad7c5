"""The control experiment itself: arms differ as they say, the table averages as it says."""

import sys
from pathlib import Path

import pytest
import torch
from conftest import SMALL, small_model

from crossdiff_cli.geometry.grid import GridMapping
from crossdiff_cli.imaging.injection import prepare
from crossdiff_cli.imaging.sensor_model import SensorModel
from crossdiff_cli.model.spectral import Spectrum
from crossdiff_cli.model.weights import save

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import encoders
from encoders_table import markdown

SPECTRUM = Spectrum(torch.tensor([480.0, 850.0]), torch.tensor([60.0, 90.0]), torch.tensor([450.0, 800.0]), 4.0)


@pytest.fixture
def file(tmp_path):
    model = small_model()
    torch.nn.init.normal_(model.p2m.ms_out.kernels.out.weight, std=0.1)
    torch.nn.init.normal_(model.p2m.levels[0][0].film.weight, std=0.1)
    save(model, tmp_path / "e.safetensors", {}, dtype=torch.float32)
    return tmp_path / "e.safetensors"


def features(arm, seed=0):
    model = encoders.build(arm, seed).eval()
    generator = torch.Generator().manual_seed(0)
    pan, ms = torch.randn(1, 1, 32, 32, generator=generator), torch.randn(1, 2, 8, 8, generator=generator)
    _, ms_up, _ = prepare(pan, ms, SensorModel(GridMapping((4.0, 4.0), (0.0, 0.0)), (0.3, 0.3)))
    with torch.no_grad():
        return model.features(pan, ms_up, SPECTRUM)


def test_arms_are_what_they_say(file):
    both = features(encoders.Arm.parse(f"both={file}"))
    plain = small_model()
    assert torch.equal(encoders.build(encoders.Arm("both", file), 3).p2m.pan_stem.weight, plain.p2m.pan_stem.weight)
    p2m = features(encoders.Arm.parse(f"p2m={file},only=p2m"))
    assert all(torch.equal(a, b) for a, b in zip(p2m.p2m, both.p2m, strict=True))
    assert all(not x.any() for x in p2m.m2p)
    m2p = features(encoders.Arm.parse(f"m2p={file},only=m2p"))
    assert all(not x.any() for x in m2p.p2m)
    assert not m2p.prediction.any()
    assert both.prediction.any()
    pyramids = features(encoders.Arm.parse(f"x={file},pyramids"))
    assert not pyramids.decoded.any()
    noisy = features(encoders.Arm.parse(f"x={file},noisy"))
    other = features(encoders.Arm.parse(f"x={file},p2m=50"))
    for changed in (noisy, other):
        assert (changed.p2m[0] - both.p2m[0]).abs().max() > 1e-4
    assert torch.equal(other.m2p[0], both.m2p[0])


def test_the_head_starts_alike_in_all_arms_of_a_seed(file):
    heads = [encoders.build(encoders.Arm.parse(t), 5).head for t in (f"both={file}", f"p2m={file},only=p2m")]
    assert torch.equal(heads[0].pan_stem.weight, heads[1].pan_stem.weight)
    other = encoders.build(encoders.Arm.parse(f"both={file}"), 6).head
    assert not torch.equal(heads[0].pan_stem.weight, other.pan_stem.weight)


def test_random_and_no_encoders(monkeypatch):
    monkeypatch.setattr(encoders, "Architecture", lambda: SMALL)
    assert features(encoders.Arm.parse("none")) is None
    one, two = (features(encoders.Arm.parse("random"), seed) for seed in (0, 1))
    assert (one.p2m[2] - two.p2m[2]).abs().max() > 1e-3
    for text in ("both", "x=f,odd=1", "x=f,noise"):
        with pytest.raises(SystemExit, match="write none, random or NAME=FILE"):
            encoders.Arm.parse(text)


def test_the_table_shows_means_over_scenes_and_half_the_range_of_the_seeds():
    rows = [
        {"arm": "a", "seed": seed, "steps": 10, "scene": scene, "sensor": "x", "scale": scale, key: value}
        for seed, offset in ((0, 0.0), (1, 0.2))
        for scale, key, values in (("reduced", "ergas", (1.0, 3.0)), ("full", "hqnr", (0.5, 0.7)))
        for scene, value in zip("st", (v + offset for v in values), strict=True)
    ]
    text = markdown(rows)
    assert "2.1000 ± 0.1000" in text
    assert "0.7000 ± 0.1000" in text
    assert "| a | 2 | – |" in text


def test_ablations_are_what_they_say(file):
    """Without gates the features pass unweighted; a plain residual has no PAN detail until it is trained."""
    pan, ms = torch.randn(1, 1, 32, 32), torch.randn(1, 2, 8, 8)
    inputs = pan, *prepare(pan, ms, SensorModel(GridMapping((4.0, 4.0), (0.0, 0.0)), (0.3, 0.3))), SPECTRUM
    plain = encoders.build(encoders.Arm.parse(f"x={file},residual,iterations=0"), 0).eval()
    with torch.no_grad():
        assert torch.allclose(plain(*inputs), inputs[2], atol=1e-6)
        gate = encoders.build(encoders.Arm.parse(f"x={file},ungated"), 0).head.gates[0]
        x = torch.randn(1, SMALL.widths[0], 4, 4)
        value, weight = (gate.p2m(x) + gate.m2p(x)).chunk(2, dim=1)
        assert torch.equal(gate(x, x), value)
        assert not torch.equal(value * torch.sigmoid(weight), value)
    arm = encoders.Arm.parse(f"x={file},structural=0,supervised=2,scene=a")
    assert (arm.losses.structural, arm.losses.supervised, arm.losses.spectral, arm.scene) == (0.0, 2.0, 1.0, "a")
