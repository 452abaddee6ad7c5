"""Aliasing of the MS: found against the PAN, taken out, and nothing else with it."""

from dataclasses import replace

import numpy as np
import rasterio
import torch
from conftest import PAN_GRID, sharpen_options, write_raster
from rasterio.transform import Affine

from crossdiff_cli.estimate.intensity import estimate_intensity
from crossdiff_cli.estimate.matching import SampleWindow
from crossdiff_cli.estimate.registration import Registration
from crossdiff_cli.imaging.intensity import Intensity, correct_intensity
from crossdiff_cli.imaging.resample import degrade
from crossdiff_cli.options import EstimateOptions, PairOptions
from crossdiff_cli.tasks.sharpen import sharpen

WEIGHTS = torch.tensor([0.1, 0.4, 0.3, 0.2])
GAINS = (0.3,) * 4


def ground(side=512, seed=0):
    """Four bands of blocks of many sizes: (4, side, side), of deviation one."""
    rng = np.random.default_rng(seed)
    image = np.zeros((4, side, side))
    for size in (4, 8, 16, 64):
        small = rng.standard_normal((1, side // size, side // size)) + 0.5 * rng.standard_normal(
            (4, side // size, side // size)
        )
        image += small.repeat(size, 1).repeat(size, 2) * size**0.25
    image -= image.mean(axis=(1, 2), keepdims=True)
    return torch.from_numpy(image / image.std(axis=(1, 2), keepdims=True)).float()[None]


def pair(aliased: bool, unseen: float = 0.0):
    """PAN (1, 1, H, W), MS (1, 4, h, w) by its MTF or sampled without one, and the MS by its MTF."""
    truth = ground()
    shape = (truth.shape[2] // 4, truth.shape[3] // 4)
    proper = degrade(truth, shape, (4.0, 4.0), (0.0, 0.0), GAINS)
    pan = (truth * WEIGHTS[:, None, None]).sum(dim=1, keepdim=True) + unseen * ground(seed=5)[:, :1]
    # Single pixels in place of means: what nearest-neighbour resampling leaves of an MS.
    ms = 0.6 * proper + 0.4 * truth[..., 1::4, 1::4] if aliased else proper
    return pan, ms, proper


def estimate(pan, ms):
    mask = torch.ones(ms.shape[2:], dtype=torch.bool)
    return estimate_intensity([SampleWindow(pan, ms[0], mask, (0.0, 0.0), (0, 0))], (4.0, 4.0), Registration(), GAINS)


def pan_ms(pan, ms):
    return degrade(pan.expand(-1, 4, -1, -1), (ms.shape[2], ms.shape[3]), (4.0, 4.0), (0.0, 0.0), GAINS)


def rms(image):
    return float(image[..., 4:-4, 4:-4].square().mean().sqrt())


def test_aliasing_is_taken_out():
    """More than half of the power of an error that all bands share; the MTF alone makes none that is worth naming."""
    pan, ms, proper = pair(aliased=True)
    found = estimate(pan, ms)
    assert torch.allclose(torch.tensor(found.weights), WEIGHTS, atol=0.06)
    assert found.unexplained < 0.02
    assert found.aliased > 0.05
    corrected = correct_intensity(ms, pan_ms(pan, ms), found)
    assert rms(corrected - proper) < 0.75 * rms(ms - proper)
    own, after = ((image * WEIGHTS[:, None, None]).sum(dim=1) for image in (ms - proper, corrected - proper))
    assert rms(after) < 0.6 * rms(own)


def test_an_ms_without_aliasing_stays():
    pan, ms, _ = pair(aliased=False)
    found = estimate(pan, ms)
    assert found.aliased < 0.01
    assert rms(correct_intensity(ms, pan_ms(pan, ms), found) - ms) < 0.02


def test_what_only_the_pan_sees_is_not_taken_for_an_error_of_the_ms():
    pan, ms, _ = pair(aliased=False, unseen=0.25)
    found = estimate(pan, ms)
    assert 0.03 < found.unexplained < 0.2
    known = rms(correct_intensity(ms, pan_ms(pan, ms), found) - ms)
    assert known < 0.6 * rms(correct_intensity(ms, pan_ms(pan, ms), replace(found, unexplained=0.0)) - ms)


def test_noise_is_taken_from_the_bands_that_have_it():
    pan, ms, proper = pair(aliased=False)
    noise = torch.randn(ms.shape, generator=torch.Generator().manual_seed(1)) * torch.tensor([0.0, 0.3, 0.0, 0.0])[
        :, None, None
    ]  # fmt: skip
    found = replace(estimate(pan, ms), response=(0.0,) * 4)
    corrected = correct_intensity(ms + noise, pan_ms(pan, ms), found, (0.0, 0.3, 0.0, 0.0))
    assert rms(corrected[:, 1] - proper[:, 1]) < 0.75 * rms(noise[:, 1])
    assert torch.equal(corrected[:, [0, 2, 3]], ms[:, [0, 2, 3]])


def test_a_pattern_of_colour_alone_stays():
    """Bands that change against each other leave the intensity as it is."""
    pan, ms, _ = pair(aliased=False)
    pattern = torch.randn(1, 1, *ms.shape[2:], generator=torch.Generator().manual_seed(2))
    pattern = pattern * torch.tensor([0.0, 0.3, -0.4, 0.0])[:, None, None]
    found = Intensity(tuple(WEIGHTS.tolist()), (1.0,) * 4, 0.01, 0.1)
    grid = pan_ms(pan, ms)
    change = correct_intensity(ms + pattern, grid, found) - correct_intensity(ms, grid, found)
    assert torch.allclose(change, pattern, atol=1e-5)


def test_a_pan_of_another_scene_gives_nothing():
    _, ms, _ = pair(aliased=False)
    assert estimate(ground(seed=9)[:, :1], ms) is None
    assert correct_intensity(ms, ms, None) is ms


def test_the_order_of_the_bands_follows():
    found = Intensity((0.1, 0.2, 0.7), (0.5, 0.6, 0.7), 0.01, 0.2)
    assert found.select_bands((2, 0, 1)) == Intensity((0.7, 0.1, 0.2), (0.7, 0.5, 0.6), 0.01, 0.2)


def test_the_command_tells_and_leaves_it(tmp_path, small_weights, caplog):
    """A roof that is flat in the PAN and uneven in an aliased MS is far less uneven than with `--aliasing off`."""
    pan, ms, _ = pair(aliased=True)
    generator = torch.Generator().manual_seed(3)
    pan[..., 200:264, 200:264] = 0.5
    ms[..., 50:66, 50:66] = 0.5 + 0.3 * torch.randn(1, 1, 16, 16, generator=generator)
    files = [
        write_raster(tmp_path / f"{name}.tif", (image[0] * 60 + 500).round().numpy().astype("uint16"), grid)
        for name, image, grid in (("pan", pan, PAN_GRID), ("ms", ms, PAN_GRID @ Affine.scale(4)))
    ]
    options = sharpen_options(PairOptions(sensor="vhr", bands=("B", "G", "R", "NIR")), small_weights, "cpu")
    caplog.set_level("INFO")
    unevenness = {}
    for aliasing in (True, False):
        caplog.clear()
        estimates = EstimateOptions(aliasing=aliasing, align=False, noise=False, mtf=(0.3,))
        sharpen(files[0], [files[1]], tmp_path / f"{aliasing}.tif", replace(options, estimate=estimates))
        with rasterio.open(tmp_path / f"{aliasing}.tif") as file:
            roof, tags = file.read()[:, 216:248, 216:248], file.tags()
        assert ("is not in the PAN" in caplog.text) == ("CROSSDIFF_ALIASING" in tags) == aliasing
        unevenness[aliasing] = float(roof.std(axis=(1, 2)).mean())
    assert unevenness[True] < 0.65 * unevenness[False]
