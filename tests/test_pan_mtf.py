"""The MTF of the PAN, estimated from the shape of its power spectrum."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner

from crossdiff_cli.cli.main import main
from crossdiff_cli.estimate.matching import SampleWindow
from crossdiff_cli.estimate.noise import pan_noise
from crossdiff_cli.estimate.pan_mtf import GAIN_RANGE, estimate_pan_nyquist_gain
from crossdiff_cli.estimate.survey import survey
from crossdiff_cli.imaging.resample import degrade as degrade_image
from crossdiff_cli.io.open_pair import open_pair
from crossdiff_cli.options import DegradeOptions, EstimateOptions, PairOptions
from crossdiff_cli.tasks.degrade import degrade

RATIO = (4.0, 4.0)
FOUR = PairOptions(sensor="vhr", bands=("B", "G", "R", "NIR"))


def scene(gain: float, exponent: float = 2.4, noise: float = 0.0, side: int = 320, seed: int = 0) -> np.ndarray:
    """A power-law scene seen through a Gaussian MTF of that gain at the Nyquist frequency, and sampled: aliased too."""
    rng, fine = np.random.default_rng(seed), 4 * side
    frequency = 4 * np.fft.fftfreq(fine)  # in cycles per pixel of the PAN
    squared = frequency[:, None] ** 2 + frequency**2
    squared[0, 0] = np.inf
    amplitude = squared ** (-exponent / 4) * np.exp(math.log(gain) * squared / 0.25)
    image = np.fft.ifft2(np.fft.fft2(rng.standard_normal((fine, fine))) * amplitude).real[::4, ::4]
    image = 100 * image / image.std()
    return 500 + image + noise * rng.standard_normal(image.shape)


def window(image: np.ndarray, valid: np.ndarray | None = None) -> SampleWindow:
    small = image.shape[0] // 4, image.shape[1] // 4
    mask = np.ones(small, dtype=bool) if valid is None else valid
    pan = torch.from_numpy(image.astype("float32"))[None, None]
    return SampleWindow(pan, torch.zeros(4, *small), torch.from_numpy(mask), (0.0, 0.0), (0.0, 0.0))


def estimate(image: np.ndarray, noise: float = 0.0) -> float:
    found = estimate_pan_nyquist_gain([window(image)], RATIO, noise)
    assert found is not None
    return found.gain


@pytest.mark.parametrize("gain", [0.1, 0.2, 0.35, 0.6])
def test_the_gain_of_a_power_law_scene_is_found(gain):
    assert estimate(scene(gain)) == pytest.approx(gain, rel=0.2)


@pytest.mark.parametrize("exponent", [2.1, 2.7])
def test_it_hardly_depends_on_the_exponent(exponent):
    assert estimate(scene(0.3, exponent)) == pytest.approx(0.3, rel=0.3)


def test_known_noise_is_not_taken_for_sharpness():
    noisy = scene(0.15, noise=4.0)
    assert estimate(noisy, 4.0) == pytest.approx(0.15, rel=0.25)
    assert estimate(noisy) > 0.2


def test_noise_that_hides_the_structure_shows_no_gain():
    noisy = 500 + 10 * np.random.default_rng(0).standard_normal((320, 320))
    assert estimate_pan_nyquist_gain([window(noisy)], RATIO, 10.0) is None


def test_unit_and_offset_do_not_matter():
    image = scene(0.3)
    assert estimate(7.0 * image - 1000) == pytest.approx(estimate(image), rel=1e-3)


def test_what_is_not_valid_is_not_looked_at():
    image, valid = scene(0.2), np.ones((80, 80), dtype=bool)
    valid[:, :20] = False
    spoiled = image.copy()
    spoiled[:, :80] = 1e5 * np.random.default_rng(1).standard_normal((320, 80))
    found = [estimate_pan_nyquist_gain([window(i, valid)], RATIO, 0.0) for i in (image, spoiled)]
    assert found[0] == found[1]
    assert found[0].gain == pytest.approx(0.2, rel=0.25)


@pytest.mark.parametrize("side", [64, 100, 124])
def test_small_images_show_it_less_surely(side):
    for gain in (0.12, 0.5):
        found = [estimate(scene(gain, side=side, seed=seed)) for seed in range(6)]
        assert float(np.exp(np.mean(np.log(found)))) == pytest.approx(gain, rel=0.35)
        assert max(found) < 2.5 * gain
        assert min(found) > gain / 2.5


@pytest.mark.parametrize("image", [np.full((320, 320), 7.0), scene(0.3, side=60)], ids=["flat", "small"])
def test_too_little_to_see_gives_none(image):
    assert estimate_pan_nyquist_gain([window(image)], RATIO, 0.0) is None


def test_a_gain_beyond_the_range_is_moved_to_its_end():
    assert estimate(scene(0.01)) == pytest.approx(GAIN_RANGE[0], abs=0.02)


@pytest.fixture
def pair_of(make_pair):
    """A pair whose PAN is a power-law scene of that gain."""

    def make(gain: float):
        files = make_pair(shape=(320, 320), ratio=4)
        with rasterio.open(files.pan, "r+") as pan:
            pan.write(scene(gain).round().clip(1, 1000).astype(pan.dtypes[0]), 1)
        return files

    return make


def test_a_pair_is_degraded_by_the_gain_of_its_own_pan(pair_of, tmp_path, read_all):
    files = pair_of(0.4)
    result = degrade(files.pan, [files.ms], tmp_path / "wald", DegradeOptions(FOUR))
    assert result.pan_mtf_source == "scene"
    assert 0.2 < result.pan_nyquist_gain < 0.5  # without calm areas some of the structure is taken for noise
    with open_pair(files.pan, [files.ms], FOUR) as pair:
        found = survey(pair.sample_windows(), pair.grid, pair.bands)
    grid = replace(found.grid, offset=found.registration.offset(found.grid.offset, (0.0, 0.0)))
    pan = torch.from_numpy(read_all(files.pan).astype("float32"))[None]
    wanted = degrade_image(pan, (80, 80), found.registered_ratio(), grid.offset, [found.pan_nyquist_gain])[0]
    assert np.abs(read_all(result.pan) - wanted.numpy()).max() <= 0.501


@pytest.mark.parametrize(("asked", "source"), [("table", "table"), (0.25, "option")])
def test_table_or_a_gain_can_be_asked_for(pair_of, tmp_path, asked, source):
    files = pair_of(0.4)
    result = degrade(files.pan, [files.ms], tmp_path / "wald", DegradeOptions(FOUR, EstimateOptions(pan_mtf=asked)))
    assert (result.pan_nyquist_gain, result.pan_mtf_source) == (0.15 if asked == "table" else asked, source)


def test_the_command_line_says_it(pair_of, tmp_path):
    files, run = pair_of(0.4), CliRunner().invoke
    pair = [str(files.pan), str(files.ms), "--sensor", "vhr", "--bands", "B,G,R,NIR"]
    out = run(main, ["degrade", *pair, "-o", str(tmp_path / "wald"), "--pan-mtf", "0.2", "--json"])
    assert json.loads(out.stdout)["pan_nyquist_gain"] == 0.2
    info = run(main, ["info", *pair, "--json"])
    assert 0.2 < json.loads(info.stdout)["pan_nyquist_gain"] < 0.5
    bad = run(main, ["degrade", *pair, "-o", str(tmp_path / "other"), "--pan-mtf", "sharp"])
    assert bad.exit_code == 2
    assert "a Nyquist gain like 0.15" in bad.stderr
    bad = run(main, ["degrade", *pair, "-o", str(tmp_path / "other"), "--pan-mtf", "1.5"])
    assert bad.exit_code == 2
    assert "found 1.5" in bad.stderr
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("share", [0.0, 0.03])
def test_real_pans_degraded_by_a_known_gain_show_it(real_pairs, share):
    """Once each PAN is degraded by 3, which its own MTF hardly touches; with noise as estimated, too."""
    folder, index = real_pairs
    errors, random = [], np.random.default_rng(0)
    for item in index:
        with rasterio.open(folder / item["files"]["pan"]) as file:
            image = file.read(1).astype("float32")
        if min(image.shape) < 480 or (image == 0).mean() > 0.01:
            continue
        side = tuple(size // 12 * 4 for size in image.shape)
        for gain in (0.12, 0.25, 0.5):
            small = degrade_image(torch.from_numpy(image)[None, None], side, (3.0, 3.0), (0.0, 0.0), [gain])[
                0, 0
            ].numpy()
            sample = window(small + share * small.std() * random.standard_normal(small.shape))
            found = estimate_pan_nyquist_gain([sample], RATIO, pan_noise([sample], RATIO))
            assert found is not None
            errors.append(math.log(found.gain / gain))
    assert len(errors) > 100
    assert abs(np.mean(errors)) < 0.08
    assert np.std(errors) < 0.28
