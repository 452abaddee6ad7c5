"""Generated geometries: whatever the grids, types and masks, the result lies on the PAN grid and is masked as it must.

A hundred in the suite; `CROSSDIFF_GEOMETRIES=2000 pytest -s tests/test_geometry_property.py` (or
`benchmarks/geometry.py`) for more, with their count. The oracle is rasterio reopening the result and plain geometry of
pixel centres.
"""

import math
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio
from conftest import sharpen_options, write_raster
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from rasterio.transform import Affine

from crossdiff_cli.errors import SceneError
from crossdiff_cli.options import PairOptions
from crossdiff_cli.tasks.sharpen import sharpen

COUNT = int(os.environ.get("CROSSDIFF_GEOMETRIES", "100"))
DTYPES = ("uint8", "uint16", "int16", "uint32", "int32", "float32", "float64")
NAMES = ("B", "G", "R", "NIR", "RE")
EDGE = 1e-3
"""PAN pixels: centres nearer than this to the border of an MS pixel may fall on either side."""


@dataclass(frozen=True)
class Geometry:
    """One pair; offsets and sizes in PAN pixels."""

    pan_shape: tuple[int, int]
    ratio: float
    offset: tuple[float, float]
    """Row and column of the outer corner of the MS on the PAN grid."""
    cover: tuple[float, float]
    """Rows and columns of the MS, as a share of the PAN's."""
    pixel: float
    turn: float
    """Degrees by which both grids are turned."""
    south_up: bool
    dtype: str
    bands: int
    mask: str
    """none, nodata, nan or mask: how a hole in both images is marked."""
    separate: bool
    extent: str
    flat: bool
    seed: int

    @property
    def ms_shape(self) -> tuple[int, int]:
        rows, cols = (max(2, round(c * n / self.ratio)) for c, n in zip(self.cover, self.pan_shape, strict=True))
        return rows, cols

    @property
    def pan_grid(self) -> Affine:
        place = Affine.translation(500000, 5000000) @ Affine.rotation(self.turn)
        return place @ Affine.scale(self.pixel, self.pixel if self.south_up else -self.pixel)

    @property
    def ms_grid(self) -> Affine:
        return self.pan_grid @ Affine.translation(self.offset[1], self.offset[0]) @ Affine.scale(self.ratio)


def mask_kinds(dtype: str) -> list[str]:
    return ["none", "nodata", "mask", *(["nan"] if dtype.startswith("float") else [])]


@st.composite
def geometries(draw: Callable[..., object]) -> Geometry:
    side = st.integers(24, 110) | st.integers(250, 270)
    ratio = draw(st.sampled_from([2.0, 3.0, 4.0, 6.0]) | st.floats(1.5, 6.0))
    shift = st.sampled_from([0.0, ratio / 2, -ratio, 0.5]) | st.floats(-3 * ratio, 3 * ratio) | st.floats(-200, 200)
    dtype = draw(st.sampled_from(DTYPES))
    return Geometry(
        pan_shape=(draw(side), draw(side)),
        ratio=ratio,
        offset=(draw(shift), draw(shift)),
        cover=(draw(st.floats(0.3, 1.5)), draw(st.floats(0.3, 1.5))),
        pixel=draw(st.sampled_from([0.31, 0.5, 1.0, 15.0])),
        turn=draw(st.sampled_from([0.0, 0.0, 0.0, 17.0, -90.0])),
        south_up=draw(st.sampled_from([False, False, False, True])),
        dtype=dtype,
        bands=draw(st.integers(1, 5)),
        mask=draw(st.sampled_from(mask_kinds(dtype))),
        separate=draw(st.booleans()),
        extent=draw(st.sampled_from(["intersection", "intersection", "pan"])),
        flat=draw(st.booleans()),
        seed=draw(st.integers(0, 2**16)),
    )


def images(g: Geometry) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """PAN (1, H, W), MS (bands, h, w) and their masks."""
    rng = np.random.default_rng(g.seed)
    top = 250 if g.dtype == "uint8" else 900
    levels = rng.integers(20, top, g.bands)
    pan = np.full((1, *g.pan_shape), float(rng.integers(20, top)))
    ms = np.broadcast_to(levels[:, None, None], (g.bands, *g.ms_shape)).astype(float)
    if not g.flat:
        pan, ms = (np.clip(x + rng.normal(0, 20, x.shape), 8, top) for x in (pan, ms))
    masks = []
    for shape in (g.pan_shape, g.ms_shape):
        valid = np.ones(shape, bool)
        if g.mask != "none":
            row, col = (int(rng.integers(0, n)) for n in shape)
            valid[row : row + max(1, shape[0] // 4), col : col + max(1, shape[1] // 4)] = False
        masks.append(valid)
    kind = np.dtype(g.dtype)
    pan, ms = ((np.rint(x) if kind.kind in "ui" else x).astype(kind) for x in (pan, ms))
    return pan, ms, masks[0], masks[1]


def write_image(g: Geometry, path: Path, data: np.ndarray, valid: np.ndarray, grid: Affine) -> str:
    hidden = {"nodata": 7, "nan": np.nan, "mask": 33}.get(g.mask)
    if hidden is not None:
        data = data.copy()
        data[:, ~valid] = hidden
    nodata = {"nodata": 7, "nan": float("nan")}.get(g.mask)
    name = write_raster(path, data, grid, **({} if nodata is None else {"nodata": nodata}))
    if g.mask == "mask":
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
            file.write_mask(np.where(valid, 255, 0).astype("uint8"))
    return name


def write_pair(g: Geometry, folder: Path) -> tuple[str, list[str]]:
    pan, ms, pan_mask, ms_mask = images(g)
    pan_file = write_image(g, folder / "pan.tif", pan, pan_mask, g.pan_grid)
    if not g.separate:
        return pan_file, [write_image(g, folder / "ms.tif", ms, ms_mask, g.ms_grid)]
    names = []
    for i in range(g.bands):
        names.append(write_image(g, folder / f"ms{i}.tif", ms[i : i + 1], ms_mask, g.ms_grid))
    return pan_file, names


def index_of(g: Geometry, axis: int, nudge: float) -> np.ndarray:
    """MS index under each PAN centre on an axis, by the two geotransforms, the centre moved by `nudge` PAN pixels."""
    back = ~g.ms_grid @ g.pan_grid
    centres = np.arange(g.pan_shape[axis]) + 0.5 + nudge
    found = [(back @ ((0.5, c) if axis == 0 else (c, 0.5)))[1 - axis] for c in centres]
    return np.floor(found).astype(int)


def expected(g: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of the whole PAN grid that are valid for sure, and those that may be: centres may fall on an edge."""
    nudged = [_nudged(g, row, col) for row in (EDGE, -EDGE) for col in (EDGE, -EDGE)]
    return np.logical_and.reduce(nudged), np.logical_or.reduce(nudged)


def _nudged(g: Geometry, row: float, col: float) -> np.ndarray:
    _, _, pan_mask, ms_mask = images(g)
    rows, cols = index_of(g, 0, row), index_of(g, 1, col)
    inside = [(i >= 0) & (i < n) for i, n in zip((rows, cols), ms_mask.shape, strict=True)]
    picked = ms_mask[np.ix_(np.clip(rows, 0, ms_mask.shape[0] - 1), np.clip(cols, 0, ms_mask.shape[1] - 1))]
    return picked & pan_mask & inside[0][:, None] & inside[1]


def check_refusal(g: Geometry, message: str) -> None:
    sure, _ = expected(g)
    if "do not overlap" in message:
        assert not sure.any()
    else:
        assert "no valid pixel in common" in message, message
        whole = sure.any(axis=1).sum() / g.ratio, sure.any(axis=0).sum() / g.ratio
        assert min(whole) < 12 or sure.mean() < 0.25, message


def check_result(g: Geometry, path: Path) -> None:
    with rasterio.open(path) as file:
        data, mask, grid = file.read(), file.dataset_mask() > 0, file.transform
        assert file.crs.to_epsg() == 32633
        assert set(file.dtypes) == {g.dtype}
        assert file.descriptions == NAMES[: g.bands]
        never_masked = g.mask == "none" and g.dtype[0] != "f" and (g.extent == "intersection" or mask.all())
        assert (file.nodata is None) == never_masked
    to_pan = ~g.pan_grid @ grid
    assert to_pan.almost_equals(Affine.translation(round(to_pan.c), round(to_pan.f)), precision=1e-5)
    row, col = round(to_pan.f), round(to_pan.c)
    if g.extent == "pan":
        assert (row, col, mask.shape) == (0, 0, g.pan_shape)
    where = np.zeros(g.pan_shape, bool)
    where[row : row + mask.shape[0], col : col + mask.shape[1]] = mask
    sure, possible = expected(g)
    assert (where >= sure).all()
    assert (where <= possible).all()
    if g.extent == "intersection":
        footprint = [np.flatnonzero(((i := index_of(g, axis, 0)) >= 0) & (i < g.ms_shape[axis])) for axis in (0, 1)]
        assert all(abs(len(f) - n) <= 1 for f, n in zip(footprint, mask.shape, strict=True))
    assert np.isfinite(data[:, mask]).all()
    if g.flat:
        level = images(g)[1].astype(float)[:, *np.argwhere(images(g)[3])[0]]
        assert np.abs(data[:, mask] - level[:, None]).max() <= (0.05 if g.dtype[0] == "f" else 0)


def test_generated_geometries(tmp_path_factory, untrained_weights, small_weights):
    became: Counter[str] = Counter()

    @settings(
        max_examples=COUNT, deadline=None, derandomize=COUNT <= 100, database=None,
        suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink],
    )  # fmt: skip
    @given(geometries())
    def run(g: Geometry) -> None:
        folder = tmp_path_factory.mktemp("geometry")
        pan, ms = write_pair(g, folder)
        options = sharpen_options(
            pair=PairOptions(sensor="vhr", bands=NAMES[: g.bands]), extent=g.extent, tile=256, device="cpu",
            weights=untrained_weights if g.flat else small_weights, precision="fp32",
        )  # fmt: skip
        try:
            sharpen(pan, ms, folder / "out.tif", options)
        except SceneError as error:
            became["refused"] += 1
            assert not [path for path in folder.iterdir() if "out.tif" in path.name]
            check_refusal(g, str(error))
        else:
            became["sharpened"] += 1
            check_result(g, folder / "out.tif")
            (folder / "out.tif").unlink()

    run()
    print(f"\n{became.total()} geometries: {became['sharpened']} sharpened, {became['refused']} refused with reason")
    assert became["sharpened"] > became["refused"] > 0


@pytest.mark.parametrize("turn", [0.5, 3.0, 180.0])
def test_an_ms_turned_against_the_pan_is_warped_to_its_grid(tmp_path, untrained_weights, turn):
    g = Geometry((96, 96), 4.0, (0, 0), (1, 1), 0.5, 0, False, "float32", 2, "none", False, "intersection", True, 3)
    pan, ms, _, _ = images(g)
    about = Affine.rotation(turn, (g.ms_shape[1] / 2, g.ms_shape[0] / 2))
    files = (
        write_raster(tmp_path / "pan.tif", pan, g.pan_grid),
        write_raster(tmp_path / "ms.tif", ms, g.ms_grid @ about),
    )
    options = sharpen_options(pair=PairOptions(sensor="vhr", bands=("B", "G")), weights=untrained_weights, tile=256)
    sharpen(files[0], [files[1]], tmp_path / "out.tif", options)
    with rasterio.open(tmp_path / "out.tif") as file:
        data, mask = file.read(), file.dataset_mask() > 0
        to_pan = ~g.pan_grid @ file.transform
        assert to_pan.almost_equals(Affine.translation(round(to_pan.c), round(to_pan.f)), precision=1e-5)
    middle = mask.shape[0] // 2
    assert mask[middle - 20 : middle + 20, middle - 20 : middle + 20].all()
    assert np.abs(data[:, mask] - ms[:, 0, 0, None]).max() < 0.05
    reach = math.hypot(1, 1) * 48 * (math.cos(math.radians(45 - turn % 90)))
    assert mask.sum() <= (2 * reach) ** 2
