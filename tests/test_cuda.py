"""On a CUDA device: the same pixels as on the CPU, whatever the tiles and the streams; training runs."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import sharpen_options

from crossdiff_cli.options import AdaptOptions, PairOptions, PretrainOptions, SceneSources, TrainingOptions
from crossdiff_cli.tasks.sharpen import sharpen
from crossdiff_cli.training.run_adapt import run_adapt
from crossdiff_cli.training.run_pretrain import run_pretrain

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
FOUR = PairOptions(sensor="vhr", bands=("B", "G", "R", "NIR"))


@pytest.fixture
def result(make_pair, tmp_path, read_all):
    files = make_pair(shape=(1500, 1300))

    def one(name, **choices):
        out = tmp_path / f"{name}.tif"
        sharpen(files.pan, [files.ms], out, replace(sharpen_options(pair=FOUR), **choices))
        return read_all(out).astype(int)

    return one


def test_fp32_and_bf16_agree_with_the_cpu(result):
    exact = result("cpu", device="cpu", precision="fp32")
    assert np.abs(result("fp32", device="cuda", precision="fp32") - exact).max() <= 1
    difference = np.abs(result("bf16", device="cuda", precision="bf16") - exact)
    assert difference.max() <= 4
    assert difference.mean() <= 0.05


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_tiles_and_streams_do_not_show(result, precision):
    whole = result("auto", device="cuda", precision=precision)
    small = result("512", device="cuda", precision=precision, tile=512)
    twice = result("twice", device="cuda,cuda:0", precision=precision, tile=256)
    for other in (small, twice):
        assert np.abs(other - whole).max() <= 1
        assert (other != whole).mean() < (1e-4 if precision == "fp32" else 1e-2)


def test_adapt_and_pretrain_run(make_pair, tmp_path, small_weights):
    files = make_pair(shape=(640, 640))
    sources = SceneSources(scenes=(files.pan, files.ms), sensor="vhr", bands=FOUR.bands)
    budget = TrainingOptions(steps=20, patch=64, batch=2, groups=2, checkpoint_every=10)
    head = tmp_path / "head.safetensors"
    assert run_adapt(sources, head, AdaptOptions(budget, weights=small_weights, device="cuda")).output == head
    options = PretrainOptions(budget, weights=small_weights, device="cuda")
    assert run_pretrain(sources, tmp_path / "run", options).is_file()
