"""The network bound to a scene: every backend against the module, few operators, and no wait for the device."""

import ast
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import small_model, told_of_quality
from torch.utils._python_dispatch import TorchDispatchMode

import crossdiff_cli
from crossdiff_cli.geometry.grid import GridMapping
from crossdiff_cli.geometry.patch import Patch
from crossdiff_cli.geometry.window import STRIDE, Tile, Window
from crossdiff_cli.imaging import filters, resample
from crossdiff_cli.imaging.intensity import Intensity
from crossdiff_cli.imaging.normalisation import Normalisation
from crossdiff_cli.imaging.resample import degrade, expand
from crossdiff_cli.imaging.sensor_model import Expansion, SensorModel, to_pan
from crossdiff_cli.inference import layers
from crossdiff_cli.inference.bound import bind
from crossdiff_cli.inference.layers import Block, Conv, compact, stacked, upsample2
from crossdiff_cli.inference.run import BoundScene, DeviceWorker, OutputPixels
from crossdiff_cli.model.blocks import ResBlock
from crossdiff_cli.model.crossdiff import CrossDiff
from crossdiff_cli.model.spectral import ImageQuality, Spectrum
from crossdiff_cli.model.weights import load
from crossdiff_cli.system.weight_files import bundled_weights

CPU = torch.device("cpu")
PAN_NM = torch.tensor([450.0, 800.0])


def scene(bands: int, ratio: float, size: int = 200) -> tuple[torch.Tensor, torch.Tensor, SensorModel, Spectrum]:
    """PAN and MS of a window, with noise, a saturated band and one that lies apart."""
    generator = torch.Generator().manual_seed(bands)
    coarse = int(size / ratio) + 3
    grid = GridMapping((ratio, ratio), (-3.3, -2.1), ((0.0, 0.0),) * (bands - 1) + ((0.4, -0.3),))
    gains = tuple(np.linspace(0.35, 0.2, bands).round(3))
    limits = (1.5,) + (float("inf"),) * (bands - 1)
    intensity = Intensity((1 / bands,) * bands, (0.9,) * bands, 0.02, 0.1)
    sensor_model = SensorModel(grid, gains, (0.2,) * bands, 0.3, limits, intensity)
    quality = ImageQuality.of(gains, sensor_model.ms_noise, 0.4, sensor_model.pan_noise)
    spectrum = Spectrum(torch.linspace(450, 850, bands), torch.full((bands,), 60.0), PAN_NM, ratio, quality)
    pan = torch.randn(1, 1, size, size, generator=generator)
    return pan, torch.randn(1, bands, coarse, coarse, generator=generator), sensor_model, spectrum


def network(kind: str) -> CrossDiff:
    torch.manual_seed(0)
    model = CrossDiff(small_model().architecture, encoders=False).eval() if kind == "none" else small_model()
    if kind == "p2m":
        model.with_m2p_features(False)
    if kind == "stage":
        model.add_sensor_stage([float(nm) for nm in torch.linspace(450, 850, 4)])
        torch.nn.init.normal_(model.head.stage.out.weight, std=0.05)
    torch.nn.init.normal_(model.head.out.kernels.out.weight, std=0.05)
    told_of_quality(model)
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("backend", ["strips", "whole"])
@pytest.mark.parametrize(
    ("bands", "ratio", "kind"),
    [(1, 4.0, "m2p"), (3, 2.0, "p2m"), (4, 3.7, "m2p"), (4, 4.0, "stage"), (6, 4.0, "none"), (8, 4.0, "p2m")],
)
def test_every_backend_is_the_module(backend, bands, ratio, kind, monkeypatch):
    """At the borders of the window too, which are those of the image."""
    monkeypatch.setattr("crossdiff_cli.inference.strips.STRIP", 64)
    pan, ms, sensor_model, spectrum = scene(bands, ratio)
    model, core = network(kind), Window(0, 0, 200, 200)
    given = [image.clone() for image in (pan, ms)]
    with torch.inference_mode():
        results = {}
        for name in ("reference", backend):
            bound, precision = bind(model, spectrum, sensor_model.nyquist_gains, CPU, torch.float32, name)
            assert precision == "fp32"
            results[name] = bound.fuse(pan, ms, sensor_model, core, 2)
    for wanted, found in zip(results["reference"], results[backend], strict=True):
        assert torch.allclose(found, wanted, atol=2e-5)
    assert all(torch.equal(a, b) for a, b in zip((pan, ms), given, strict=True))
    assert (results[backend][0] - to_pan(ms, (200, 200), sensor_model)).abs().max() > 0.1


def test_a_model_that_changes_is_not_seen():
    pan, ms, sensor_model, spectrum = scene(4, 4.0)
    model, core = network("m2p"), Window(0, 0, 200, 200)
    bound, _ = bind(model, spectrum, sensor_model.nyquist_gains, CPU, torch.float32)
    with torch.inference_mode():
        before = bound.fuse(pan, ms, sensor_model, core, 2)[0].clone()
    for weight in model.parameters():
        weight.data.mul_(2)
    with torch.inference_mode():
        assert torch.equal(bound.fuse(pan, ms, sensor_model, core, 2)[0], before)
        assert (model.fuse(pan, ms, sensor_model, spectrum) - before).abs().max() > 0.1


def test_a_sum_in_one_pass_is_the_convolution_and_the_sum(monkeypatch):
    torch.manual_seed(0)
    block, condition = ResBlock(16, 8).requires_grad_(False), torch.randn(1, 8)
    torch.nn.init.normal_(block.film.weight, std=0.2)
    x = compact(torch.randn(1, 16, 20, 30))
    with torch.inference_mode():
        wanted = block(x, condition)
        assert torch.allclose(
            Block(block, condition, torch.float32)(x.clone(memory_format=torch.preserve_format)), wanted, atol=1e-5
        )
        monkeypatch.setattr(layers, "_fuses_sums", lambda dtype: False)
        assert torch.allclose(
            Block(block, condition, torch.float32)(x.clone(memory_format=torch.preserve_format)), wanted, atol=1e-5
        )


def test_a_pytorch_without_the_fused_operator_is_noticed(monkeypatch):
    layers._fuses_sums.cache_clear()
    assert layers._fuses_sums(torch.float32) == torch.backends.mkldnn.is_available()
    layers._fuses_sums.cache_clear()
    monkeypatch.setattr(layers.torch, "ops", SimpleNamespace())
    assert layers._fuses_sums(torch.float32) is False
    monkeypatch.undo()
    layers._fuses_sums.cache_clear()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(1, 3, 7, 5), (2, 1, 4, 9), (1, 4, 1, 6), (1, 5, 3, 1)])
def test_upsampling_is_bilinear(shape, layout):
    image = torch.randn(shape, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=layout)
    wanted = F.interpolate(image, scale_factor=2, mode="bilinear", align_corners=False)
    assert torch.allclose(upsample2(image), wanted, atol=1e-6)


def test_upsampling_keeps_the_type_of_a_view():
    image = torch.randn(1, 4, 12, 10).to(torch.bfloat16)[:, 1:3, 2:8, 3:9]
    found = upsample2(image)
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.float(), F.interpolate(image.float(), scale_factor=2, mode="bilinear"), atol=0.05)


def test_one_channel_is_channels_last_too():
    """The trap: of one channel, `contiguous` leaves the strides, and convolutions answer in the other layout."""
    image = torch.randn(1, 1, 32, 32)
    assert Conv(torch.randn(8, 1, 6, 6), None, torch.float32, stride=2, padding=2)(compact(image)).stride(1) == 1
    both = stacked([image, 2 * image], torch.bfloat16)
    assert both.stride(1) == 1
    assert torch.equal(both, torch.cat([image, 2 * image], dim=1).to(torch.bfloat16))


@pytest.mark.parametrize("gradient", [False, True])
def test_all_blocks_at_once_are_the_blocks_one_by_one(gradient, monkeypatch):
    """What a GPU does, and what a CPU does, for bands of different gains and places; gradients pass through both."""
    image = torch.randn(2, 3, 150, 190, requires_grad=gradient)
    offsets, gains = ((0.3, -1.0), (0.3, -1.0), (1.1, 0.2)), (0.3, 0.2, 0.15)
    found = []
    for blocks in (True, False):
        monkeypatch.setattr(resample, "_in_blocks", lambda _, blocks=blocks: blocks)
        small = degrade(image, (30, 45), (4.7, 4.0), offsets, gains)
        large = expand(small, (150, 190), (4.7, 4.0), offsets)
        assert large.requires_grad == gradient
        found.append((small, large, *(torch.autograd.grad(large.square().sum(), image) if gradient else ())))
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, atol=1e-3 if one.shape == image.shape else 1e-5)
    for band, (offset, gain) in enumerate(zip(offsets, gains, strict=True)):
        alone = degrade(image[:, [band]], (30, 45), (4.7, 4.0), offset, [gain])
        assert torch.allclose(alone, found[0][0][:, [band]], atol=1e-5)


def test_a_part_is_interpolated_as_the_whole_is():
    _, ms, sensor_model, _ = scene(3, 3.7)
    part = Window(16, 40, 56, 96)
    assert torch.allclose(
        Expansion(ms, 200, sensor_model)(part), part.crop(to_pan(ms, (200, 200), sensor_model)), atol=1e-6
    )


FREE = {"view", "_unsafe_view", "slice", "select", "permute", "transpose", "t", "expand", "unsqueeze", "unbind",
        "alias", "narrow", "chunk", "numpy_T", "detach", "detach_",
        "split", "as_strided", "squeeze", "empty", "new_empty", "empty_like", "lift_fresh",
        "_reshape_alias"}  # fmt: skip
"""Operators that launch nothing."""
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "item"}
"""Operators that wait until the device is done."""


class Operators(TorchDispatchMode):
    """Counts what a device is asked to do, views left out."""

    def __init__(self):
        super().__init__()
        self.count, self.waits = Counter(), []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().split("::")[1].split(".")[0]
        boolean = name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1])
        if name in WAITING or boolean:
            self.waits.append(func.name())
        if name not in FREE:
            self.count[name] += 1
        return func(*args, **(kwargs or {}))


def shipped():
    return load(bundled_weights())[0].channels_last()


@pytest.mark.parametrize(
    ("size", "intensity", "most"),
    [(512, None, 325), (1024, None, 325), (512, Intensity((0.25,) * 4, (0.9,) * 4, 0.02, 0.1), 350)],
)
def test_a_window_in_one_piece_takes_few_operators_whatever_its_size(size, intensity, most, monkeypatch):
    monkeypatch.setattr(resample, "_in_blocks", lambda _: False)
    monkeypatch.setattr(filters, "_by_additions", lambda _: False)
    monkeypatch.setattr(layers, "upsample2", lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"))
    for module in ("encoder", "head"):
        monkeypatch.setattr(f"crossdiff_cli.inference.{module}.upsample2", layers.upsample2)
    spectrum = Spectrum(torch.linspace(450, 850, 4), torch.full((4,), 60.0), PAN_NM, 4.0)
    gains = (0.34, 0.32, 0.30, 0.22)
    sensor_model = SensorModel(GridMapping((4.0, 4.0), (0.0, 0.0)), gains, (0.1,) * 4, 0.1, intensity=intensity)
    bound, _ = bind(shipped(), spectrum, sensor_model.nyquist_gains, CPU, torch.float32, "whole")
    pan, ms = torch.randn(1, 1, size, size), torch.randn(1, 4, size // 4, size // 4)
    with torch.inference_mode():
        bound.fuse(pan, ms, sensor_model, Window(184, 184, 120, 120), 2)  # makes the plans
        with Operators() as operators:
            bound.fuse(pan, ms, sensor_model, Window(184, 184, 120, 120), 2)
    assert 20 < operators.count["conv2d"] + operators.count["_convolution_pointwise_"] < 40
    assert operators.count["addmm"] + operators.count["linear"] == 0  # no wavelengths, no conditioning vector
    assert operators.count["matmul"] < 25
    assert operators.count["index"] + operators.count["matmul"] + operators.count["flatten"] < 75
    assert sum(operators.count.values()) < most
    assert operators.waits == []


@pytest.mark.parametrize("radius", [1, 2, 5])
def test_pooling_is_the_mean_by_additions(radius, monkeypatch):
    image = torch.randn(2, 3, 17, 23)
    by_additions = filters.local_mean(image, radius)
    monkeypatch.setattr(filters, "_by_additions", lambda _: False)
    assert torch.allclose(filters.local_mean(image, radius), by_additions, atol=1e-5)
    inside = image[0, 0, 8 - radius : 9 + radius, 9 - radius : 10 + radius].mean()
    assert torch.allclose(by_additions[0, 0, 8, 9], inside, atol=1e-5)


def test_resampling_of_a_window_is_a_few_operators(monkeypatch):
    monkeypatch.setattr(resample, "_in_blocks", lambda _: False)
    image, gains = torch.randn(1, 4, 1024, 1024), (0.34, 0.32, 0.30, 0.22)
    expand(image[..., :256, :256], (1024, 1024), (4.0, 4.0), (0.0, 0.0))
    degrade(image, (256, 256), (4.0, 4.0), (0.0, 0.0), gains)
    with torch.inference_mode(), Operators() as operators:
        small = degrade(image, (256, 256), (4.0, 4.0), (0.0, 0.0), gains)
        expand(small, (1024, 1024), (4.0, 4.0), (0.0, 0.0))
    assert operators.count["matmul"] == 4
    assert sum(operators.count.values()) < 14


def test_a_tile_waits_for_the_device_at_its_end_alone():
    """Holes, fill and saturation included: nothing asks a tensor for its value before the last copy."""
    rng = np.random.default_rng(0)
    size = 512
    patch = Patch(
        rng.normal(500, 100, (1, size, size)).astype("float32"), np.ones((size, size), bool),
        rng.normal(500, 100, (4, size // 4, size // 4)).astype("float32"), np.ones((size // 4, size // 4), bool),
        (0.0, 0.0), (4.0, 4.0), Window(0, 0, size, size),
    )  # fmt: skip
    patch.pan_mask[200:220, 190:300] = False
    patch.ms_mask[50:60, 60:70] = False
    gains = (0.34, 0.32, 0.30, 0.22)
    bound_scene = BoundScene(
        order=(0, 1, 2, 3),
        path="pan.tif",
        spectrum=Spectrum(torch.linspace(450, 850, 4), torch.full((4,), 60.0), PAN_NM, 4.0),
        normalisation=Normalisation(500.0, 100.0, torch.full((4,), 500.0), torch.full((4,), 100.0)),
        nyquist_gains=gains,
        sensor_model=lambda _: SensorModel(
            GridMapping((4.0, 4.0), (0.0, 0.0)),
            gains,
            (0.1,) * 4,
            0.1,
            (3.0,) * 4,
            Intensity((0.25,) * 4, (0.9,) * 4, 0.02, 0.1),
        ),
        output=OutputPixels((2, 0), "uint16", 0.0),
    )
    worker = DeviceWorker(shipped(), bound_scene, CPU, torch.float32, 2)
    core = Window(STRIDE * 23, STRIDE * 23, 128, 128)
    worker.fuse(Tile(core, patch.window), patch)  # makes the plans
    with Operators() as operators:
        tile = worker.fuse(Tile(core, patch.window), patch)
    assert operators.waits == []
    assert tile.data.shape == (2, 128, 128)
    assert tile.data.dtype == np.uint16
    assert ((tile.data == 0).all(axis=0) == ~patch.valid[core.slices()]).all()
    assert 0 < (tile.data == 0).mean() < 1
    assert 300 < tile.data[tile.data > 0].mean() < 700


def test_the_model_knows_nothing_of_how_it_is_computed():
    """No gradient mode, device or autocast is asked for in `model/` and `imaging/`."""
    asked = {"is_grad_enabled", "is_cuda", "is_inference_mode_enabled", "is_autocast_enabled"}
    for room in ("model", "imaging"):
        for path in (Path(crossdiff_cli.__file__).parent / room).glob("*.py"):
            names = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
            assert not names & asked, path
