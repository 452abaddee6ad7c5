"""The DN at which bands saturate, and that no result beside a saturated area exceeds it."""

import math

import numpy as np
import pytest
import torch
from conftest import PAN_GRID, landscape, sharpen_options, write_raster
from rasterio.transform import Affine

from crossdiff_cli.estimate.matching import SampleWindow
from crossdiff_cli.estimate.saturation import saturation_levels
from crossdiff_cli.options import PairOptions
from crossdiff_cli.tasks.sharpen import sharpen

OPTIONS = PairOptions(sensor="vhr", bands=("B", "G", "R", "NIR"))


def level(values: np.ndarray) -> float:
    ms = torch.from_numpy(values.astype("float32"))[None]
    mask = torch.ones(ms.shape[1:], dtype=torch.bool)
    return saturation_levels([SampleWindow(torch.zeros(1, 1, 4, 4), ms, mask, (0.0, 0.0), (0.0, 0.0))])[0]


def test_a_spike_at_the_largest_value_is_saturation():
    scene = np.random.default_rng(0).normal(1500, 300, (128, 128)).round()
    assert level(np.minimum(scene, 2047)) == 2047
    assert level(scene) == math.inf
    scene[3, 4] = 4095  # one hot pixel
    assert level(scene) == math.inf


def test_few_values_are_no_saturation():
    """A dark 8-bit band has many pixels of every value, its largest one among them."""
    dark = np.random.default_rng(1).integers(30, 38, (128, 128))
    assert level(dark) == math.inf
    assert level(np.zeros((64, 64))) == math.inf


def test_masked_pixels_do_not_count():
    ms = torch.full((1, 32, 32), 100.0)
    ms[:, ::2, ::3] = 90.0
    ms[:, :8] = 65535.0
    mask = torch.ones(32, 32, dtype=torch.bool)
    mask[:8] = False
    view = SampleWindow(torch.zeros(1, 1, 4, 4), ms, mask, (0.0, 0.0), (0.0, 0.0))
    assert saturation_levels([view]) == (100.0,)


@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_nothing_beside_a_saturated_area_exceeds_it(tmp_path, small_weights, read_all, precision):
    pan, ms = landscape((256, 256), 4, 4)
    pan[:, 60:140, 60:140] *= 3
    ms[:, 15:35, 15:35] *= 3
    pan, ms = pan.clip(0, 1000), ms.clip(0, 1000)
    files = (
        write_raster(tmp_path / "pan.tif", pan.round().astype("uint16"), PAN_GRID),
        write_raster(tmp_path / "ms.tif", ms.round().astype("uint16"), PAN_GRID @ Affine.scale(4)),
    )
    options = sharpen_options(OPTIONS, small_weights, "cpu", precision)
    sharpen(files[0], [files[1]], tmp_path / "out.tif", options)
    assert read_all(tmp_path / "out.tif").max() == 1000
