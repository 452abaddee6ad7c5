"""Images without a PAN: read from a manifest, made into Wald pairs with a simulated PAN, never taken for pairs."""

import json
import logging
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_raster

from crossdiff_cli.errors import TrainingError
from crossdiff_cli.geometry.grid import GridMapping
from crossdiff_cli.imaging.normalisation import Normalisation
from crossdiff_cli.imaging.resample import degrade
from crossdiff_cli.imaging.sensor_model import SensorModel
from crossdiff_cli.model.spectral import Spectrum
from crossdiff_cli.training import truth as truth_module
from crossdiff_cli.training.manifest import Entry, read_manifest
from crossdiff_cli.training.patches import PatchSampler
from crossdiff_cli.training.scenes import load_scenes
from crossdiff_cli.training.selection import split
from crossdiff_cli.training.simulated_pan import draw_function, draw_mixture, draw_pan_range
from crossdiff_cli.training.training_scene import TrainingScene
from crossdiff_cli.training.truth import draw_truth_pair, load_truth

BANDS = ("R", "G", "B", "NIR")


def draws(count):
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


@pytest.fixture
def aerial(tmp_path) -> Path:
    """A manifest of one 8-bit image with a margin of nodata."""
    data = np.random.default_rng(0).integers(1, 255, (4, 256, 320)).astype("uint8")
    data[:, :16] = 0
    write_raster(tmp_path / "aerial.tif", data, nodata=0)
    item = {"name": "aerial", "files": {"ms": "aerial.tif"}, "sensor": "vhr", "bands": list(BANDS)}
    (tmp_path / "scenes.json").write_text(json.dumps([item]))
    return tmp_path / "scenes.json"


@pytest.fixture
def white() -> TrainingScene:
    """White noise, as sharp at its Nyquist frequency as at any other."""
    ms = torch.randn(1, 4, 512, 512, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(512, 512, dtype=torch.bool)
    return TrainingScene(
        name="white",
        sensor="vhr, truth",
        pan=ms.mean(dim=1, keepdim=True),
        pan_mask=mask,
        ms=ms,
        ms_mask=mask,
        sensor_model=SensorModel(GridMapping((1.0, 1.0), (0.0, 0.0)), (0.95,) * 4),
        spectrum=Spectrum.of([(660, 60), (545, 70), (480, 60), (835, 130)], (450.0, 800.0), 4.0),
        pan_gain=0.95,
        reference=None,
        normalisation=Normalisation(0.0, 1.0, torch.zeros(4), torch.ones(4)),
        simulated=True,
    )


def test_a_manifest_item_without_pan_is_read(aerial):
    (entry,) = read_manifest(aerial, "train")
    assert entry.pan is None
    (scene,) = load_scenes([entry], strict=True)
    assert scene.simulated
    assert scene.sensor == "vhr, truth"
    assert scene.spectrum.center_nm.tolist() == [660, 545, 480, 835]
    assert scene.ms_mask.sum() == 240 * 320
    inside = scene.ms[0, :, 16:]
    assert torch.allclose(inside.mean(dim=(1, 2)), torch.zeros(4), atol=1e-4)
    assert torch.allclose(inside.std(dim=(1, 2)), torch.ones(4), atol=1e-4)
    assert 0.05 <= scene.pan_gain <= 0.9


@pytest.mark.parametrize(
    ("sensor", "bands", "message"),
    [
        (None, BANDS, "needs `sensor` and `bands`"),
        ("vhr", None, "needs `sensor` and `bands`"),
        ("vhr", ("R", "G", "B"), "found 3, expected 4"),
    ],
)
def test_bands_must_be_known(aerial, sensor, bands, message):
    with pytest.raises(TrainingError, match=message):
        load_truth(Entry("aerial", None, str(aerial.parent / "aerial.tif"), None, sensor, bands, "train"))


def test_an_image_of_nodata_alone_is_named_and_left_out(aerial, caplog):
    write_raster(aerial.parent / "aerial.tif", np.zeros((4, 64, 64), "uint8"), nodata=0)
    caplog.set_level(logging.WARNING)
    with pytest.raises(TrainingError, match="no scene can be read"):
        load_scenes(read_manifest(aerial, "train"))
    assert "it has no valid pixel" in caplog.text


def test_an_image_without_pan_cannot_validate(aerial):
    items = json.loads(aerial.read_text())
    aerial.write_text(json.dumps([{**items[0], "split": "validation"}]))
    with pytest.raises(TrainingError, match="a scene to validate on needs files.pan"):
        read_manifest(aerial, "validation")


def test_the_ms_of_a_pair_is_its_reference_by_the_mtf_that_is_told(white):
    for generator in draws(5):
        pair = draw_truth_pair(white, generator)
        model, quality = pair.sensor_model, pair.spectrum.quality
        assert pair.pan.shape[2:] == pair.reference.shape[2:] == pair.pan_mask.shape
        assert model.nyquist_gains == pytest.approx(quality.nyquist_gains.tolist())
        assert model.grid.ratio == (pair.spectrum.ratio,) * 2
        shape = tuple(pair.ms_mask.shape)
        assert torch.equal(
            pair.ms, degrade(pair.reference, shape, model.grid.ratio, model.grid.offset, model.nyquist_gains)
        )


def gain_at_nyquist(image):
    """Of an image of white noise: amplitude along both axes at the highest frequencies over that at the lowest."""
    power = torch.fft.fft2(image[0].double()).abs().square().mean(dim=0)
    rows, cols = power.shape
    near = slice(1, rows // 12), slice(1, cols // 12)
    along = slice(1, rows // 12), slice(cols // 2 - cols // 40, cols // 2 + cols // 40)
    return math.sqrt(float(power[along].mean() / power[near].mean()))


def test_pan_and_reference_are_as_sharp_as_is_told(white, monkeypatch):
    """At the Nyquist frequency folding adds as much power again as is there: a factor sqrt(2)."""
    monkeypatch.setattr(truth_module, "_UNEXPLAINED", 0.0)
    for generator in draws(6):
        pair = draw_truth_pair(white, generator)
        quality = pair.spectrum.quality
        assert gain_at_nyquist(pair.pan) == pytest.approx(math.sqrt(2) * quality.pan_nyquist_gain, rel=0.25)
        mean = float(quality.nyquist_gains.mean())
        assert gain_at_nyquist(pair.reference) == pytest.approx(math.sqrt(2) * mean, rel=0.25)


def test_no_image_of_a_pair_is_sharper_than_the_truth(white):
    soft = replace(white, pan_gain=0.1)
    for generator in draws(10):
        pair = draw_truth_pair(soft, generator)
        sharpest = 0.1 ** ((pair.pan_mask.shape[0] / 512) ** 2)  # of the truth at the scale of the pair
        assert pair.spectrum.quality.pan_nyquist_gain <= 1.02 * sharpest
        assert float(pair.spectrum.quality.nyquist_gains.log().mean().exp()) <= 1.2 * sharpest


def test_pairs_differ_in_all_that_is_drawn(white):
    pairs = [draw_truth_pair(white, generator) for generator in draws(12)]
    assert {pair.spectrum.ratio for pair in pairs} == {2.0, 3.0, 4.0}
    assert len({tuple(pair.spectrum.pan_nm.tolist()) for pair in pairs}) == 12
    sizes = [pair.pan_mask.shape[0] for pair in pairs]
    assert 256 <= min(sizes) < 350
    assert 400 < max(sizes) <= 512


def test_masked_pixels_stay_masked(white):
    white.ms_mask[:100] = False
    pair = draw_truth_pair(white, draws(1)[0])
    share = 1 - float(pair.pan_mask.float().mean())
    assert share == pytest.approx(100 / 512, abs=0.02)
    assert not pair.pan_mask[0].any()


def test_a_sampler_takes_them_one_ratio_down_alone(white):
    sampler = PatchSampler([white], 64, 2)
    example = sampler.draw(draws(1)[0], reduced=True)
    assert example.reference is not None
    assert example.reference.shape[2:] == (64, 64)
    with pytest.raises(TrainingError, match="no window of 64 pixels"):
        sampler.draw(draws(1)[0], reduced=False)


def test_nothing_is_held_out_of_them(white):
    rest, windows = split([white], 4)
    assert rest == [white]
    assert windows == []


def test_the_pan_sees_the_bands_within_its_range():
    hrms, center = torch.zeros(1, 4, 8, 8), torch.tensor([660.0, 545.0, 480.0, 2200.0])
    hrms[:, 3] = 1.0
    for generator in draws(5):
        ends = draw_pan_range(generator)
        assert 430 <= ends[0] <= 530
        assert 680 <= ends[1] <= 920
        assert 0 < float(draw_mixture(hrms, center, ends, generator).max()) < 0.1


def test_the_function_of_the_spectrum_is_one_of_each_pixel():
    hrms = torch.randn(1, 4, 32, 32, generator=draws(1)[0])
    hrms[:, :, 7, 9] = hrms[:, :, 20, 3]
    found = draw_function(hrms, draws(1)[0])
    assert found[0, 0, 7, 9] == pytest.approx(float(found[0, 0, 20, 3]), abs=1e-6)
    assert float(found.std()) == pytest.approx(1.0, abs=1e-4)
    assert not torch.equal(found, draw_function(hrms, draws(2)[1]))
