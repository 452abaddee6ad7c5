"""Small synthetic scenes and small networks, made once; the vocabulary of the tests."""

import json
import logging
import os

if "PYTEST_XDIST_WORKER" in os.environ:  # a process per core: one thread each, in what the tests start, too
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import Affine
from scipy import ndimage

from crossdiff_cli.imaging.resample import mtf_sigma
from crossdiff_cli.model.crossdiff import Architecture, CrossDiff
from crossdiff_cli.model.weights import save
from crossdiff_cli.options import PairOptions, SharpenOptions

PAN_GRID = Affine(0.5, 0, 500000, 0, -0.5, 5000000)
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


_GROUPS = {
    "estimate": ("align", "noise", "mtf"),
    "network": ("weights", "fine_tune_steps", "iterations"),
    "output": ("extent", "bounds", "bounds_crs", "dtype", "driver", "creation", "overwrite", "stac"),
    "runtime": ("device", "precision", "tile", "readers", "worker", "progress"),
}


def changed(options: SharpenOptions, **changes: Any) -> SharpenOptions:
    """The options with some settings changed, whatever group they belong to; `out_bands` are those of the output."""
    if "pair" in changes:
        options = replace(options, pair=changes.pop("pair"))
    if "out_bands" in changes:
        options = replace(options, output=replace(options.output, bands=changes.pop("out_bands")))
    for group, names in _GROUPS.items():
        own = {name: changes.pop(name) for name in names if name in changes}
        options = replace(options, **{group: replace(getattr(options, group), **own)}) if own else options
    assert not changes, changes
    return options


def sharpen_options(
    pair: PairOptions | None = None, weights: Path | None = None, device: str = "auto", precision: str = "auto",
    **changes: Any,
) -> SharpenOptions:  # fmt: skip
    """Options by the names of their settings."""
    return changed(
        SharpenOptions(pair or PairOptions()), weights=weights, device=device, precision=precision, **changes
    )


@pytest.fixture(autouse=True)
def heard() -> None:
    """Undo what a quiet command of an earlier test did to the log."""
    logging.disable(logging.NOTSET)
    logging.getLogger("crossdiff_cli").setLevel(logging.NOTSET)


BAND_OF_PAN = ((0.5, 30), (0.8, 0), (0.3, 100), (-0.4, 600))
"""Gain and offset of the bands of `shifted_pair`."""


def shifted_pair(
    folder: Path,
    shift: tuple[float, float],
    *,
    ratio: int = 4,
    hole: bool = False,
    red: tuple[float, float] = (0.0, 0.0),
    stretch: tuple[float, float] = (0.0, 0.0),
    jump: float = 0.0,
) -> tuple[str, str]:
    """A pair whose MS is sampled `shift` (rows, columns) PAN pixels away from where its geotransform says.

    The red band lies another `red` pixels away; from the middle outwards the distance grows by `stretch`; the lower
    half lies another `jump` pixels lower. Every band follows from the PAN: BAND_OF_PAN says how.
    """
    pan, _ = landscape((640, 640), 1, ratio, seed=5)
    pan = ndimage.gaussian_filter(pan[0], 0.7)
    blurred = ndimage.gaussian_filter(pan, mtf_sigma(0.3, ratio))

    def sampled(*moved: float) -> np.ndarray:
        centres = [(np.arange(640 // ratio) + 0.5) * ratio - 0.5 for _ in moved]
        centres = [c + s + g * (c - 319.5) for c, s, g in zip(centres, moved, stretch, strict=True)]
        centres[0][320 // ratio :] += jump
        return ndimage.map_coordinates(blurred, np.meshgrid(*centres, indexing="ij"), order=3, mode="nearest")

    low, lower = sampled(*shift), sampled(shift[0] + red[0], shift[1] + red[1])
    ms = np.stack([gain * (lower if band == 2 else low) + offset for band, (gain, offset) in enumerate(BAND_OF_PAN)])
    pan = pan[None].astype("float32")
    if hole:
        ms[:, 40:60, 30:90] = -1e6
        pan[:, 300:340, 100:500] = -1e6
    return (
        write_raster(folder / "pan.tif", pan, PAN_GRID, nodata=-1e6),
        write_raster(folder / "ms.tif", ms.astype("float32"), PAN_GRID @ Affine.scale(ratio), nodata=-1e6),
    )


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


def told_of_quality(model: CrossDiff) -> None:
    """Give the layers on the image quality, which begin at zero, random weights."""
    for name, weight in model.named_parameters():
        if name.endswith("quality.weight"):
            torch.nn.init.normal_(weight, std=0.3)


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
