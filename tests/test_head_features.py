"""Whose features the head takes: those of both encoders, or of P2M alone."""

import json
from dataclasses import replace

import pytest
import torch
from conftest import SMALL, small_model
from safetensors import safe_open
from safetensors.torch import save_file

from crossdiff_cli.errors import WeightsError
from crossdiff_cli.geometry.grid import GridMapping
from crossdiff_cli.imaging.sensor_model import SensorModel
from crossdiff_cli.model.crossdiff import CrossDiff
from crossdiff_cli.model.spectral import Spectrum
from crossdiff_cli.model.weights import load, save
from crossdiff_cli.options import AdaptOptions, SceneSources, TrainingOptions
from crossdiff_cli.training.run_adapt import run_adapt

SPECTRUM = Spectrum(torch.tensor([480.0, 850.0]), torch.tensor([60.0, 140.0]), torch.tensor([450.0, 800.0]), 4.0)
BUDGET = TrainingOptions(steps=2, patch=64, batch=1, groups=2, checkpoint_every=1)


def picture(model):
    generator = torch.Generator().manual_seed(0)
    pan, ms = torch.randn(1, 1, 96, 96, generator=generator), torch.randn(1, 2, 24, 24, generator=generator)
    with torch.no_grad():
        return model.fuse(pan, ms, SensorModel(GridMapping((4.0, 4.0), (0.0, 0.0)), (0.3, 0.3)), SPECTRUM, iterations=1)


def deaf_to_m2p(model):
    """The same head with weights of zero on all that comes from M2P."""
    for gate in model.head.gates:
        gate.m2p.weight.zero_()
    model.head.decoded.weight[:, SMALL.decoder_width :] = 0
    return model


def test_a_head_without_m2p_is_one_that_is_deaf_to_it():
    both, alone = small_model(), small_model()
    alone.with_m2p_features(False)
    assert (picture(alone) - picture(both)).abs().max() > 1e-3
    assert torch.allclose(picture(alone), picture(deaf_to_m2p(both)), atol=1e-6)
    assert sum(x.numel() for x in alone.head.state_dict().values()) < sum(
        x.numel() for x in both.head.state_dict().values()
    )


def test_m2p_is_not_asked_where_the_head_does_not_take_it():
    model = small_model()
    model.with_m2p_features(False)
    plain = picture(model)
    model.m2p = torch.nn.Identity()  # nothing that could be asked
    assert torch.equal(picture(model), plain)


def test_m2p_taken_anew_changes_nothing_until_it_is_trained():
    model = small_model()
    model.with_m2p_features(False)
    alone = picture(model)
    model.with_m2p_features(True)
    assert torch.allclose(picture(model), alone, atol=1e-6)
    for gate in model.head.gates:
        torch.nn.init.normal_(gate.m2p.weight)
    assert (picture(model) - alone).abs().max() > 1e-3


def test_the_file_says_whose_features_its_head_takes(tmp_path):
    model = small_model()
    model.with_m2p_features(False)
    save(model, tmp_path / "w.safetensors", {}, dtype=torch.float32)
    again = load(tmp_path / "w.safetensors")[0]
    assert again.architecture == replace(SMALL, m2p_features=False)
    assert torch.equal(picture(again), picture(model))


def test_files_from_before_there_was_a_choice_take_both(tmp_path, small_weights):
    with safe_open(small_weights, "pt") as file:
        state, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()
    architecture = json.loads(metadata["architecture"])
    del architecture["m2p_features"]
    save_file(state, tmp_path / "old.safetensors", {**metadata, "architecture": json.dumps(architecture)})
    assert load(tmp_path / "old.safetensors")[0].architecture.m2p_features
    save_file(state, tmp_path / "odd.safetensors", {
        **metadata, "architecture": json.dumps({**architecture, "m2p_features": "no"})
    })  # fmt: skip
    with pytest.raises(WeightsError, match="m2p_features is no, not true or false"):
        load(tmp_path / "odd.safetensors")


@pytest.mark.parametrize("restart", [False, True])
def test_adapt_can_be_told_whose_features_the_head_takes(make_pair, tmp_path, small_weights, restart):
    files = make_pair()
    sources, weights = SceneSources(scenes=(files.pan, files.ms), sensor="vhr"), small_weights
    for features, taken in (("p2m", False), (None, False), ("both", True)):
        options = AdaptOptions(BUDGET, weights, features=features, restart=restart, select=False)
        weights = run_adapt(sources, tmp_path / f"{features}.safetensors", options).output
        model = load(weights)[0]
        assert model.architecture.m2p_features is taken
        assert (model.head.gates[0].m2p is not None) is taken
        assert model.m2p is not None


def test_no_encoders_no_features_to_choose_from(make_pair, tmp_path):
    save(CrossDiff(SMALL, encoders=False), tmp_path / "control.safetensors", {})
    files = make_pair()
    with pytest.raises(WeightsError, match=r"control\.safetensors: it holds no encoders"):
        run_adapt(
            SceneSources(scenes=(files.pan, files.ms), sensor="vhr"),
            tmp_path / "h.safetensors",
            AdaptOptions(BUDGET, tmp_path / "control.safetensors", features="both"),
        )
    assert not (tmp_path / "h.safetensors").exists()
