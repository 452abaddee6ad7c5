"""What happens when the memory of the GPU or the machine is too small for a tile."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from crossdiff_cli.errors import SceneError
from crossdiff_cli.scene.pair import PairOptions, ScenePair
from crossdiff_cli.sharpen import SharpenOptions, sharpen


@pytest.fixture
def options(small_weights):
    pair = PairOptions(sensor="vhr", bands=("B", "G", "R", "NIR"))
    return SharpenOptions(pair=pair, weights=small_weights, device="cpu", precision="fp32", tile=256, quiet=True)


@pytest.mark.parametrize(
    "error", [torch.cuda.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory"), MemoryError()]
)
def test_out_of_memory_falls_back_to_a_smaller_tile(make_pair, tmp_path, options, monkeypatch, caplog, read_all, error):
    """A stand-in for a memory that holds no window of more than 700 x 700 pixels; the result is the same."""
    files, read = make_pair(shape=(520, 520)), ScenePair.read

    def read_small(pair, window):
        if window.height * window.width > 700**2:
            raise error
        return read(pair, window)

    sharpen(files.pan, [files.ms], tmp_path / "a.tif", options)
    monkeypatch.setattr(ScenePair, "read", read_small)
    with caplog.at_level(logging.WARNING):
        sharpen(files.pan, [files.ms], tmp_path / "b.tif", replace(options, tile=512))
    assert "out of memory: once more with a tile of" in caplog.text
    assert np.array_equal(read_all(tmp_path / "a.tif"), read_all(tmp_path / "b.tif"))


def test_out_of_memory_at_the_smallest_tile_is_said(make_pair, tmp_path, options, monkeypatch):
    files, out = make_pair(), tmp_path / "result" / "out.tif"
    out.parent.mkdir()

    def fail(*_):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(ScenePair, "read", fail)
    with pytest.raises(SceneError, match="out of memory at a tile of 256 pixels, the smallest"):
        sharpen(files.pan, [files.ms], out, options)
    assert list(out.parent.iterdir()) == []


def test_other_errors_are_not_taken_for_it(make_pair, tmp_path, options, monkeypatch):
    files = make_pair()

    def fail(*_):
        raise RuntimeError("a shape does not fit")

    monkeypatch.setattr(ScenePair, "read", fail)
    with pytest.raises(RuntimeError, match="a shape"):
        sharpen(files.pan, [files.ms], tmp_path / "out.tif", options)
