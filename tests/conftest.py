"""Small synthetic scenes and small networks, made once; the vocabulary of the tests."""

import json
import logging
import os

if "PYTEST_XDIST_WORKER" in os.environ:  # a process per core: one thread each, in what the tests start, too
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import Affine

from crossdiff_cli.model.crossdiff import Architecture, CrossDiff
from crossdiff_cli.model.weights import save

SMALL = Architecture(widths=(8, 8, 8), blocks=(1, 1, 1), decoder_width=8, head_widths=(8, 8, 8))


@dataclass(frozen=True)
class Files:
    """Paths of a pair on disk."""

    pan: str
    ms: str


def landscape(shape: tuple[int, int], bands: int, ratio: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """PAN (1, H, W) and MS (bands, H / ratio, W / ratio) of rectangles and texture, DN of about 100 to 900."""
    rng = np.random.default_rng(seed)
    truth = np.full((bands, *shape), 300.0)
    for _ in range(shape[0] * shape[1] // 300 + 8):
        row, col = rng.integers(0, shape[0]), rng.integers(0, shape[1])
        height, width = rng.integers(2, 40, 2)
        truth[:, row : row + height, col : col + width] = rng.uniform(100, 900, (bands, 1, 1))
    truth *= 1 + 0.05 * rng.standard_normal(shape)
    pan = truth.mean(axis=0, keepdims=True)
    rows, cols = shape[0] // ratio, shape[1] // ratio
    ms = truth[:, : rows * ratio, : cols * ratio].reshape(bands, rows, ratio, cols, ratio).mean(axis=(2, 4))
    return pan, ms


def write_raster(
    path: Path, data: np.ndarray, transform: Affine | None = None, crs: Any = "EPSG:32633", **profile: Any
) -> str:
    """Write (bands, rows, cols) as a GeoTIFF; without a transform it has no georeference."""
    where = {} if transform is None else {"transform": transform, "crs": crs}
    options = {"driver": "GTiff", "count": data.shape[0], "height": data.shape[1], "width": data.shape[2], **where}
    options |= {"dtype": data.dtype, "photometric": "MINISBLACK", "alpha": "NO"} | profile
    with rasterio.open(path, "w", **options) as file:
        file.write(data)
    return str(path)


@pytest.fixture(autouse=True)
def heard() -> None:
    """Undo what a quiet command of an earlier test did to the log."""
    logging.disable(logging.NOTSET)
    logging.getLogger("crossdiff_cli").setLevel(logging.NOTSET)


@pytest.fixture
def make_pair(tmp_path: Path) -> Callable[..., Files]:
    """Factory of pairs: shape of the PAN, bands, ratio, dtype, MS offset in PAN pixels, nodata, seed."""

    def make(
        shape: tuple[int, int] = (256, 256),
        bands: int = 4,
        ratio: int = 4,
        dtype: str = "uint16",
        origin: tuple[float, float] = (500000.0, 5000000.0),
        name: str = "",
        seed: int = 0,
        georeferenced: bool = True,
        edit: Callable[[np.ndarray, np.ndarray], None] | None = None,
        **profile: Any,
    ) -> Files:
        pan, ms = landscape(shape, bands, ratio, seed)
        scale = 0.25 if dtype == "uint8" else 1.0
        pan, ms = ((np.rint(x * scale) if np.dtype(dtype).kind in "ui" else x).astype(dtype) for x in (pan, ms))
        if edit is not None:
            edit(pan, ms)
        grid = Affine(0.5, 0, origin[0], 0, -0.5, origin[1]) if georeferenced else None
        coarse = None if grid is None else grid @ Affine.scale(ratio)
        return Files(
            write_raster(tmp_path / f"{name}pan.tif", pan, grid, **profile),
            write_raster(tmp_path / f"{name}ms.tif", ms, coarse, **profile),
        )

    return make


def small_model(seed: int = 0, *, trained: bool = True) -> CrossDiff:
    """A small network; `trained` gives its zero-initialised last layer random weights, so that it does something."""
    torch.manual_seed(seed)
    model = CrossDiff(SMALL).eval().requires_grad_(False)
    if trained:
        torch.nn.init.normal_(model.head.out.kernels.out.weight, std=0.05)
    return model


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weight file of a small network with a random head."""
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save(small_model(), path, {"note": "random"}, dtype=torch.float32)
    return path


@pytest.fixture(scope="session")
def untrained_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weight file of a small network whose head is untrained: MTF-GLP."""
    path = tmp_path_factory.mktemp("weights") / "untrained.safetensors"
    save(small_model(trained=False), path, {}, dtype=torch.float32)
    return path


@pytest.fixture(scope="session")
def real_pairs() -> tuple[Path, list[dict[str, Any]]]:
    """Folder and index of the real pairs; skipped where they are not present."""
    folder = os.environ.get("CROSSDIFF_DATA")
    if not folder or not (Path(folder) / "index.json").is_file():
        pytest.skip("CROSSDIFF_DATA does not point to the real pairs")
    return Path(folder), json.loads((Path(folder) / "index.json").read_text())


@pytest.fixture
def read_all() -> Callable[[Path | str], np.ndarray]:
    """Read every band of a raster."""

    def read(path: Path | str) -> np.ndarray:
        with rasterio.open(path) as file:
            return file.read()

    return read
