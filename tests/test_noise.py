"""How noisy PAN and MS are, and that noise is taken for no detail."""

import re
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from conftest import BAND_OF_PAN, sharpen_options, shifted_pair
from scipy import ndimage

from crossdiff_cli.cli.main import main
from crossdiff_cli.estimate.matching import PanDegradation, SampleWindow
from crossdiff_cli.estimate.noise import ms_noise, pan_noise
from crossdiff_cli.estimate.registration import Registration
from crossdiff_cli.estimate.survey import survey
from crossdiff_cli.geometry.grid import GridMapping
from crossdiff_cli.geometry.window import Window
from crossdiff_cli.imaging.back_projection import back_project, denoise_pan, denoise_residual
from crossdiff_cli.imaging.sensor_model import SensorModel, to_pan
from crossdiff_cli.io.open_pair import open_pair
from crossdiff_cli.options import PairOptions
from crossdiff_cli.tasks.describe import describe
from crossdiff_cli.tasks.sharpen import sharpen
from crossdiff_cli.training.training_scene import scene_of

DEGRADATION = PanDegradation((4.0, 4.0), 0.15)
PLACE = Registration()
SENSOR_MODEL = SensorModel(GridMapping((4.0, 4.0), (0.0, 0.0)), (0.34, 0.3))
FOUR = PairOptions(sensor="vhr", bands=("B", "G", "R", "NIR"))


def view(noise, size=96, seed=0, texture=40.0, calm=0.01):
    """Bands that are the PAN times a gain, but for white noise of their own; a quarter of the texture is `calm`."""
    draw = torch.Generator().manual_seed(seed)
    pan = texture * torch.randn(1, 1, 4 * size, 4 * size, generator=draw)
    pan[..., : 2 * size, : 2 * size] *= calm
    pan = 500 + F.avg_pool2d(pan, 5, stride=1, padding=2)
    seen = DEGRADATION.pan_on_ms_grid(
        SampleWindow(pan, torch.zeros(1, size, size), torch.ones(size, size) > 0, (0.0, 0.0), (0.0, 0.0)), (0.0, 0.0)
    )
    ms = torch.stack([gain * seen + deviation * torch.randn(size, size, generator=draw) for gain, deviation in noise])
    return SampleWindow(pan, ms, torch.ones(size, size, dtype=torch.bool), (0.0, 0.0), (0.0, 0.0))


def test_noise_is_told_from_texture():
    """The deviations put in come out, in the unit of the MS."""
    known = [(1.0, 2.0), (0.6, 5.0), (1.5, 0.5)]
    found = ms_noise([view(known, seed=1), view(known, seed=2)], DEGRADATION, PLACE)
    assert found.tolist() == pytest.approx([2.0, 5.0, 0.5], rel=0.15)
    scaled = [
        SampleWindow(v.pan, 10 * v.ms, v.mask, v.offset, v.origin) for v in (view(known, seed=1), view(known, seed=2))
    ]
    assert torch.allclose(ms_noise(scaled, DEGRADATION, PLACE), 10 * found, rtol=1e-4)


def test_texture_that_the_pan_has_too_is_no_noise():
    """One band, texture everywhere, and an MS that lies two PAN pixels from where it should."""
    sample = view([(1.0, 2.0)], texture=1000.0, calm=1.0)
    moved = SampleWindow(sample.pan, sample.ms, sample.mask, (-2.0, 0.0), sample.origin)
    assert float(ms_noise([moved], DEGRADATION, Registration(shift=(2.0, 0.0)))) == pytest.approx(2.0, rel=0.3)
    assert float(ms_noise([moved], DEGRADATION, PLACE)) > 4


def test_texture_of_its_own_counts_where_it_is_least():
    """A band with structure that neither PAN nor the other band has, in three quarters of it."""
    sample = view([(1.0, 2.0), (1.0, 2.0)])
    own = 30 * torch.randn(96, 96, generator=torch.Generator().manual_seed(7))
    own[:48, :48] = 0
    sample.ms[0] += own
    assert float(ms_noise([sample], DEGRADATION, PLACE)[0]) == pytest.approx(2.0, rel=0.3)


def pan_view(deviation, *, calm=0.05, size=96, seed=0):
    """A view whose PAN has noise on texture as a sensor sees it, through its MTF."""
    sample = view([(1.0, 0.0)], size=size, seed=seed, texture=400.0, calm=calm)
    noise = deviation * torch.randn(sample.pan.shape, generator=torch.Generator().manual_seed(100 + seed))
    return SampleWindow(sample.pan + noise, sample.ms, sample.mask, sample.offset, sample.origin)


@pytest.mark.parametrize("calm", [0.05, 0.2])
def test_the_noise_of_the_pan_is_told_from_its_texture(calm):
    """Where the calm quarter of the PAN has as much texture as noise, and where it has four times as much."""
    for deviation in (4.0, 8.0):
        assert pan_noise([pan_view(deviation, calm=calm)], (4.0, 4.0)) == pytest.approx(deviation, rel=0.15)
    scaled = pan_view(2.0)
    assert pan_noise(
        [SampleWindow(10 * scaled.pan, scaled.ms, scaled.mask, scaled.offset, scaled.origin)], (4.0, 4.0)
    ) == pytest.approx(10 * pan_noise([scaled], (4.0, 4.0)), rel=1e-4)


def test_texture_alone_is_hardly_noise():
    assert pan_noise([pan_view(0.0)], (4.0, 4.0)) < 0.5


@pytest.mark.parametrize("town", [0.0, 80.0])
def test_texture_as_sharp_as_a_sensor_can_see_it_is_no_noise(town):
    """Texture of many strengths of which a good part is in its finest structure; half of it a town of single pixels."""
    draw = torch.Generator().manual_seed(1)
    strength = torch.rand(32, 32, generator=draw).repeat_interleave(12, 0).repeat_interleave(12, 1)
    pan = 500 + 48 * strength * F.avg_pool2d(torch.randn(1, 1, 385, 385, generator=draw), 2, stride=1)
    pan[..., 192:] += town * (strength * torch.randn(384, 384, generator=draw))[:, 192:]
    pan += 4 * torch.randn(pan.shape, generator=draw)
    sample = SampleWindow(pan, torch.zeros(1, 96, 96), torch.ones(96, 96) > 0, (0.0, 0.0), (0.0, 0.0))
    assert pan_noise([sample], (4.0, 4.0)) == pytest.approx(4.0, rel=0.05)


@pytest.mark.parametrize("outside", [True, False])
def test_pixels_that_are_not_valid_tell_nothing(outside):
    """Most of the PAN is filled with something quieter, where the MS has no valid pixels or none at all."""
    sample = pan_view(4.0)
    pan = sample.pan.flip(3)
    pan[..., :322] = 500 + 0.2 * torch.randn(384, 322, generator=torch.Generator().manual_seed(6))
    mask = torch.ones(96, 16 if outside else 96, dtype=torch.bool)
    if not outside:
        mask[:, :80] = False
    filled = SampleWindow(pan, sample.ms[..., : mask.shape[1]], mask, (0.0, 322.0 if outside else 2.0), (0.0, 0.0))
    assert pan_noise([filled], (4.0, 4.0)) == pytest.approx(4.0, rel=0.15)


def test_a_constant_pan_has_no_noise():
    sample = pan_view(2.0)
    constant = SampleWindow(torch.full_like(sample.pan, 7.0), sample.ms, sample.mask, sample.offset, sample.origin)
    assert pan_noise([constant], (4.0, 4.0)) == 0.0


def test_nothing_is_said_of_noise_where_little_is_valid():
    sample = view([(1.0, 2.0)])
    mask = torch.zeros_like(sample.mask)
    mask[:11, :11] = True
    hidden = SampleWindow(sample.pan, sample.ms, mask, sample.offset, sample.origin)
    assert ms_noise([hidden], DEGRADATION, PLACE).tolist() == [0.0]
    assert pan_noise([hidden], (4.0, 4.0)) == 0.0


@pytest.mark.parametrize("size", [1, 2, 9, 11])
def test_nothing_is_said_of_noise_in_a_scene_of_a_few_pixels(size):
    small = view([(1.0, 2.0), (1.0, 2.0)], size=size)
    assert ms_noise([small], DEGRADATION, PLACE).tolist() == [0.0, 0.0]
    assert pan_noise([small], (4.0, 4.0)) == 0.0


def test_a_constant_band_has_no_noise():
    assert float(ms_noise([view([(1.0, 2.0), (0.0, 0.0)])], DEGRADATION, PLACE)[1]) == pytest.approx(0.0, abs=1e-6)


def test_the_noise_of_the_ms_is_not_sharpened():
    """An MS of noise, interpolated: what its pixels lost by that is brought back where it is known to be no noise."""
    ms = torch.randn(1, 2, 96, 96, generator=torch.Generator().manual_seed(0))
    start = to_pan(ms, (384, 384), SENSOR_MODEL)
    flat = torch.zeros(1, 1, 384, 384), torch.zeros(1, 2, 96, 96)  # a PAN that guides nothing
    known = back_project(
        start,
        flat[0],
        ms,
        flat[1],
        SensorModel(
            GridMapping(SENSOR_MODEL.grid.ratio, SENSOR_MODEL.grid.offset),
            SENSOR_MODEL.nyquist_gains,
            ms_noise=(1.0, 0.01),
        ),
        2,
    )
    free = back_project(start, flat[0], ms, flat[1], SENSOR_MODEL, 2)
    inner = (0, slice(None), slice(40, -40), slice(40, -40))
    noisy, quiet = (image[inner].std(dim=(1, 2)) / start[inner].std(dim=(1, 2)) for image in (known, free))
    assert float(quiet[0]) > 1.4
    assert float(noisy[0]) - 1 < 0.4 * (float(quiet[0]) - 1)
    assert float(noisy[1]) == pytest.approx(float(quiet[1]), rel=0.01)


def test_what_is_stronger_than_noise_is_believed():
    left = torch.zeros(1, 2, 64, 64)
    left[..., 31:33, 20:44] = 20.0
    noisy = SensorModel(
        GridMapping(SENSOR_MODEL.grid.ratio, SENSOR_MODEL.grid.offset), SENSOR_MODEL.nyquist_gains, ms_noise=(1.0, 1.0)
    )
    assert torch.allclose(denoise_residual(left, noisy, 0)[..., 31:33, 22:42], left[..., 31:33, 22:42], rtol=0.05)
    assert denoise_residual(left, SENSOR_MODEL, 0) is left


def test_what_is_no_stronger_than_the_noise_of_the_pan_is_no_detail():
    """Of noise alone a fifth of the deviation remains, most of it the mean that is always believed; a line stays."""
    pan = torch.randn(1, 1, 256, 256, generator=torch.Generator().manual_seed(0))
    noisy = replace(SENSOR_MODEL, pan_noise=1.0)
    fine = pan - F.avg_pool2d(pan, 3, stride=1, padding=1)
    kept = denoise_pan(pan, noisy) - F.avg_pool2d(pan, 3, stride=1, padding=1)
    assert float(kept[..., 8:-8, 8:-8].std()) < 0.25 * float(fine[..., 8:-8, 8:-8].std())
    pan[..., 100, 20:200] += 20
    line = (..., 100, slice(30, 190))
    assert torch.allclose(denoise_pan(pan, noisy)[line], pan[line], atol=1.0)
    assert denoise_pan(pan, SENSOR_MODEL) is pan


def put_noise(path, band, deviation):
    with rasterio.open(path, "r+") as file:
        image = file.read(band)
        file.write(image + np.random.default_rng(0).normal(0, deviation, image.shape).astype("float32"), band)


@pytest.fixture
def noisy_pair(tmp_path):
    """Noise of 9 DN in the red band of a pair that has none, and whose MS does not lie where it should."""
    pan, ms = shifted_pair(tmp_path, (-2.4, 3.1))
    put_noise(ms, 3, 9)
    return pan, ms


def test_the_log_and_info_tell_what_is_noisy(noisy_pair):
    pan, ms = noisy_pair
    known = describe(pan, [ms], FOUR)
    levels = known["noise"]
    assert levels[2] == pytest.approx(9, rel=0.15)
    assert max(levels[:2] + levels[3:]) < 1
    assert known["pan_noise"] < 1
    with open_pair(pan, [ms], FOUR) as pair:
        assert survey(pair.sample_windows(), pair.grid, pair.bands).describe_noise() == f"R:{levels[2]:.2g}"
    put_noise(pan, 1, 12)
    assert describe(pan, [ms], FOUR)["pan_noise"] == pytest.approx(12, rel=0.15)
    with open_pair(pan, [ms], FOUR) as pair:
        assert re.fullmatch(
            r"PAN:1[123] R:[\d.]+", survey(pair.sample_windows(), pair.grid, pair.bands).describe_noise()
        )


def test_a_scene_for_training_knows_its_noise(noisy_pair):
    pan, ms = noisy_pair
    with open_pair(pan, [ms], FOUR) as pair:
        found = survey(pair.sample_windows(), pair.grid, pair.bands)
        scene = scene_of(pair, found, Window(0, 0, 256, 256), "noisy")
    assert scene.sensor_model.ms_noise == found.ms_noise
    assert scene.sensor_model.pan_noise == found.pan_noise > 0


@pytest.fixture
def sharpened(tmp_path, read_all, small_weights):
    """The inner part of a result, with noise told from detail or not, and of what the bands truly are."""

    def one(pan, ms, *, noise):
        out = tmp_path / f"{noise}.tif"
        options = sharpen_options(FOUR, small_weights, "cpu", "fp32", noise=noise, overwrite=True)
        sharpen(pan, [ms], out, options)
        with rasterio.open(out) as file:
            told = file.tags().get("CROSSDIFF_NOISE_DN", "")
        return read_all(out)[:, 50:-50, 50:-50], told

    return one


@pytest.fixture
def truth(tmp_path):
    (tmp_path / "clean").mkdir()
    clean, _ = shifted_pair(tmp_path / "clean", (-2.4, 3.1))
    with rasterio.open(clean) as file:
        pan = file.read(1)[50:-50, 50:-50]
    return np.stack([gain * pan + offset for gain, offset in BAND_OF_PAN])


def test_a_noisy_band_is_sharpened_with_less_noise(noisy_pair, sharpened, truth):
    """Beside the same with `--noise off`; the bands without noise stay as they are."""
    (known, told), (unknown, nothing) = (sharpened(*noisy_pair, noise=noise) for noise in (True, False))
    change = np.abs(known - unknown).mean(axis=(1, 2))
    assert change[2] > 5 * max(change[0], change[1], change[3])
    assert np.std(known[2] - truth[2]) < 0.9 * np.std(unknown[2] - truth[2])
    assert told.startswith("R:")
    assert nothing == ""


def test_the_command_and_its_report_tell_the_noise(noisy_pair, tmp_path, small_weights):
    def run(pan, ms, *choices):
        command = ["sharpen", pan, ms, "--sensor", "vhr", "--bands", "B,G,R,NIR", "--weights", str(small_weights)]
        out, page = tmp_path / "o.tif", tmp_path / "o.html"
        done = CliRunner().invoke(main, [*command, "-o", str(out), "--overwrite", "--report", str(page), *choices])
        assert done.exit_code == 0, done.output
        told = re.search("<dt>Noise</dt><dd>(.*?)</dd>", page.read_text(encoding="utf-8"))
        return done.output.count("noise (standard deviation, DN): R:"), told[1]

    logged, told = run(*noisy_pair)
    assert logged == 1
    assert re.fullmatch(r"R:[\d.]+ \(standard deviation, DN\)", told)
    assert run(*noisy_pair, "--noise", "off")[0] == 0
    (tmp_path / "quiet").mkdir()
    told = "below 5% of each image&#x27;s deviation"
    assert run(*shifted_pair(tmp_path / "quiet", (0.0, 0.0))) == (0, told)


def test_the_noise_of_the_pan_does_not_reach_the_bands(tmp_path, sharpened):
    """Beside the same with `--noise off`, in the calmer half: what noise in the PAN changes of the result."""
    pan, ms = shifted_pair(tmp_path, (-2.4, 3.1))
    clean, nothing = sharpened(pan, ms, noise=True)
    put_noise(pan, 1, 30)
    (known, told), (unknown, _) = (sharpened(pan, ms, noise=noise) for noise in (True, False))
    calm = ndimage.uniform_filter(np.abs(np.gradient(clean[0])[0]), 15)
    calm = calm < np.median(calm)
    for band in range(4):
        assert np.std((known - clean)[band][calm]) < 0.6 * np.std((unknown - clean)[band][calm])
    assert nothing == ""
    assert told.startswith("PAN:")
