"""No shift without evidence: nothing to match, one direction alone, a best match at the border of the search."""

import numpy as np
import pytest
import torch
from conftest import PAN_GRID, landscape, write_raster
from rasterio.transform import Affine
from scipy import ndimage

from crossdiff_cli.estimate.matching import PanDegradation, SampleWindow, match
from crossdiff_cli.estimate.registration import Registration
from crossdiff_cli.estimate.survey import survey
from crossdiff_cli.imaging.resample import mtf_sigma
from crossdiff_cli.io.open_pair import open_pair
from crossdiff_cli.options import PairOptions
from crossdiff_cli.tasks.degrade import degrade

OPTIONS = PairOptions(sensor="vhr", bands=("B", "G", "R", "NIR"))
RATIO, SIZE = 4, 512


def ms_of(pan: np.ndarray, shift: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """Four bands that follow from `pan` (H, W), sampled `shift` PAN pixels from their nominal place."""
    blurred = ndimage.gaussian_filter(pan.astype(float), mtf_sigma(0.3, RATIO), mode="nearest")
    centres = [(np.arange(size // RATIO) + 0.5) * RATIO - 0.5 + s for size, s in zip(pan.shape, shift, strict=True)]
    low = ndimage.map_coordinates(blurred, np.meshgrid(*centres, indexing="ij"), order=3, mode="nearest")
    return np.stack([gain * low + offset for gain, offset in ((0.5, 30), (0.8, 0), (0.3, 100), (0.9, 60))])


def registered(folder, pan, ms):
    files = (
        write_raster(folder / "pan.tif", pan[None].astype("float32"), PAN_GRID),
        write_raster(folder / "ms.tif", ms.astype("float32"), PAN_GRID @ Affine.scale(RATIO)),
    )
    with open_pair(files[0], [files[1]], OPTIONS) as pair:
        return survey(pair.sample_windows(), pair.grid, pair.bands).registration


@pytest.fixture(scope="module")
def textured() -> np.ndarray:
    pan, _ = landscape((SIZE, SIZE), 1, RATIO, seed=5)
    return ndimage.gaussian_filter(pan[0], 0.7)


def stripes(angle: float, period: float = 37.0) -> np.ndarray:
    """Crop rows of unequal brightness across `angle` (degrees, from the rows' axis), the same along it."""
    row, col = np.mgrid[:SIZE, :SIZE]
    across = np.cos(np.radians(angle)) * row + np.sin(np.radians(angle)) * col
    return 500 + 100 * np.sin(2 * np.pi * across / period) + 60 * np.sin(2 * np.pi * across / (2.3 * period) + 1)


@pytest.mark.parametrize("flat", ["pan", "both"])
def test_a_constant_pan_gives_no_shift(tmp_path, textured, flat):
    ms = ms_of(textured if flat == "pan" else np.full((SIZE, SIZE), 300.0))
    found = registered(tmp_path, np.full((SIZE, SIZE), 255.0), ms)
    assert found.shift == (0.0, 0.0)
    assert found.correlation == 0.0


def test_two_constant_8_bit_images_give_no_shift(tmp_path):
    pan = write_raster(tmp_path / "pan.tif", np.full((1, 520, 520), 200, "uint8"), PAN_GRID)
    ms = write_raster(tmp_path / "ms.tif", np.full((3, 120, 120), 90, "uint8"), PAN_GRID @ Affine.scale(RATIO))
    with open_pair(pan, [ms], PairOptions(sensor="vhr", bands=("R", "G", "B"))) as pair:
        found = survey(pair.sample_windows(), pair.grid, pair.bands).registration
    assert found.shift == (0.0, 0.0)


@pytest.mark.parametrize("angle", [0.0, 90.0, 30.0, -52.0])
def test_stripes_show_the_shift_across_them_alone(tmp_path, angle):
    pan, true = stripes(angle), np.array([1.1, -0.9])
    across = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    found = registered(tmp_path, pan, ms_of(pan, tuple(true)))
    assert found.shift == pytest.approx(across * (across @ true), abs=0.1)
    assert found.correlation > 0.9


def test_stripes_with_noise_of_their_own_show_no_shift_along_them(tmp_path):
    rng, pan = np.random.default_rng(0), stripes(0.0)
    ms = ms_of(pan, (1.1, 0.0)) + rng.normal(0, 2, (4, SIZE // RATIO, SIZE // RATIO))
    found = registered(tmp_path, pan + rng.normal(0, 2, pan.shape), ms)
    assert found.shift == pytest.approx((1.1, 0.0), abs=0.1)


def test_fields_of_two_directions_show_the_shift_along_both_axes(tmp_path):
    pan, true = stripes(0.0), (0.9, -1.2)
    pan[:, SIZE // 2 :] = stripes(90.0)[:, SIZE // 2 :]
    assert registered(tmp_path, pan, ms_of(pan, true)).shift == pytest.approx(true, abs=0.15)


@pytest.mark.parametrize("spoilt", ["half constant", "saturated"])
def test_a_true_shift_is_found_beside_what_shows_none(tmp_path, textured, spoilt):
    pan, true = textured.copy(), (1.3, -0.7)
    if spoilt == "half constant":
        pan[: SIZE // 2] = 400.0
    ms = ms_of(pan, true)
    if spoilt == "saturated":
        pan[100:250, 100:300] = 2047.0
    assert registered(tmp_path, pan, ms).shift == pytest.approx(true, abs=0.05)


def test_a_single_bright_dot_is_no_evidence(tmp_path):
    pan = np.full((SIZE, SIZE), 300.0)
    pan[200:204, 220:224] = 2000.0
    found = registered(tmp_path, pan, ms_of(pan, (2.0, -1.0)))
    assert found.shift == (0.0, 0.0)


def test_a_best_match_at_the_border_of_the_search_is_no_match(textured):
    def matched(shift: float):
        ms = torch.from_numpy(ms_of(textured, (shift, 0.0))).float()
        ms = (ms - ms.mean(dim=(1, 2), keepdim=True)) / ms.std(dim=(1, 2), keepdim=True)
        pan = torch.from_numpy((textured - textured.mean()) / textured.std()).float()[None, None]
        view = SampleWindow(pan, ms, torch.ones(ms.shape[1:], dtype=torch.bool), (0.0, 0.0), (0.0, 0.0))
        return match(view, PanDegradation((RATIO, RATIO), 0.3))

    near = matched(1.9 * RATIO)
    assert near is not None
    assert near.shift == pytest.approx((1.9 * RATIO, 0.0), abs=0.1)
    assert matched(3.0 * RATIO) is None


def test_bands_that_lie_alike_get_no_shift_of_their_own(tmp_path):
    made = degrade("examples/pan.tif", ["examples/ms.tif"], tmp_path / "pair")
    with open_pair(made.pan, [made.ms]) as pair:
        found = survey(pair.sample_windows(), pair.grid, pair.bands).registration
    assert found.band_shifts == ()
    assert found.shift == pytest.approx((0.0, 0.0), abs=0.05)


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (Registration((0.004, -0.003), 0.995), "PAN and MS are aligned (correlation 0.995)"),
        (Registration((-0.5, 0.004), 0.9), "MS offset from PAN: x +0.00, y -0.50 PAN px (correlation 0.900)"),
        (
            Registration((0.0, 0.0), 0.9, stretch=(0.01, 0.0)),
            "MS offset from PAN: x +0.00, y +0.00 PAN px, growing by x +0.00, y +1.00 px over the scene "
            "(correlation 0.900)",
        ),
        (Registration(), "PAN and MS were not registered: too little common detail"),
    ],
)
def test_an_offset_that_rounds_to_zero_is_called_aligned(found, line):
    assert found.describe((100, 200)) == line
