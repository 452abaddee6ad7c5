"""Wald pairs to train on: MTFs and noise of the scene or of others, and what the network is told of them."""

import math
from dataclasses import replace

import pytest
import torch

from crossdiff_cli.geometry.grid import GridMapping
from crossdiff_cli.imaging.intensity import Intensity
from crossdiff_cli.imaging.normalisation import Normalisation
from crossdiff_cli.imaging.resample import degrade
from crossdiff_cli.imaging.sensor_model import SensorModel
from crossdiff_cli.model.spectral import ImageQuality, Spectrum
from crossdiff_cli.training.patches import PatchSampler
from crossdiff_cli.training.training_scene import TrainingScene
from crossdiff_cli.training.wald import draw_noise, draw_wald_pair, misjudged, wald_pair

GAINS, NOISE = (0.3, 0.25), (0.1, 0.05)


@pytest.fixture
def scene() -> TrainingScene:
    generator = torch.Generator().manual_seed(0)
    intensity = Intensity((0.6, 0.4), (0.9, 0.8), 0.02, 0.1)
    return TrainingScene(
        name="a",
        sensor="vhr",
        pan=torch.randn(1, 1, 480, 480, generator=generator),
        pan_mask=torch.ones(480, 480, dtype=torch.bool),
        ms=torch.randn(1, 2, 120, 120, generator=generator),
        ms_mask=torch.ones(120, 120, dtype=torch.bool),
        sensor_model=SensorModel(GridMapping((4.0, 4.0), (0.0, 0.0)), GAINS, NOISE, 0.08, (), intensity),
        spectrum=Spectrum.of([(545, 70), (660, 60)], (450.0, 800.0), 4.0, ImageQuality.of(GAINS, NOISE, 0.4, 0.08)),
        pan_gain=0.4,
        reference=None,
        normalisation=Normalisation(0.0, 1.0, torch.zeros(2), torch.ones(2)),
    )


def test_a_pair_is_made_by_the_gains_asked_for_and_says_so(scene):
    pair = wald_pair(scene, 3.0, (-1.0, -2.0), (0.5, 0.2), 0.7)
    assert torch.equal(pair.pan, degrade(scene.pan, (120, 120), (4.0, 4.0), (0.0, 0.0), [0.7]))
    assert torch.equal(pair.ms, degrade(scene.ms, tuple(pair.ms_mask.shape), (3.0, 3.0), (-1.0, -2.0), (0.5, 0.2)))
    assert torch.equal(pair.reference, scene.ms)
    quality = pair.spectrum.quality
    assert (quality.pan_nyquist_gain, quality.pan_noise, pair.spectrum.ratio) == (0.7, 0.0, 3.0)
    assert quality.nyquist_gains.tolist() == pytest.approx([0.5, 0.2])
    assert pair.sensor_model.nyquist_gains == (0.5, 0.2)
    assert pair.sensor_model.intensity == scene.sensor_model.intensity


def test_by_itself_a_pair_has_the_mtf_of_its_scene(scene):
    pair = wald_pair(scene, 4.0, (0.0, 0.0))
    assert pair.sensor_model.nyquist_gains == GAINS
    assert pair.spectrum.quality.pan_nyquist_gain == 0.4


def drawn(scene, *, one_sensor):
    return [draw_wald_pair(scene, torch.Generator().manual_seed(s), one_sensor=one_sensor) for s in range(40)]


def test_pairs_of_one_sensor_keep_its_mtf_but_for_the_error_of_the_pan(scene):
    pairs = drawn(scene, one_sensor=True)
    assert {pair.sensor_model.nyquist_gains for pair in pairs} == {GAINS}
    errors = torch.tensor([math.log(pair.spectrum.quality.pan_nyquist_gain / 0.4) for pair in pairs])
    assert 0.1 < float(errors.std()) < 0.3


def test_pairs_for_any_sensor_have_the_mtf_of_others_too(scene):
    pairs = drawn(scene, one_sensor=False)
    factors = torch.tensor([pair.sensor_model.nyquist_gains for pair in pairs]) / torch.tensor(GAINS)
    assert 0.15 < float(factors.log().std()) < 0.45
    assert float(factors.log().mean()) == pytest.approx(0.0, abs=0.12)
    of_pan = [pair.spectrum.quality.pan_nyquist_gain for pair in pairs]
    assert min(of_pan) < 0.12
    assert max(of_pan) > 0.6
    assert 0.2 < sum(0.25 < gain < 0.6 for gain in of_pan) / len(of_pan) < 0.8


def test_noise_is_none_that_of_the_scene_or_that_of_another(scene):
    levels = [draw_noise(scene.sensor_model, torch.Generator().manual_seed(s), one_sensor=False) for s in range(200)]
    none = sum(pan == 0 for pan, _ in levels) / len(levels)
    assert 0.2 < none < 0.4
    alike = [pan for pan, ms in levels if pan and ms[0] / ms[1] == pytest.approx(NOISE[0] / NOISE[1])]
    assert 0.2 < len(alike) / len(levels) < 0.5
    assert max(alike) <= 1.3 * 0.08
    only = [draw_noise(scene.sensor_model, torch.Generator().manual_seed(s), one_sensor=True) for s in range(50)]
    assert all(ms == pytest.approx([pan / 0.08 * level for level in NOISE]) for pan, ms in only)


def test_an_example_is_told_its_noise_and_gains_with_an_error(scene):
    sampler = PatchSampler([scene], 32, 1)
    pairs = []
    for seed in range(60):
        example = sampler.draw(torch.Generator().manual_seed(seed), reduced=True)
        pairs.append((example.spectrum.quality, example.sensor_model))
    told = torch.tensor([quality.pan_noise for quality, model in pairs if model.pan_noise])
    true = torch.tensor([model.pan_noise for _, model in pairs if model.pan_noise])
    assert 0.05 < float((told / true).log().std()) < 0.3
    assert all(quality.pan_noise == 0 for quality, model in pairs if not model.pan_noise)
    for quality, model in pairs:
        assert len(quality.nyquist_gains) == len(quality.ms_noise) == len(model.nyquist_gains)
        assert (quality.nyquist_gains / torch.tensor(model.nyquist_gains)).log().abs().max() < 0.6


def test_errors_of_what_is_told_have_no_bias():
    quality = ImageQuality.of((0.3,) * 400, (0.1,) * 400, 0.2, 0.05)
    found = misjudged(quality, torch.Generator().manual_seed(0))
    assert float(found.nyquist_gains.log().mean()) == pytest.approx(math.log(0.3), abs=0.02)
    assert float(found.ms_noise.log().mean()) == pytest.approx(math.log(0.1), abs=0.03)


def test_aliasing_is_corrected_in_training_as_in_sharpening_where_all_bands_are_there(scene):
    """The bands times their gains still make up the PAN; some of them alone do not."""
    sampler = PatchSampler([scene], 32, 1)
    examples = [sampler.draw(torch.Generator().manual_seed(seed), reduced=True) for seed in range(40)]
    for example in examples:
        intensity = example.sensor_model.intensity
        if example.ms.shape[1] < 2:
            assert intensity is None
            continue
        shares = [w * r for w, r in zip(intensity.weights, intensity.response, strict=True)]
        wanted = [0.6 * 0.9 if float(center) < 600 else 0.4 * 0.8 for center in example.spectrum.center_nm]
        assert shares == pytest.approx(wanted)
    assert {example.ms.shape[1] for example in examples} == {1, 2}


def test_rescaled_bands_make_up_the_same_intensity():
    intensity = Intensity((0.5, -0.1, 0.6), (0.9, 0.8, 1.1), 0.02, 0.1)
    ms, factors = torch.randn(1, 3, 8, 8), torch.tensor([2.0, 0.5, 1.5])
    found = intensity.rescaled(factors.tolist()).of(ms * factors[:, None, None])
    assert torch.allclose(found, intensity.of(ms), atol=1e-6)
    assert replace(intensity.rescaled((1, 1, 1))) == intensity
