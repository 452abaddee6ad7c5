"""What the shipped network promises on scenes that no table describes, by synthetic scenes whose truth is known."""

import numpy as np
import pytest
from conftest import PAN_GRID, landscape, sharpen_options, write_raster
from rasterio.transform import Affine

from crossdiff_cli.options import PairOptions
from crossdiff_cli.tasks.sharpen import sharpen

NAMES = ("B", "G", "R", "NIR")


def test_an_mtf_that_the_table_does_not_know_costs_nothing(tmp_path, read_all):
    """MS pixels that are plain means (gain .64 for a sharp PAN), delivered as a sensor whose table says .23."""
    pan, ms = landscape((384, 384), 4, 4)
    _, truth = landscape((384, 384), 4, 1)
    files = (
        write_raster(tmp_path / "pan.tif", pan.round().astype("uint16"), PAN_GRID),
        write_raster(tmp_path / "ms.tif", ms.round().astype("uint16"), PAN_GRID @ Affine.scale(4)),
    )
    errors = {}
    for mtf in ("auto", "table", (0.64,)):
        options = sharpen_options(PairOptions(sensor="ge1", bands=NAMES), mtf=mtf, overwrite=True)
        sharpen(files[0], [files[1]], tmp_path / "out.tif", options)
        inner = (slice(None), slice(16, -16), slice(16, -16))
        errors[mtf] = np.abs(read_all(tmp_path / "out.tif").astype(float) - truth)[inner].mean()
    assert errors["auto"] < 0.8 * errors["table"]
    assert errors["auto"] == pytest.approx(errors[(0.64,)], rel=0.02)


@pytest.mark.parametrize("noise", [3.0, 8.0])
def test_a_flat_sea_is_not_noisier_than_its_ms(tmp_path, read_all, noise):
    random = np.random.default_rng(0)
    _, truth = landscape((384, 384), 4, 1)
    truth[:, :, 192:] = 200.0
    pan = truth.mean(axis=0, keepdims=True) + random.normal(0, noise, (1, 384, 384))
    ms = truth.reshape(4, 96, 4, 96, 4).mean(axis=(2, 4)) + random.normal(0, noise, (4, 96, 96))
    files = (
        write_raster(tmp_path / "pan.tif", pan.round().astype("uint16"), PAN_GRID),
        write_raster(tmp_path / "ms.tif", ms.round().astype("uint16"), PAN_GRID @ Affine.scale(4)),
    )
    sharpen(files[0], [files[1]], tmp_path / "out.tif", sharpen_options(PairOptions(sensor="vhr", bands=NAMES)))
    sea = read_all(tmp_path / "out.tif")[:, 32:-32, 224:-32].astype(float).std(axis=(1, 2))
    assert (sea < 1.1 * read_all(files[1])[:, 8:-8, 56:-8].astype(float).std(axis=(1, 2))).all()
