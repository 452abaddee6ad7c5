import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import SMALL, small_model

from crossdiff_cli.errors import TrainingError
from crossdiff_cli.geometry.grid import GridMapping
from crossdiff_cli.imaging.injection import prepare
from crossdiff_cli.imaging.resample import degrade, expand
from crossdiff_cli.imaging.sensor_model import SensorModel
from crossdiff_cli.model.crossdiff import CrossDiff
from crossdiff_cli.model.weights import digest, load
from crossdiff_cli.options import AdaptOptions, LossWeights, PretrainOptions, SceneSources, TrainingOptions
from crossdiff_cli.training import patches
from crossdiff_cli.training.adapt import adapt
from crossdiff_cli.training.loop import Plan
from crossdiff_cli.training.losses import local_correlation, qnr_loss, spectral_loss, structural_loss
from crossdiff_cli.training.manifest import read_manifest
from crossdiff_cli.training.patches import PatchSampler
from crossdiff_cli.training.pretrain import pretrain
from crossdiff_cli.training.run_adapt import run_adapt
from crossdiff_cli.training.run_pretrain import run_pretrain
from crossdiff_cli.training.training_scene import detail_r2, load_scene


@pytest.fixture
def manifest(make_pair, tmp_path):
    items = []
    for name, ratio in (("a", 4), ("b", 2)):
        files = make_pair(shape=(480, 480), ratio=ratio, name=name, seed=ord(name))
        item = {
            "name": name,
            "files": {"pan": files.pan, "ms": files.ms},
            "sensor": "vhr",
            "bands": ["B", "G", "R", "NIR"],
        }
        items.append(item)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps([*items, {**items[0], "name": "held out", "split": "validation"}]))
    return path


@pytest.fixture
def sampler(manifest):
    return PatchSampler([load_scene(entry) for entry in read_manifest(manifest, "train")], size=32, batch=2)


def test_wald_pairs_of_one_sensor_keep_its_ratio_and_bands_and_get_its_noise(manifest):
    """What was added is as strong as the model of the example says, in PAN and MS."""
    scene = load_scene(read_manifest(manifest, "train")[1])
    noise = replace(scene.sensor_model, pan_noise=0.3, ms_noise=(0.1, 0.2, 0.3, 0.4))
    flat = replace(
        scene,
        pan=torch.zeros_like(scene.pan),
        ms=torch.zeros_like(scene.ms),
        pan_mask=torch.ones_like(scene.pan_mask),
        ms_mask=torch.ones_like(scene.ms_mask),
        sensor_model=noise,
    )
    sampler = PatchSampler([flat], 64, 8, one_sensor=True)
    levels = []
    for seed in range(24):
        example = sampler.attempt(torch.Generator().manual_seed(seed), reduced=True)
        assert (example.spectrum.ratio, example.ms.shape[1]) == (2.0, 4)
        assert torch.equal(example.reference, torch.zeros_like(example.reference))
        model = example.sensor_model
        levels.append(model.pan_noise / 0.3)
        assert float(example.pan.std()) == pytest.approx(model.pan_noise, rel=0.05)
        if levels[-1]:
            assert model.ms_noise == pytest.approx([levels[-1] * each for each in noise.ms_noise])
            assert example.ms.std(dim=(0, 2, 3)).tolist() == pytest.approx(model.ms_noise, rel=0.1)
    assert 0.1 < sum(level == 0 for level in levels) / len(levels) < 0.6
    assert 1.0 < max(levels) <= 1.3
    varied = PatchSampler([flat], 32, 2)
    ratios = {varied.draw(torch.Generator().manual_seed(seed), reduced=True).spectrum.ratio for seed in range(20)}
    assert ratios > {2.0}
    plain = PatchSampler([flat], 32, 2, augment=False).draw(torch.Generator().manual_seed(0), reduced=True)
    assert not float(plain.pan.std()) and not float(plain.ms.std())


def test_manifest_splits_and_refusals(manifest, tmp_path):
    assert [entry.name for entry in read_manifest(manifest, "train")] == ["a", "b"]
    assert [entry.name for entry in read_manifest(manifest, "validation")] == ["held out"]
    with pytest.raises(TrainingError, match="no scene with split 'test'"):
        read_manifest(manifest, "test")
    for content in ("", "{}x", "[1]", '[{"files": {}}]', '{"a": 1}'):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(TrainingError, match=r"bad.json"):
            read_manifest(tmp_path / "bad.json", "train")
    with pytest.raises(TrainingError, match=r"none.json"):
        read_manifest(tmp_path / "none.json", "train")


def test_scenes_count_by_the_root_of_their_size_and_number(sampler):
    """Three scenes of one sensor, one of them four times as large, and one of another."""
    small = replace(sampler.scenes[0], pan=sampler.scenes[0].pan[:, :, :240, :240])
    other = replace(small, sensor="other")
    several = replace(sampler, scenes=[small, sampler.scenes[0], small, other])
    of_three, of_one = 3**-0.5, 1
    total = 4 * of_three + of_one
    assert several.shares().tolist() == pytest.approx(
        [of_three / total, 2 * of_three / total, of_three / total, of_one / total]
    )


def test_scenes_are_drawn_by_their_shares(sampler):
    """The MS of each scene is put to a number of its own, by which a draw is known."""
    first, second = (replace(s, ms=torch.full_like(s.ms, n)) for n, s in enumerate(sampler.scenes))
    known = replace(sampler, scenes=[replace(first, sensor="other"), second, second, second], augment=False)
    draw = torch.Generator().manual_seed(0)
    drawn = [float(known.draw(draw, reduced=False).ms.mean()) for _ in range(400)]
    assert np.mean(drawn) == pytest.approx(3**0.5 / (1 + 3**0.5), abs=0.07)


def test_a_full_resolution_example_is_a_true_window(sampler):
    """PAN and MS of one example agree where they should: the degraded PAN correlates with the MS of the same place."""
    for seed in range(6):
        example = sampler.draw(torch.Generator().manual_seed(seed), reduced=False)
        assert example.pan.shape == (2, 1, 32, 32)
        seen = degrade(
            example.pan,
            tuple(example.ms.shape[2:]),
            example.sensor_model.grid.ratio,
            example.sensor_model.grid.offset,
            [0.3],
        )
        inner = (slice(None), 0, slice(6, -6), slice(6, -6))
        mean_band = example.ms.mean(dim=1, keepdim=True)
        a, b = seen[inner], mean_band[inner]
        assert np.corrcoef(a.flatten(), b.flatten())[0, 1] > 0.6, seed


def test_an_example_knows_the_noise_of_its_bands(sampler, monkeypatch):
    """Bands are told by their wavelengths."""
    monkeypatch.setattr(patches, "_OTHER_WAVELENGTHS", (6.0, 0.1))  # by less than they differ
    levels = (0.1, 0.2, 0.3, 0.4)
    scene = replace(sampler.scenes[0], sensor_model=replace(sampler.scenes[0].sensor_model, ms_noise=levels))
    known = replace(sampler, scenes=[scene])
    counts = set()
    for seed in range(12):
        example = known.draw(torch.Generator().manual_seed(seed), reduced=False)
        nearest = (example.spectrum.center_nm[:, None] - scene.spectrum.center_nm).abs().argmin(dim=1)
        assert example.sensor_model.ms_noise == tuple(levels[band] for band in nearest.tolist())
        counts.add(len(nearest))
    assert len(counts) > 1


def test_a_reduced_example_has_the_ms_as_its_truth(sampler):
    """The reference, degraded by the MTF, is the MS of the example: the Wald protocol."""
    ratios, plain = set(), replace(sampler, augment=False)
    for seed in range(12):
        example = plain.draw(torch.Generator().manual_seed(seed), reduced=True)
        ratios.add(example.sensor_model.grid.ratio)
        shape = tuple(example.ms.shape[2:])
        seen = degrade(
            example.reference,
            shape,
            example.sensor_model.grid.ratio,
            example.sensor_model.grid.offset,
            example.sensor_model.nyquist_gains,
        )
        rows, cols = (
            slice(math.ceil(-o / r) + 3, math.floor((32 - o) / r) - 3)
            for o, r in zip(example.sensor_model.grid.offset, example.sensor_model.grid.ratio, strict=True)
        )
        if rows.stop > rows.start and cols.stop > cols.start:
            assert (seen - example.ms)[:, :, rows, cols].abs().max() < 1e-3
    assert len(ratios) > 1


def test_examples_depend_on_the_generator_alone(sampler):
    a, b, c = (sampler.draw(torch.Generator().manual_seed(s), reduced=True) for s in (1, 1, 2))
    assert torch.equal(a.ms, b.ms)
    assert a.ms.shape != c.ms.shape or not torch.equal(a.ms, c.ms)


def test_masked_windows_are_not_drawn(make_pair):
    def hole(pan, ms):
        ms[:, 20:40, 20:40] = 0

    files = make_pair(shape=(480, 480), nodata=0, edit=hole)
    manifest_entry = [{"files": {"pan": files.pan, "ms": files.ms}, "sensor": "vhr", "bands": ["B", "G", "R", "NIR"]}]
    from pathlib import Path

    path = Path(files.pan).with_name("m.json")
    path.write_text(json.dumps(manifest_entry))
    scene = load_scene(read_manifest(path, "train")[0])
    sampler = PatchSampler([scene], 32, 2, jitter_px=0.0)
    assert not scene.ms_mask[25, 25]
    zero = float(scene.ms[0, 0, 30, 30])
    for seed in range(10):
        example = sampler.draw(torch.Generator().manual_seed(seed), reduced=False)
        assert not torch.isclose(example.ms, torch.tensor(zero)).all(dim=(2, 3)).any()
    everything = PatchSampler(
        [type(scene)(**{n: getattr(scene, n) for n in scene.__slots__} | {"ms_mask": torch.zeros_like(scene.ms_mask)})],
        32,
        2,
    )
    with pytest.raises(TrainingError, match="no window of 32 pixels in the scenes is valid"):
        everything.draw(torch.Generator().manual_seed(0), reduced=False)


def test_spectral_loss_is_zero_for_a_consistent_result_only():
    ms = torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    sensor_model = SensorModel(GridMapping((4.0, 4.0), (-16.0, -16.0)), (0.3, 0.3, 0.3))
    image = expand(ms, (64, 64), sensor_model.grid.ratio, sensor_model.grid.offset)
    consistent = degrade(image, (24, 24), sensor_model.grid.ratio, sensor_model.grid.offset, sensor_model.nyquist_gains)
    assert float(spectral_loss(image, consistent, sensor_model)) == pytest.approx(0, abs=1e-6)
    assert float(spectral_loss(image + 0.3, consistent, sensor_model)) == pytest.approx(0.3, abs=1e-5)


def test_local_correlation_is_pearsons():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(1, 1, 20, 20, generator=generator), torch.randn(1, 1, 20, 20, generator=generator)
    found = local_correlation(a, b, 2)[0, 0, 10, 7]
    wanted = np.corrcoef(a[0, 0, 8:13, 5:10].flatten(), b[0, 0, 8:13, 5:10].flatten())[0, 1]
    assert float(found) == pytest.approx(wanted, abs=1e-3)


def test_structural_loss_prefers_the_detail_of_the_pan():
    generator = torch.Generator().manual_seed(0)
    pan = torch.randn(1, 1, 64, 64, generator=generator)
    small = degrade(pan, (16, 16), (4.0, 4.0), (0.0, 0.0), [0.3])
    low = expand(small, (64, 64), (4.0, 4.0), (0.0, 0.0))
    blurred = structural_loss(low, pan, low, low, 4)
    sharp = structural_loss(pan, pan, low, low, 4)
    noise = structural_loss(low + torch.randn(pan.shape, generator=generator), pan, low, low, 4)
    assert float(sharp) < 0.05 < float(blurred) < float(noise)


def test_both_stages_learn_and_stage_two_leaves_the_encoders_alone(sampler):
    torch.manual_seed(0)
    model = CrossDiff(SMALL)
    history = []

    def mean_loss() -> float:
        total = 0.0
        for seed in range(4):
            example = sampler.draw(torch.Generator().manual_seed(900 + seed), reduced=True)
            pan_low, ms_up, _ = prepare(example.pan, example.ms, example.sensor_model)
            with torch.no_grad():
                decoded = model.p2m.decode(model.features(example.pan, ms_up, example.spectrum).p2m)
                detail = example.pan - pan_low
                predicted = ms_up + detail + model.p2m.correct(decoded, detail, example.spectrum)
            total += float((predicted - example.reference).abs().mean() / (ms_up - example.reference).abs().mean())
        return total / 4

    history.append(mean_loss())
    pretrain(model, sampler, Plan(steps=240, learning_rate=5e-3, ema_decay=0.9), groups=2)
    history.append(mean_loss())
    assert history[1] < 0.99 * history[0]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    adapt(model, sampler, Plan(steps=5, learning_rate=3e-3), groups=2, weights=LossWeights())
    for name, value in model.state_dict().items():
        assert name.startswith("head.") or torch.equal(value, before[name]), name
    assert not torch.equal(model.head.out.kernels.out.weight, before["head.out.kernels.out.weight"])


def test_stages_write_weights_that_load(manifest, tmp_path):
    budget = TrainingOptions(steps=2, patch=32, batch=1, groups=2)
    sources = SceneSources(scenes=(str(manifest),))
    encoders = run_pretrain(sources, tmp_path / "run", PretrainOptions(budget), SMALL)
    options = AdaptOptions(budget, encoders, restart=True, select=False, stage=False)
    final = run_adapt(sources, tmp_path / "run" / "head.safetensors", options)
    model, provenance = load(final.output)
    assert final.before is None
    assert model.architecture == SMALL
    assert provenance["pretrain"]["scenes"] == provenance["adapt"]["scenes"] == ["a", "b"]
    with pytest.raises(TrainingError, match="found 33, expected a multiple of 8"):
        run_pretrain(sources, tmp_path / "run", PretrainOptions(TrainingOptions(steps=2, patch=33)))


def test_weights_name_what_they_went_on_from_and_what_reimaged_their_scenes(manifest, tmp_path):
    """A scene that another training has seen, or that weights of another training sharpened, is not forgotten."""
    budget, sources = TrainingOptions(steps=1, patch=32, batch=1, groups=1), SceneSources(scenes=(str(manifest),))
    again = replace(sources, resimulate=1)
    first = run_pretrain(sources, tmp_path / "first", PretrainOptions(budget), SMALL)
    second = run_pretrain(again, tmp_path / "second", PretrainOptions(budget, weights=first))
    head = run_adapt(sources, tmp_path / "head.safetensors", AdaptOptions(budget, second, select=False)).output
    more = run_adapt(again, tmp_path / "more.safetensors", AdaptOptions(budget, head, select=False)).output
    anew = run_adapt(sources, tmp_path / "anew.safetensors", AdaptOptions(budget, head, select=False, restart=True))
    encoders, (one, two) = load(second)[1]["pretrain"], (load(path)[1]["adapt"] for path in (head, more))
    assert "before" not in load(first)[1]["pretrain"]
    assert (encoders["before"]["scenes"], encoders["reimaged_by"]) == (["a", "b"], digest(first))
    assert "before" not in one and "reimaged_by" not in one
    assert (two["before"], two["reimaged_by"]) == (one, digest(head))
    assert "before" not in load(anew.output)[1]["adapt"]
    onward = load(run_pretrain(sources, tmp_path / "onward", PretrainOptions(budget, weights=head)))[1]
    assert onward["adapt"] == one, "the head is still in the file"
    assert onward["pretrain"]["before"] == encoders


def test_small_model_fixture_is_deterministic():
    assert torch.equal(small_model().head.out.kernels.out.weight, small_model().head.out.kernels.out.weight)


def test_a_blurred_reference_is_recognised():
    generator = torch.Generator().manual_seed(0)
    bands = torch.randn(1, 3, 80, 80, generator=generator)
    pan = (bands * torch.tensor([0.2, 0.5, 0.3])[None, :, None, None]).sum(dim=1, keepdim=True)
    assert detail_r2(pan, bands) > 0.999
    assert detail_r2(pan, torch.nn.functional.avg_pool2d(bands, 5, stride=1, padding=2)) < 0.6


def test_qnr_loss_is_zero_for_a_result_like_its_inputs_and_high_for_noise():
    """Bands that relate to each other and to the PAN as the MS does: D_lambda = D_s = 0, whatever their unit."""
    generator = torch.Generator().manual_seed(0)
    pan, other = (torch.randn(2, 1, 32, 32, generator=generator) for _ in range(2))
    ms = torch.cat([pan, 0.6 * pan + 0.8 * other, pan - other], dim=1)
    assert float(qnr_loss(ms, pan, ms, pan)) == pytest.approx(0.0, abs=1e-5)
    a, b = ms[0, 0].double(), ms[0, 1].double()
    q = 2 * float(((a - a.mean()) * (b - b.mean())).mean()) / float(a.var(correction=0) + b.var(correction=0))
    twice = qnr_loss(ms[:1, [0, 0]], pan[:1], ms[:1, :2], pan[:1])
    assert float(twice) == pytest.approx(1 - q * (1 - (1 - q) / 2), abs=2e-3)
    assert float(qnr_loss(torch.randn(2, 3, 32, 32, generator=generator), pan, ms, pan)) > 0.4
