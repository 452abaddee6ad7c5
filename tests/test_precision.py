"""Inference states the precision of every step: it does not depend on the rules by which a device casts."""

import ast
import json
import os
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import torch.nn.functional as F
from conftest import sharpen_options, small_model
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

import crossdiff_cli
from crossdiff_cli.geometry.grid import GridMapping
from crossdiff_cli.geometry.window import Window
from crossdiff_cli.imaging.sensor_model import SensorModel
from crossdiff_cli.inference.strips import StripNetwork
from crossdiff_cli.model.spectral import Spectrum
from crossdiff_cli.model.weights import load
from crossdiff_cli.options import PairOptions
from crossdiff_cli.system.weight_files import bundled_weights
from crossdiff_cli.tasks.sharpen import sharpen

GAINS = (0.34, 0.32, 0.30, 0.22)
SPECTRUM = Spectrum(
    torch.tensor([480.0, 545.0, 672.0, 850.0]),
    torch.tensor([60.0, 70.0, 35.0, 140.0]),
    torch.tensor([450.0, 800.0]),
    4.0,
)
FLOAT32_ON_CUDA = {
    F.interpolate, torch.linalg.vector_norm, torch.norm, torch.exp, torch.Tensor.exp, torch.pow, torch.Tensor.pow,
    torch.sum, torch.Tensor.sum, torch.rsqrt, torch.Tensor.rsqrt, torch.cumsum, torch.prod, F.softplus, F.layer_norm,
}  # fmt: skip
"""Operators that CUDA's autocast runs in float32 and the CPU's does not."""
DATA = os.environ.get("CROSSDIFF_DATA")


class CudaAutocast(TorchFunctionMode):
    """Imitates CUDA's autocast on the CPU: the operators of its float32 list answer in float32."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in FLOAT32_ON_CUDA and torch.is_autocast_enabled("cpu"):

            def raised(value):
                return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value

            with torch.autocast("cpu", enabled=False):
                return func(*tree_map(raised, args), **tree_map(raised, kwargs or {}))
        return func(*args, **(kwargs or {}))


def window():
    generator = torch.Generator().manual_seed(0)
    pan = F.avg_pool2d(torch.randn(1, 1, 514, 514, generator=generator), 3, stride=1) * 2
    ms = torch.randn(1, 4, 136, 136, generator=generator)
    return pan, ms, SensorModel(GridMapping((4.0, 4.0), (-16.0, -16.0)), GAINS), Window(192, 192, 128, 128)


def shipped():
    return load(bundled_weights())[0].channels_last()


@pytest.mark.parametrize("network", [shipped, small_model], ids=["shipped", "with M2P"])
def test_bf16_agrees_with_fp32_on_any_device(network):
    model = network().eval()
    pan, ms, sensor_model, core = window()
    full, half = (StripNetwork(model, SPECTRUM, dtype) for dtype in (torch.float32, torch.bfloat16))
    with torch.inference_mode():
        exact, _ = full.fuse(pan, ms, sensor_model, core, 2)
        rounded, _ = half.fuse(pan, ms, sensor_model, core, 2)
        with CudaAutocast():
            imitated, _ = half.fuse(pan, ms, sensor_model, core, 2)
            exactly, _ = full.fuse(pan, ms, sensor_model, core, 2)
    assert exact.dtype == rounded.dtype == torch.float32
    assert 0 < float((rounded - exact).abs().max()) < 0.1
    assert float((rounded - exact).square().mean().sqrt()) < 0.01
    assert torch.equal(imitated, rounded)
    assert torch.equal(exactly, exact)


def test_no_autocast_in_the_package_but_for_training():
    for path in Path(crossdiff_cli.__file__).parent.rglob("*.py"):
        names = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        assert "autocast" not in names or path.parent.name == "training", path


@pytest.mark.skipif(DATA is None, reason="CROSSDIFF_DATA is not set")
@pytest.mark.parametrize(("weights", "most"), [("open", 4), ("all", 8)])
def test_bf16_agrees_with_fp32_on_quickbird(tmp_path, weights, most):
    folder = Path(str(DATA))
    entry = next(e for e in json.loads((folder / "index.json").read_text()) if e["name"] == "quickbird_dgif2")
    pan, ms = (str(folder / entry["files"][kind]) for kind in ("pan", "ms"))
    pair = PairOptions(sensor="qb", bands=tuple(entry["bands"]))

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a single worker, which runs in this thread: the mode below counts for a thread

    def result(precision):
        out = tmp_path / f"{precision}.tif"
        with CudaAutocast() if precision == "bf16" else nullcontext():
            file = bundled_weights(weights)
            sharpen(pan, [ms], out, sharpen_options(pair=pair, device="cpu", precision=precision, weights=file))
        with rasterio.open(out) as file:
            return file.read().astype(int)

    try:
        exact, rounded = result("fp32"), result("bf16")
    finally:
        torch.set_num_threads(threads)
    difference = np.abs(rounded - exact)
    assert difference.max() <= most
    assert (difference > 4).mean() < 1e-5
    assert difference.mean() <= 0.05
