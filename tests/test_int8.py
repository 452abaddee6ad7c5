"""The network on whole numbers: exact where they are, the same picture, and only where the processor has them."""

import logging

import numpy as np
import pytest
import rasterio
import torch
import torch.nn.functional as F
from conftest import changed, sharpen_options, small_model

from crossdiff_cli.errors import DeviceError
from crossdiff_cli.geometry.grid import GridMapping
from crossdiff_cli.geometry.window import Window
from crossdiff_cli.imaging.sensor_model import SensorModel
from crossdiff_cli.inference.calibration import quantised
from crossdiff_cli.inference.int8 import Int8Block, Int8Conv
from crossdiff_cli.model import device as devices
from crossdiff_cli.model.blocks import ResBlock
from crossdiff_cli.model.device import inference_dtype, network_dtype
from crossdiff_cli.model.spectral import Spectrum
from crossdiff_cli.model.weights import load
from crossdiff_cli.options import PairOptions
from crossdiff_cli.system.weight_files import bundled_weights
from crossdiff_cli.tasks.sharpen import sharpen

CPU = torch.device("cpu")
BANDS = Spectrum(
    torch.tensor([480.0, 545.0, 672.0, 850.0]),
    torch.tensor([60.0, 70.0, 35.0, 140.0]),
    torch.tensor([450.0, 800.0]),
    4.0,
)
GAINS = (0.34, 0.32, 0.30, 0.22)

with_vnni = pytest.mark.skipif(not devices._fast_in_int8(CPU), reason="this processor has no VNNI")


@with_vnni
def test_whole_numbers_are_multiplied_exactly():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randint(-127, 128, (16, 16, 3, 3), generator=generator).float()
    weight[:, 0, 0, 0] = 127  # so that a step of every kernel is one
    bias = torch.randn(16, generator=generator)
    image = torch.randint(0, 256, (1, 16, 20, 30), generator=generator)
    conv = Int8Conv(weight, bias, scale=0.5, zero=128)
    expected = F.conv2d(0.5 * (image - 128).double(), weight.double(), bias.double(), padding=1)
    got = conv(image.to(torch.uint8).contiguous(memory_format=torch.channels_last))
    assert torch.allclose(got.double(), expected, rtol=1e-6, atol=1e-3)


@with_vnni
def test_silu_is_rounded_to_what_the_next_convolution_takes():
    weight = torch.zeros(16, 16, 3, 3)
    weight[range(16), range(16), 1, 1] = 1.0
    image = torch.arange(256, dtype=torch.uint8).repeat(16, 16).view(1, 16, 16, 256)
    first = Int8Conv(weight, None, scale=0.05, zero=128)
    then = Int8Conv(weight, None, scale=0.03, zero=9)
    got = first(image.contiguous(memory_format=torch.channels_last), then)
    expected = (F.silu(0.05 * (image.double() - 128)) / 0.03 + 9).clamp(0, 255)
    assert got.dtype == torch.uint8
    assert expected.max() > 200
    assert (got - expected).abs().max() < 0.51


@with_vnni
def test_a_block_keeps_what_it_adds_to():
    """Only what the convolutions add is rounded; for the first image nothing is."""
    torch.manual_seed(1)
    block = ResBlock(16, 8).eval().requires_grad_(False)
    torch.nn.init.normal_(block.film.weight, std=0.2)
    x, condition = torch.randn(1, 16, 32, 32), torch.randn(1, 8)
    quick = Int8Block(block, condition, torch.float32)
    with torch.inference_mode():
        assert torch.equal(quick(x.clone()), block(x, condition))
        other = 50 * torch.randn(1, 16, 32, 32).contiguous(memory_format=torch.channels_last)
        exact = block(other, condition)
        rounded = quick(other.clone(memory_format=torch.preserve_format))
    added, error = exact - other, rounded - exact
    assert 0 < error.square().mean().sqrt() < 0.03 * added.square().mean().sqrt()
    assert error.mean(dim=(2, 3)).abs().max() < 0.3 * error.square().mean().sqrt()


@with_vnni
def test_what_lies_beyond_the_range_gets_its_end():
    """A block that adds the SiLU of its norm; in the first image that is never more than that of 1."""
    block = ResBlock(16, 8).eval().requires_grad_(False)
    for conv in (block.conv1, block.conv2):
        torch.nn.init.dirac_(conv.weight)
        torch.nn.init.zeros_(conv.bias)
    quick = Int8Block(block, torch.zeros(1, 8), torch.float32)
    with torch.inference_mode():
        quick(torch.ones(1, 16, 8, 8))
        far = torch.zeros(1, 16, 8, 8)
        far[0, 0, 4, 4], far[0, 1, 4, 4] = 100.0, -100.0  # RMS 35: 2.8 times it
        added = quick(far.clone().contiguous(memory_format=torch.channels_last)) - far
    assert float(added[0, 0, 4, 4]) == pytest.approx(1.5 * float(F.silu(torch.ones(()))), abs=0.02)
    assert float(added[0, 1, 4, 4]) == pytest.approx(float(F.silu(torch.tensor(-1.5))), abs=0.02)


@with_vnni
@pytest.mark.parametrize("bands", [1, 4, 8])
def test_the_shipped_network_hardly_differs(bands):
    """By less than 0.2 % of a band's deviation, on a window of another kind than the ranges come from."""
    model = load(bundled_weights())[0].channels_last()
    spectrum = Spectrum(torch.linspace(450, 900, bands), torch.full((bands,), 50.0), BANDS.pan_nm, 4.0)
    gains = (0.3,) * bands
    generator = torch.Generator().manual_seed(3)
    steps = F.interpolate(torch.randn(1, 1 + bands, 8, 8, generator=generator), size=(128, 128))
    pan, ms = steps[:, :1].clone(), F.avg_pool2d(steps[:, 1:] + steps[:, :1], 4)
    quick = quantised(model, spectrum, gains)
    assert quick is not None
    with torch.inference_mode():
        sensor_model = SensorModel(GridMapping((4.0, 4.0), (0.0, 0.0)), gains)
        exact = model.fuse(pan, ms, sensor_model, spectrum, iterations=2)
        rounded, _ = quick.fuse(pan, ms, sensor_model, Window(0, 0, 128, 128), 2)
    assert 0 < (rounded - exact).square().mean().sqrt() < 0.002 * exact.std()


@with_vnni
def test_the_order_of_the_bands_in_the_file_does_not_matter(make_pair, tmp_path, read_all):
    """The ranges, which follow from the bands, are those of the bands in the order of their wavelengths."""
    files, order = make_pair(), (2, 0, 3, 1)
    with rasterio.open(files.ms) as file:
        data, profile = file.read()[list(order)], file.profile
    with rasterio.open(tmp_path / "turned.tif", "w", **profile) as file:
        file.write(data)
    for name, ms, bands in (("plain", files.ms, (0, 1, 2, 3)), ("turned", str(tmp_path / "turned.tif"), order)):
        pair = PairOptions(sensor="vhr", bands=tuple("B G R NIR".split()[band] for band in bands))
        sharpen(
            files.pan, [ms], tmp_path / f"{name}_out.tif", sharpen_options(pair=pair, device="cpu", precision="int8")
        )
    plain, turned = (read_all(tmp_path / f"{name}_out.tif") for name in ("plain", "turned"))
    assert np.array_equal(plain[list(order)], turned)


@with_vnni
def test_weights_that_whole_numbers_would_falsify_stay_in_float32(caplog):
    """A channel ten thousand times as large as the others, which share its scale, leaves nothing of them."""
    model = small_model().channels_last()
    block = model.head.blocks[0]
    torch.nn.init.normal_(block.conv2.weight, std=1.0)
    block.conv1.weight[0] *= 1e4
    block.conv2.weight[:, 0] = 0
    with caplog.at_level(logging.WARNING):
        assert quantised(model, BANDS, GAINS) is None
    assert "float32 is used" in caplog.text


def test_a_pytorch_with_other_operators_works_in_float32(caplog, monkeypatch):
    def refuse(*_):
        raise RuntimeError("qconv2d_pointwise() expected at most 3 arguments\nand a trace")

    monkeypatch.setattr("crossdiff_cli.inference.calibration._calibrate", refuse)
    model = small_model().channels_last()
    with caplog.at_level(logging.WARNING):
        assert quantised(model, BANDS, GAINS) is None
    assert "expected at most 3 arguments): float32 is used" in caplog.text


@with_vnni
def test_int8_is_the_same_picture_whatever_the_tile(make_pair, tmp_path, read_all):
    files = make_pair(shape=(512, 512), seed=2)
    options = sharpen_options(pair=PairOptions(sensor="vhr"), device="cpu", precision="int8", tile=256)
    variants = {
        "exact": changed(options, precision="fp32"),
        "int8": options,
        "tile": changed(options, tile=512),
        "auto": changed(options, precision="auto"),
    }
    for name, choice in variants.items():
        sharpen(files.pan, [files.ms], tmp_path / f"{name}.tif", choice)
    for name, precision in (("exact", "fp32"), ("int8", "int8")):
        with rasterio.open(tmp_path / f"{name}.tif") as file:
            assert file.tags()["CROSSDIFF_PRECISION"] == precision
    exact, int8, tile = (read_all(tmp_path / f"{name}.tif").astype(float) for name in ("exact", "int8", "tile"))
    assert 0 < np.abs(int8 - exact).max() < 0.05 * exact.std()
    assert np.sqrt(np.mean((int8 - exact) ** 2)) < 0.005 * exact.std()
    assert np.abs(int8 - tile).max() <= 1
    assert np.mean(int8 != tile) < 1e-3
    if inference_dtype(CPU, "auto") == torch.int8:
        assert (tmp_path / "int8.tif").read_bytes() == (tmp_path / "auto.tif").read_bytes()


@pytest.mark.parametrize(
    ("amx", "vnni", "sharpening", "training"),
    [
        (True, True, torch.bfloat16, torch.bfloat16),
        (False, True, torch.int8, torch.float32),
        (False, False, torch.float32, torch.float32),
    ],
)
def test_auto_takes_what_the_processor_is_fastest_in(monkeypatch, amx, vnni, sharpening, training):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(devices, "_fast_in_int8", lambda device: vnni)
    assert inference_dtype(CPU, "auto") == sharpening
    assert network_dtype(CPU, "auto") == training
    assert inference_dtype(CPU, "fp32") == torch.float32
    assert inference_dtype(CPU, "bf16") == torch.bfloat16


def test_int8_where_it_would_not_be_faster_is_refused(monkeypatch):
    with pytest.raises(DeviceError) as caught:
        inference_dtype(torch.device("cuda"), "int8")
    assert caught.value.found == torch.device("cuda")
    monkeypatch.setattr(devices, "_fast_in_int8", lambda device: False)
    with pytest.raises(DeviceError):
        inference_dtype(CPU, "int8")
