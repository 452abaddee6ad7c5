"""How noisy the MS is, and that back-projection does not sharpen its noise."""

import numpy as np
import pytest
import rasterio
import torch
import torch.nn.functional as F
from conftest import BAND_OF_PAN, shifted_pair

from crossdiff_cli import survey as surveying
from crossdiff_cli.fuse import Sampling, back_project, believed, to_pan
from crossdiff_cli.info import describe
from crossdiff_cli.matching import Optics, View
from crossdiff_cli.noise import noise_of
from crossdiff_cli.profile import noisy_bands
from crossdiff_cli.registration import Registration
from crossdiff_cli.scene.pair import PairOptions, ScenePair
from crossdiff_cli.scene.tiles import Window
from crossdiff_cli.sharpen import SharpenOptions, sharpen
from crossdiff_cli.survey import survey
from crossdiff_cli.training.training_scene import scene_of

OPTICS = Optics((4.0, 4.0), 0.15)
PLACE = Registration()
SAMPLING = Sampling((4.0, 4.0), (0.0, 0.0), (0.34, 0.3))
FOUR = PairOptions(sensor="vhr", bands=("B", "G", "R", "NIR"))


def view(noise, size=96, seed=0, texture=40.0, calm=0.01):
    """Bands that are the PAN times a gain, but for white noise of their own; a quarter of the texture is `calm`."""
    draw = torch.Generator().manual_seed(seed)
    pan = texture * torch.randn(1, 1, 4 * size, 4 * size, generator=draw)
    pan[..., : 2 * size, : 2 * size] *= calm
    pan = 500 + F.avg_pool2d(pan, 5, stride=1, padding=2)
    seen = OPTICS.seen(
        View(pan, torch.zeros(1, size, size), torch.ones(size, size) > 0, (0.0, 0.0), (0.0, 0.0)), (0.0, 0.0)
    )
    ms = torch.stack([gain * seen + deviation * torch.randn(size, size, generator=draw) for gain, deviation in noise])
    return View(pan, ms, torch.ones(size, size, dtype=torch.bool), (0.0, 0.0), (0.0, 0.0))


def test_noise_is_told_from_texture():
    """The deviations put in come out, a little small since the quietest blocks tell them, in the unit of the MS."""
    known = [(1.0, 2.0), (0.6, 5.0), (1.5, 0.5)]
    found = noise_of([view(known, seed=1), view(known, seed=2)], OPTICS, PLACE)
    assert found.tolist() == pytest.approx([2.0, 5.0, 0.5], rel=0.3)
    scaled = [View(v.pan, 10 * v.ms, v.mask, v.offset, v.origin) for v in (view(known, seed=1), view(known, seed=2))]
    assert torch.allclose(noise_of(scaled, OPTICS, PLACE), 10 * found, rtol=1e-4)


def test_texture_that_the_pan_has_too_is_no_noise():
    """One band, texture everywhere, and an MS that lies two PAN pixels from where it should."""
    sample = view([(1.0, 2.0)], texture=1000.0, calm=1.0)
    moved = View(sample.pan, sample.ms, sample.mask, (-2.0, 0.0), sample.origin)
    assert float(noise_of([moved], OPTICS, Registration(shift=(2.0, 0.0)))) == pytest.approx(2.0, rel=0.3)
    assert float(noise_of([moved], OPTICS, PLACE)) > 4


def test_texture_of_its_own_counts_where_it_is_least():
    """A band with structure that neither PAN nor the other band has, in three quarters of it."""
    sample = view([(1.0, 2.0), (1.0, 2.0)])
    own = 30 * torch.randn(96, 96, generator=torch.Generator().manual_seed(7))
    own[:48, :48] = 0
    sample.ms[0] += own
    assert float(noise_of([sample], OPTICS, PLACE)[0]) == pytest.approx(2.0, rel=0.3)


def test_nothing_is_said_of_noise_where_little_is_valid():
    sample = view([(1.0, 2.0)])
    mask = torch.zeros_like(sample.mask)
    mask[:20, :20] = True
    assert noise_of([View(sample.pan, sample.ms, mask, sample.offset, sample.origin)], OPTICS, PLACE).tolist() == [0.0]


@pytest.mark.parametrize("size", [1, 2, 9, 10])
def test_nothing_is_said_of_noise_in_a_scene_of_a_few_pixels(size):
    assert noise_of([view([(1.0, 2.0), (1.0, 2.0)], size=size)], OPTICS, PLACE).tolist() == [0.0, 0.0]


def test_a_constant_band_has_no_noise():
    assert float(noise_of([view([(1.0, 2.0), (0.0, 0.0)])], OPTICS, PLACE)[1]) == pytest.approx(0.0, abs=1e-6)


def test_the_noise_of_the_ms_is_not_sharpened():
    """An MS of noise, interpolated: what its pixels lost by that is brought back where it is known to be no noise."""
    ms = torch.randn(1, 2, 96, 96, generator=torch.Generator().manual_seed(0))
    start = to_pan(ms, (384, 384), SAMPLING)
    known = back_project(start, ms, Sampling(SAMPLING.ratio, SAMPLING.offset, SAMPLING.gains, noise=(1.0, 0.01)), 2)
    free = back_project(start, ms, SAMPLING, 2)
    inner = (0, slice(None), slice(40, -40), slice(40, -40))
    noisy, quiet = (image[inner].std(dim=(1, 2)) / start[inner].std(dim=(1, 2)) for image in (known, free))
    assert float(quiet[0]) > 1.4
    assert float(noisy[0]) - 1 < 0.4 * (float(quiet[0]) - 1)
    assert float(noisy[1]) == pytest.approx(float(quiet[1]), rel=0.01)


def test_what_is_stronger_than_noise_is_believed():
    left = torch.zeros(1, 2, 64, 64)
    left[..., 31:33, 20:44] = 20.0
    noisy = Sampling(SAMPLING.ratio, SAMPLING.offset, SAMPLING.gains, noise=(1.0, 1.0))
    assert torch.allclose(believed(left, noisy, 0)[..., 31:33, 22:42], left[..., 31:33, 22:42], rtol=0.05)
    assert believed(left, SAMPLING, 0) is left


@pytest.fixture
def noisy_pair(tmp_path):
    """Noise of 9 DN in the red band of a pair that has none, and whose MS does not lie where it should."""
    pan, ms = shifted_pair(tmp_path, (-2.4, 3.1))
    with rasterio.open(ms, "r+") as file:
        red = file.read(3)
        file.write(red + np.random.default_rng(0).normal(0, 9, red.shape).astype("float32"), 3)
    return pan, ms


def test_the_log_and_info_tell_which_bands_are_noisy(noisy_pair):
    pan, ms = noisy_pair
    with ScenePair(pan, [ms], FOUR) as pair:
        told = noisy_bands(pair, survey(pair))
    levels = describe(pan, [ms], FOUR)["noise"]
    assert levels[2] == pytest.approx(9, rel=0.3)
    assert max(levels[:2] + levels[3:]) < 1
    assert told == f"R {levels[2]:.2g}"


def test_a_scene_for_training_knows_its_noise(noisy_pair):
    pan, ms = noisy_pair
    with ScenePair(pan, [ms], FOUR) as pair:
        found = survey(pair)
        scene = scene_of(pair, found, Window(0, 0, 256, 256), "noisy")
    assert scene.sampling.noise == found.noise


def test_a_noisy_scene_is_sharpened_with_less_noise(noisy_pair, tmp_path, read_all, monkeypatch, small_weights):
    """Beside the same with nothing known of the noise; the bands without noise stay as they are."""
    pan, ms = noisy_pair
    options = SharpenOptions(pair=FOUR, weights=small_weights, device="cpu", precision="fp32", quiet=True)
    sharpen(pan, [ms], tmp_path / "known.tif", options)
    monkeypatch.setattr(surveying, "noise_of", lambda samples, *_: torch.zeros(len(samples[0].ms)))
    sharpen(pan, [ms], tmp_path / "unknown.tif", options)
    known, unknown = (read_all(tmp_path / name)[:, 50:-50, 50:-50] for name in ("known.tif", "unknown.tif"))
    change = np.abs(known - unknown).mean(axis=(1, 2))
    assert change[2] > 20 * max(change[0], change[1], change[3])
    clean, _ = shifted_pair(tmp_path, (-2.4, 3.1))
    with rasterio.open(clean) as file:
        red = BAND_OF_PAN[2][0] * file.read(1)[50:-50, 50:-50] + BAND_OF_PAN[2][1]
    assert np.std(known[2] - red) < 0.9 * np.std(unknown[2] - red)
