import numpy as np
import pytest
import torch
from conftest import PAN_GRID as PAN
from conftest import shifted_pair, write_raster
from rasterio.transform import Affine

from crossdiff_cli.errors import SceneError
from crossdiff_cli.estimate.survey import survey
from crossdiff_cli.io.open_pair import open_pair
from crossdiff_cli.options import EstimateOptions, PairOptions

OPTIONS = PairOptions(sensor="vhr", bands=("B", "G", "R", "NIR"))


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.6, -1.3), (-2.4, 3.1)])
def test_a_known_shift_is_found(tmp_path, shift):
    pan, ms = shifted_pair(tmp_path, shift)
    with open_pair(pan, [ms], OPTIONS) as pair:
        found = survey(pair.sample_windows(), pair.grid, pair.bands)
    # The MS was sampled at +shift, so its content lies at +shift of the nominal place.
    assert found.registration.shift == pytest.approx(shift, abs=0.05)
    assert found.registration.correlation > 0.95


@pytest.mark.parametrize("red", [(0.5, -0.4), (0.0, 1.0)])
def test_a_band_that_lies_apart_is_found(tmp_path, red):
    """The common shift is a compromise; with the band's own it adds up to where the band is."""
    pan, ms = shifted_pair(tmp_path, (0.6, -1.3), red=red)
    with open_pair(pan, [ms], OPTIONS) as pair:
        found = survey(pair.sample_windows(), pair.grid, pair.bands)
        none = survey(pair.sample_windows(), pair.grid, pair.bands, EstimateOptions(align=False))
    total = [s + b for s, b in zip(found.registration.shift, found.registration.band_shifts[2], strict=True)]
    assert total == pytest.approx((0.6 + red[0], -1.3 + red[1]), abs=0.12)
    for band in (0, 1, 3):
        total = [s + b for s, b in zip(found.registration.shift, found.registration.band_shifts[band], strict=True)]
        assert total == pytest.approx((0.6, -1.3), abs=0.2)
    assert none.registration.band_shifts == ()


def test_no_band_lies_apart_where_none_does(tmp_path):
    pan, ms = shifted_pair(tmp_path, (0.6, -1.3))
    with open_pair(pan, [ms], OPTIONS) as pair:
        assert survey(pair.sample_windows(), pair.grid, pair.bands).registration.band_shifts == ()


@pytest.mark.parametrize("stretch", [(0.003, 0.0), (-0.002, 0.004)])
def test_a_stretch_is_found(tmp_path, stretch):
    pan, ms = shifted_pair(tmp_path, (0.6, -1.3), stretch=stretch)
    with open_pair(pan, [ms], OPTIONS) as pair:
        found = survey(pair.sample_windows(), pair.grid, pair.bands).registration
    assert found.stretch == pytest.approx(stretch, abs=0.0006)
    for corner in ((0.0, 0.0), (0.0, 639.0), (639.0, 639.0)):
        wanted = [s + g * (at - 319.5) for s, g, at in zip((0.6, -1.3), stretch, corner, strict=True)]
        assert found.displacement(corner) == pytest.approx(wanted, abs=0.25)


def test_no_stretch_is_found_where_there_is_none(tmp_path):
    pan, ms = shifted_pair(tmp_path, (0.6, -1.3))
    with open_pair(pan, [ms], OPTIONS) as pair:
        assert survey(pair.sample_windows(), pair.grid, pair.bands).registration.stretch == (0.0, 0.0)


def test_an_ms_that_jumps_is_left_in_its_place_with_a_warning(tmp_path, caplog):
    pan, ms = shifted_pair(tmp_path, (-1.5, 0.0), jump=3.0)
    with open_pair(pan, [ms], OPTIONS) as pair:
        found = survey(pair.sample_windows(), pair.grid, pair.bands).registration
    assert found.stretch == (0.0, 0.0)
    assert max(abs(v) for v in found.shift) < 0.75
    assert "differently from place to place" in caplog.text


def test_holes_do_not_disturb_shift_or_statistics(tmp_path):
    pan, ms = shifted_pair(tmp_path, (0.6, -1.3), hole=True)
    with open_pair(pan, [ms], OPTIONS) as pair:
        found = survey(pair.sample_windows(), pair.grid, pair.bands)
    assert found.registration.shift == pytest.approx((0.6, -1.3), abs=0.1)
    assert found.normalisation.pan_mean > 0
    assert float(found.normalisation.ms_mean.min()) > 0
    assert float(found.normalisation.ms_std.max()) < 300


def test_align_off_measures_no_shift(tmp_path):
    pan, ms = shifted_pair(tmp_path, (0.6, -1.3))
    with open_pair(pan, [ms], OPTIONS) as pair:
        assert survey(
            pair.sample_windows(), pair.grid, pair.bands, EstimateOptions(align=False)
        ).registration.shift == (0.0, 0.0)


def test_statistics_are_those_of_the_pixels(tmp_path):
    pan, ms = shifted_pair(tmp_path, (0.0, 0.0))
    with open_pair(pan, [ms], OPTIONS) as pair:
        statistics = survey(pair.sample_windows(), pair.grid, pair.bands).normalisation
        data = torch.from_numpy(pair.ms[0].read(pair.footprint.__class__(0, 0, 160, 160))[0])
    assert torch.allclose(statistics.ms_mean, data.mean(dim=(1, 2)), rtol=1e-3)
    assert torch.allclose(statistics.ms_std, data.std(dim=(1, 2)), rtol=1e-3)
    normalised = statistics.normalise_ms(data)
    assert torch.allclose(statistics.denormalise_ms(normalised), data, rtol=1e-4, atol=1e-2)


def test_noise_is_not_registered(tmp_path):
    rng = np.random.default_rng(0)
    pan = write_raster(tmp_path / "pan.tif", rng.normal(500, 50, (1, 400, 400)).astype("float32"), PAN)
    ms = write_raster(tmp_path / "ms.tif", rng.normal(500, 50, (4, 100, 100)).astype("float32"), PAN @ Affine.scale(4))
    with open_pair(pan, [ms], OPTIONS) as pair:
        found = survey(pair.sample_windows(), pair.grid, pair.bands)
    assert found.registration.shift == (0.0, 0.0)
    assert found.registration.correlation == 0.0


def test_a_constant_band_and_a_constant_pan_have_deviation_one(tmp_path):
    pan = write_raster(tmp_path / "pan.tif", np.full((1, 400, 400), 7, "uint16"), PAN)
    ms = write_raster(tmp_path / "ms.tif", np.full((4, 100, 100), 300, "uint16"), PAN @ Affine.scale(4))
    with open_pair(pan, [ms], OPTIONS) as pair:
        statistics = survey(pair.sample_windows(), pair.grid, pair.bands).normalisation
    assert statistics.pan_std == 1.0
    assert statistics.ms_std.tolist() == [1.0] * 4


def test_a_scene_without_valid_pixels_is_refused(tmp_path):
    pan = write_raster(tmp_path / "pan.tif", np.full((1, 400, 400), 7, "uint16"), PAN, nodata=7)
    ms = write_raster(tmp_path / "ms.tif", np.full((4, 100, 100), 300, "uint16"), PAN @ Affine.scale(4))
    with open_pair(pan, [ms], OPTIONS) as pair, pytest.raises(SceneError, match="no valid pixel in common"):
        survey(pair.sample_windows(), pair.grid, pair.bands)
