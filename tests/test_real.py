"""The real pairs, when CROSSDIFF_DATA points to them: every one sharpens, on the PAN grid, with its detail."""

import numpy as np
import pytest
import rasterio
import torch
from conftest import changed, sharpen_options
from rasterio.transform import Affine
from scipy import ndimage

from crossdiff_cli.geometry.grid import map_grids, same_bounds
from crossdiff_cli.io.open_pair import open_pair
from crossdiff_cli.options import DegradeOptions, PairOptions
from crossdiff_cli.quality.baselines import BASELINES
from crossdiff_cli.tasks.degrade import degrade
from crossdiff_cli.tasks.sharpen import sharpen

pytestmark = pytest.mark.slow


def high_pass(image: np.ndarray) -> np.ndarray:
    return image - ndimage.gaussian_filter(image, 3)


def mtf_glp_correlation(pan: str, ms: str, visible: list[int]) -> float:
    """What MTF-GLP reaches on the same pair, by the baseline of the quality room."""
    with rasterio.open(pan) as p, rasterio.open(ms) as m:
        images = [torch.from_numpy(file.read().astype(float)) for file in (p, m)]
        grid = map_grids(p.transform, m.transform, m.shape) if p.crs else same_bounds(p.shape, m.shape)
    gains = [0.3] * len(images[1])
    fused = BASELINES["MTF-GLP-FS"](*images, grid.ratio, grid.offset, gains, None)
    detail = high_pass(fused[visible].mean(dim=0).numpy())[20:-20, 20:-20]
    return float(np.corrcoef(detail.ravel(), high_pass(images[0][0].numpy())[20:-20, 20:-20].ravel())[0, 1])


def correlation_of_the_truth(pan, ms, visible, pair, folder):
    """What of the PAN's detail these bands have: MTF-GLP's share, by what the truth has of that one ratio down."""
    made = degrade(pan, [ms], folder, DegradeOptions(pair=pair, overwrite=True))
    with rasterio.open(made.reference) as truth, rasterio.open(made.pan) as source:
        detail, seen = (high_pass(data)[20:-20, 20:-20].ravel() for data in (
            truth.read()[visible].astype(float).mean(axis=0), source.read(1).astype(float)
        ))  # fmt: skip
    true = float(np.corrcoef(detail, seen)[0, 1])
    return mtf_glp_correlation(pan, ms, visible) * true / mtf_glp_correlation(made.pan, made.ms, visible)


def test_every_pair_sharpens(real_pairs, tmp_path):
    folder, index = real_pairs
    options = sharpen_options(device="cpu")
    seen = set()
    for item in index:
        if item["sensor"] == "l7" and "l7" in seen:
            continue
        seen.add(item["sensor"])
        pan, ms = (str(folder / item["files"][name]) for name in ("pan", "ms"))
        out = tmp_path / "out.tif"
        pair = PairOptions(sensor=item["sensor"], bands=tuple(item["bands"]))
        result = sharpen(pan, [ms], out, changed(options, pair=pair, overwrite=True))
        with rasterio.open(out) as fused, rasterio.open(pan) as source:
            data = fused.read().astype(float)
            mask = fused.dataset_mask() > 0
            assert fused.count == len(item["bands"]), item["name"]
            assert fused.dtypes[0] == item["ms_dtype"], item["name"]
            if item["georeferenced"]:
                shift = ~source.transform @ fused.transform
                row, col = round(shift.f), round(shift.c)
                assert abs(shift.f - row) + abs(shift.c - col) < 1e-6, item["name"]
                assert fused.crs == source.crs
            else:
                row = col = 0
            pan_data = source.read(1).astype(float)[row : row + fused.height, col : col + fused.width]
        inner = ndimage.binary_erosion(mask, iterations=12)
        visible = [i for i, b in enumerate(item["bands"]) if b in ("G", "R")]
        detail = high_pass(data[visible].mean(axis=0))[inner]
        correlation = np.corrcoef(detail, high_pass(pan_data)[inner])[0, 1]
        if correlation <= 0.6:  # a noisy PAN that sees the near-infrared, clouds that moved
            wanted = correlation_of_the_truth(pan, ms, visible, pair, tmp_path / "wald")
            assert correlation > 0.9 * wanted, (item["name"], correlation, wanted)
        assert result.consistency < 0.12, (item["name"], result.consistency)
    assert len(seen) >= 10


@pytest.mark.parametrize("driver", ["GTiff", "COG"])
def test_a_part_of_every_georeferenced_pair_lies_on_the_pan_grid(real_pairs, tmp_path, untrained_weights, driver):
    folder, index = real_pairs
    pairs = [item for item in index if item["georeferenced"]]
    for item in pairs:
        pan, ms = (str(folder / item["files"][name]) for name in ("pan", "ms"))
        out = tmp_path / f"{item['name']}.tif"
        with rasterio.open(pan) as source:
            crs, grid = source.crs, source.transform
            row, col = source.height // 2 - 33, source.width // 2 - 17
        # A quarter of a pixel beyond the window on every side: no other pixel's centre lies within.
        (left, top), (right, bottom) = grid @ (col - 0.25, row - 0.25), grid @ (col + 70.25, row + 51.25)
        options = sharpen_options(
            pair=PairOptions(sensor=item["sensor"], bands=tuple(item["bands"])),
            bounds=(left, bottom, right, top), weights=untrained_weights, tile=256, precision="fp32", device="cpu",
            driver=driver,
        )  # fmt: skip
        sharpen(pan, [ms], out, options)
        with rasterio.open(out) as fused:
            assert fused.crs == crs and fused.crs.to_wkt() == crs.to_wkt(), item["name"]
            assert fused.shape == (51, 70), item["name"]
            on_grid = ~grid @ fused.transform
            assert on_grid.almost_equals(Affine.translation(col, row), precision=1e-6), item["name"]
            assert fused.transform.to_gdal()[1:3] == grid.to_gdal()[1:3], item["name"]
            assert fused.transform.to_gdal()[4:] == grid.to_gdal()[4:], item["name"]
    assert len(pairs) >= 8
    assert len({item["sensor"] for item in pairs}) >= 4


def test_measured_shifts_agree_with_the_index(real_pairs):
    """The index measured the shifts independently, by exhaustive search."""
    from crossdiff_cli.estimate.survey import survey

    folder, index = real_pairs
    checked = 0
    for item in index:
        sizes = item["shapes"]
        integer = all(p % m == 0 for p, m in zip(sizes["pan"][1:], sizes["ms"][1:], strict=True))
        if item["sensor"] == "l7" or not integer or item["highpass_correlation"] < 0.95:
            continue
        pan, ms = (str(folder / item["files"][name]) for name in ("pan", "ms"))
        with open_pair(pan, [ms], PairOptions(sensor=item["sensor"], bands=tuple(item["bands"]))) as pair:
            found = survey(pair.sample_windows(), pair.grid, pair.bands).registration.shift
        x, y = item["residual_shift_pan_px"]
        assert found[1] == pytest.approx(x, abs=0.3), item["name"]
        assert found[0] == pytest.approx(y, abs=0.5), item["name"]
        checked += 1
    assert checked >= 12
