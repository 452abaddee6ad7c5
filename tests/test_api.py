"""The public Python interface: arrays as files, kinds and masks kept, and a host that is left as it was."""

import json
import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

import crossdiff_cli as cd
from crossdiff_cli.errors import OptionError

EXAMPLES = Path(__file__).parents[1] / "examples"
FOUR = {"sensor": "vhr", "bands": ("B", "G", "R", "NIR")}


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    coarse = rng.normal(size=(4, 40, 40)).cumsum(1).cumsum(2)
    ms = (600 + 20 * coarse / coarse.std(axis=(1, 2), keepdims=True) * 5).clip(50, 2000).astype(np.uint16)
    pan = ms.mean(axis=0).repeat(4, 0).repeat(4, 1) + rng.normal(0, 15, (160, 160))
    return pan.astype(np.uint16), ms


def test_each_public_name_is_there_after_every_module_is_imported():
    for module in pkgutil.walk_packages(cd.__path__, "crossdiff_cli."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    for name in cd.__all__:
        assert callable(getattr(cd, name)), name
    with pytest.raises(AttributeError, match="no attribute 'pansharpen'"):
        _ = cd.pansharpen


def test_arrays_are_fused_as_files_are(tmp_path):
    cd.sharpen(EXAMPLES / "pan.tif", EXAMPLES / "ms.tif", tmp_path / "out.tif")
    with rasterio.open(EXAMPLES / "pan.tif") as pan, rasterio.open(EXAMPLES / "ms.tif") as ms:
        inverse = ~pan.transform @ ms.transform
        described = cd.describe(EXAMPLES / "pan.tif", EXAMPLES / "ms.tif")
        fused = cd.fuse(
            pan.read(1), ms.read(), sensor=described["sensor"], bands=tuple(described["bands"]),
            ratio=(inverse.e, inverse.a), offset=(inverse.f, inverse.c),
        )  # fmt: skip
    with rasterio.open(tmp_path / "out.tif") as file:
        assert fused.dtype == file.dtypes[0]
        assert np.array_equal(fused, file.read())


def test_the_kind_of_the_ms_is_kept(arrays):
    pan, ms = arrays
    fused = cd.fuse(pan, ms, **FOUR)
    assert (type(fused), fused.dtype, fused.shape) == (np.ndarray, np.uint16, (4, 160, 160))
    tensor = cd.fuse(torch.from_numpy(pan.astype(np.float32)), torch.from_numpy(ms.astype(np.float32)), **FOUR)
    assert (tensor.dtype, tuple(tensor.shape)) == (torch.float32, fused.shape)
    assert np.abs(tensor.numpy() - fused).max() <= 1


def test_missing_pixels_stay_missing(arrays):
    pan, ms = arrays
    mask = np.zeros(ms.shape, bool)
    mask[:, :10, :10] = True
    fused = cd.fuse(pan, np.ma.MaskedArray(ms, mask), **FOUR)
    assert isinstance(fused, np.ma.MaskedArray)
    assert fused.mask[:, :40, :40].all()
    assert not fused.mask[:, 48:, 48:].any()
    holes = np.where(mask, np.nan, ms).astype(np.float32)
    found = cd.fuse(pan.astype(np.float32), holes, **FOUR)
    assert np.array_equal(np.isnan(found), fused.mask)


def test_wrong_shapes_are_refused(arrays):
    pan, ms = arrays
    with pytest.raises(OptionError) as caught:
        cd.fuse(pan[None], ms)
    assert "(1, 160, 160)" in caught.value.found
    for image, found in ((ms.astype(np.float16), "float16"), (ms[:, :0], "(4, 0, 40)")):
        with pytest.raises(OptionError) as caught:
            cd.fuse(pan, image)
        assert found in caught.value.found
    with pytest.raises(OptionError):
        cd.fuse(torch.zeros(8, 8, dtype=torch.bfloat16), torch.zeros(4, 2, 2, dtype=torch.bfloat16))


def test_output_options_do_not_change_the_shape(arrays):
    pan, ms = arrays
    options = cd.SharpenOptions(output=cd.OutputOptions(bounds=(500_000, 4_999_900, 500_050, 5_000_000), bands=("R",)))
    assert cd.fuse(pan, ms, **FOUR, options=options).shape == (4, 160, 160)


def test_files_are_degraded_and_assessed(tmp_path):
    pair = cd.degrade(EXAMPLES / "pan.tif", [EXAMPLES / "ms.tif"], tmp_path / "wald")
    cd.sharpen(pair.pan, pair.ms, tmp_path / "sharp.tif")
    report = cd.assess(tmp_path / "sharp.tif", pair.pan, pair.ms, pair.reference)
    assert 0 < report.ergas < 6
    assert 0.8 < report.hqnr < 1


def test_the_network_is_loaded_by_name_and_by_path():
    first, second = (cd.load_model(w).state_dict() for w in ("open", EXAMPLES.parent / "weights/crossdiff.safetensors"))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


HOST = """
import json, logging, signal, sys, warnings
import numpy as np, rasterio, torch
import crossdiff_cli as cd
def state():
    return [str(signal.getsignal(s)) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] + [
        str(sys.excepthook), str(warnings.filters), str(logging.root.handlers), logging.root.level,
        str(logging.getLogger("crossdiff_cli").handlers), str(torch.random.get_rng_state().tolist()),
        str(np.random.get_state()), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(), torch.is_grad_enabled(), str(torch.get_default_dtype()),
        str(rasterio._env.get_gdal_config("GDAL_CACHEMAX")), rasterio.env.hasenv()]
cd.load_model
torch.manual_seed(5)
before = state()
pan = np.arange(160 * 160, dtype=np.uint16).reshape(160, 160) % 701 + 100
ms = np.arange(4 * 40 * 40, dtype=np.uint16).reshape(4, 40, 40) % 599 + 100
cd.fuse(pan, ms, sensor="vhr", bands=("B", "G", "R", "NIR"))
after = state()
print(json.dumps([[b, a] for b, a in zip(before, after) if b != a]))
"""


def test_a_call_leaves_its_host_as_it_was():
    done = subprocess.run([sys.executable, "-c", HOST], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
    assert "it/s" not in done.stderr


def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((EXAMPLES / "notebook.ipynb").read_text(encoding="utf-8"))
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    namespace = {"EXAMPLES": EXAMPLES}
    for cell in code:
        exec(compile(cell.replace('Path("examples")', "EXAMPLES"), "notebook", "exec"), namespace)
    assert namespace["report"].hqnr > 0.8
    assert namespace["fused"].shape[0] == 4
