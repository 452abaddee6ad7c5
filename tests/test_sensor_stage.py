"""The sensor stage of an adapted head: nothing before training, for its own bands alone, whatever their order."""

import logging

import pytest
import rasterio
import torch
from conftest import changed, sharpen_options, small_model

from crossdiff_cli.geometry.grid import GridMapping
from crossdiff_cli.imaging.sensor_model import SensorModel
from crossdiff_cli.model.device import fast_in_bf16
from crossdiff_cli.model.spectral import Spectrum
from crossdiff_cli.model.weights import load, save
from crossdiff_cli.options import PairOptions
from crossdiff_cli.tasks.sharpen import sharpen

NM = (480.0, 545.0, 655.0, 850.0)
BANDS = [(center, 60.0) for center in NM]
GAINS = (0.3, 0.3, 0.3, 0.25)


def spectrum(order=(0, 1, 2, 3)):
    return Spectrum.of([BANDS[i] for i in order], (450.0, 800.0), 4.0)


def images(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 1, 96, 96, generator=generator), torch.randn(1, 4, 24, 24, generator=generator)


def fused(model, order=(0, 1, 2, 3), wavelengths=None):
    pan, ms = images()
    sensor_model = SensorModel(GridMapping((4.0, 4.0), (0.0, 0.0)), tuple(GAINS[i] for i in order))
    return model.fuse(pan, ms[:, list(order)], sensor_model, wavelengths or spectrum(order))


def staged(*, trained=True):
    model = small_model()
    model.add_sensor_stage(NM)
    if trained:
        torch.nn.init.normal_(model.head.stage.out.weight, std=0.05)
    return model.eval().requires_grad_(False)


def test_untrained_it_changes_nothing_and_trained_it_does():
    plain = fused(small_model())
    assert torch.equal(fused(staged(trained=False)), plain)
    assert (fused(staged()) - plain).abs().max() > 0.05


def test_the_order_of_the_bands_does_not_matter():
    model, order = staged(), (2, 0, 3, 1)
    assert torch.allclose(fused(model, order), fused(model)[:, list(order)], atol=1e-4)


def test_other_bands_are_left_alone():
    other = Spectrum.of([(c + 60, 60.0) for c in NM], (450.0, 800.0), 4.0)
    assert torch.equal(fused(staged(), wavelengths=other), fused(small_model(), wavelengths=other))
    assert staged().head.stage.fits(torch.tensor([855.0, 470.0, 550.0, 660.0]))
    assert not staged().head.stage.fits(torch.tensor([855.0, 470.0, 550.0]))


def test_its_reach_is_part_of_that_of_the_head():
    """An input beyond the stated reach changes no pixel."""
    model = staged()
    stage, reach = model.head.stage, model.head.stage.RADIUS
    assert model.receptive_field_radius == small_model().receptive_field_radius + reach
    size = 2 * reach + 3
    hrms, up, detail = (torch.zeros(1, 4, size, size) for _ in range(3))
    pan = torch.zeros(1, 1, size, size)
    pan[..., size // 2, size // 2] = 1.0
    pan.requires_grad_(True)
    before = stage(hrms, up, detail, torch.zeros_like(pan), torch.arange(4), torch.float32)
    moved = (stage(hrms, up, detail, pan, torch.arange(4), torch.float32) - before)[0].abs().sum(dim=0) > 0
    rows = moved.any(dim=1).nonzero().flatten()
    assert (int(rows.min()), int(rows.max())) == (size // 2 - reach, size // 2 + reach)


def test_it_is_kept_in_the_weight_file(tmp_path):
    model = staged()
    save(model, tmp_path / "s.safetensors", {}, dtype=torch.float32)
    again, _ = load(tmp_path / "s.safetensors")
    assert again.architecture.stage_nm == NM
    assert torch.equal(fused(again), fused(model.channels_last()))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_tiles_of_any_size_give_the_same_file(tmp_path, make_pair, precision, caplog):
    """Beside that, a scene with other bands is sharpened without the stage, and told."""
    save(staged(), tmp_path / "s.safetensors", {}, dtype=torch.float32)
    files = make_pair(shape=(640, 640))
    options = sharpen_options(
        pair=PairOptions(sensor="vhr", bands=("B", "G", "R", "NIR")), weights=tmp_path / "s.safetensors", device="cpu",
        precision=precision, tile=256,
    )  # fmt: skip
    for tile in (256, 1024):
        sharpen(files.pan, [files.ms], tmp_path / f"{tile}.tif", changed(options, tile=tile))
    with rasterio.open(tmp_path / "256.tif") as small, rasterio.open(tmp_path / "1024.tif") as large:
        difference = abs(small.read().astype(float) - large.read())
        exact = precision == "fp32" and fast_in_bf16(torch.device("cpu"))
        assert difference.max() <= (0 if exact else 1)
        # Without AMX oneDNN adds in an order that depends on the shape, and a value beside a half may round otherwise.
        assert precision != "fp32" or (difference > 0).mean() < 1e-5
    assert "sensor stage" not in caplog.text
    with caplog.at_level(logging.WARNING):
        three = PairOptions(sensor="vhr", bands=("B", "G", "R"), bidx=(1, 2, 3))
        sharpen(files.pan, [files.ms], tmp_path / "three.tif", changed(options, pair=three))
    assert "its sensor stage is left out" in caplog.text
