"""`crossdiff assess` and `quality.files`: figures of files, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner
from conftest import BAND_OF_PAN, PAN_GRID, shifted_pair, write_raster
from rasterio.transform import Affine

from crossdiff_cli.cli.main import main
from crossdiff_cli.geometry.grid import locate_on_grid
from crossdiff_cli.geometry.window import Window
from crossdiff_cli.imaging.resample import expand
from crossdiff_cli.options import PairOptions
from crossdiff_cli.quality.assess import assess_arrays
from crossdiff_cli.quality.files import JudgedFiles

GAINS = (0.30, 0.31, 0.32, 0.33)
FIGURES = ("d_lambda", "d_s", "hqnr", "qnr", "d_rho", "r_ergas", "r_sam", "r_q2n")


@pytest.fixture
def run():
    runner = CliRunner()
    return lambda *arguments: runner.invoke(main, [str(a) for a in arguments])


@pytest.fixture
def scene(make_pair, tmp_path, read_all):
    """A pair on disk and EXP of it, in float32."""
    files = make_pair()
    ms = torch.from_numpy(read_all(files.ms).astype("float32"))
    up = expand(ms[None], (256, 256), (4.0, 4.0), (0.0, 0.0))[0].numpy()
    return files, write_raster(tmp_path / "fused.tif", up, PAN_GRID), up


def arrays(files, read_all):
    return (torch.from_numpy(read_all(path).astype("float64")) for path in (files.pan, files.ms))


def test_files_score_as_their_arrays(run, scene, read_all):
    files, fused, up = scene
    done = run("assess", fused, "--pan", files.pan, "--ms", files.ms, "--sensor", "qb", "--json")
    assert done.exit_code == 0, done.output
    got = json.loads(done.stdout)
    pan, ms = arrays(files, read_all)
    with JudgedFiles(fused, files.pan, [files.ms], options=PairOptions(sensor="qb")) as opened:
        gains = opened.judged.gains
    expected = assess_arrays(torch.from_numpy(up), pan, ms, 4, (0, 0), gains).as_dict()
    for name in FIGURES:
        assert got[name] == pytest.approx(expected[name], abs=1e-9), name
    assert got["sensor"] == "qb"
    assert got["bands"] == ["B", "G", "R", "NIR"]
    assert got["trained_on"] == []
    assert got["per_band"][2] == pytest.approx(expected["bands"][2], abs=1e-9)
    table = run("assess", fused, "--pan", files.pan, "--ms", files.ms, "--sensor", "qb").stdout
    assert f"{expected['hqnr']:.4f}" in table


def test_the_truth_is_judged_where_the_ms_really_lies(run, tmp_path, read_all):
    """Bands that follow the PAN exactly: nominally they seem to leave the MS, where the MS lies they do not."""
    pan, ms = shifted_pair(tmp_path, (1.3, -0.9), stretch=(0.003, -0.002))
    truth = np.concatenate([gain * read_all(pan) + offset for gain, offset in BAND_OF_PAN])
    result = write_raster(tmp_path / "truth.tif", truth.astype("float32"), PAN_GRID)
    arguments = ["assess", result, "--pan", pan, "--ms", ms, "--sensor", "vhr", "--bands", "B,G,R,NIR", "--json"]
    nominal, there = (json.loads(run(*arguments, "--align", align).stdout) for align in ("off", "auto"))
    assert there["r_ergas"] < 0.2 * nominal["r_ergas"]
    assert there["hqnr"] > nominal["hqnr"] + 0.01
    assert there["d_lambda"] < 0.2 * nominal["d_lambda"]


def test_a_crop_of_the_pan_grid_is_placed_by_its_geotransform(scene, tmp_path, read_all):
    files, _, up = scene
    crop = write_raster(tmp_path / "crop.tif", up[:, 64:, 32:224], PAN_GRID @ Affine.translation(32, 64))
    pan, ms = arrays(files, read_all)
    with JudgedFiles(crop, files.pan, [files.ms], crop) as opened:
        assert opened.extent == Window(64, 32, 192, 192)
        got, gains = opened.report(), opened.judged.gains
    # What lies beyond the crop is known to the interpolation of the MS, so only figures without it are equal.
    expected = assess_arrays(
        torch.from_numpy(up[:, 64:, 32:224]), pan[:, 64:, 32:224], ms[:, 16:, 8:56], 4, (0, 0), gains
    )
    assert got.d_rho == pytest.approx(expected.d_rho, abs=1e-9)
    assert got.r_ergas == pytest.approx(expected.r_ergas, abs=1e-6)
    assert got.sam == 0
    assert got.q2n == pytest.approx(1)


def test_a_result_beyond_the_pan_counts_where_they_overlap(scene, tmp_path):
    files, _, up = scene
    wide = np.pad(up, ((0, 0), (8, 0), (0, 8)))
    path = write_raster(tmp_path / "wide.tif", wide, PAN_GRID @ Affine.translation(0, -8))
    with JudgedFiles(path, files.pan, [files.ms]) as opened:
        assert opened.extent == Window(0, 0, 256, 256)
        data, mask = opened.judged.fused(Window(0, 0, 256, 256))
    assert mask.all()
    assert np.array_equal(data.numpy(), up)


def test_reference_figures_and_masks(run, scene, tmp_path, read_all):
    files, fused, up = scene
    truth = up + np.random.default_rng(0).normal(0, 5, up.shape).astype("float32")
    reference = write_raster(tmp_path / "truth.tif", truth, PAN_GRID)
    got = json.loads(
        run("assess", fused, "--pan", files.pan, "--ms", files.ms, "--reference", reference, "--json").stdout
    )
    span = truth.max() - truth.min()
    assert got["psnr"] == pytest.approx(10 * np.log10(span**2 / np.mean((up - truth) ** 2)), abs=1e-3)
    holed = up.copy()
    holed[:, :128] = -1
    path = write_raster(tmp_path / "holed.tif", holed, PAN_GRID, nodata=-1)
    half = json.loads(run("assess", path, "--pan", files.pan, "--ms", files.ms, "--json").stdout)
    assert half["valid"] == pytest.approx(0.5)
    assert run("assess", path, "--pan", files.pan, "--ms", files.ms, "--json", "--nodata", "none").exit_code == 0


def test_separate_band_files(run, scene, tmp_path, read_all):
    files, fused, _ = scene
    with rasterio.open(files.ms) as file:
        grid = file.transform
    names = [write_raster(tmp_path / f"b{i}.tif", band[None], grid) for i, band in enumerate(read_all(files.ms))]
    options = [part for name in names for part in ("--ms", name)]
    whole = run("assess", fused, "--pan", files.pan, "--ms", files.ms, "--bands", "B,G,R,NIR", "--json").stdout
    parts = run("assess", fused, "--pan", files.pan, *options, "--bands", "B,G,R,NIR", "--json").stdout
    assert json.loads(whole) == json.loads(parts)


def test_place():
    assert locate_on_grid(PAN_GRID, PAN_GRID @ Affine.translation(3, -2), (10, 20)) == Window(-2, 3, 10, 20)
    assert locate_on_grid(PAN_GRID, PAN_GRID @ Affine.translation(3.5, 0), (10, 20)) is None
    assert locate_on_grid(PAN_GRID, PAN_GRID @ Affine.scale(2), (10, 20)) is None
    assert locate_on_grid(PAN_GRID, PAN_GRID @ Affine.rotation(5), (10, 20)) is None


def bad_inputs(scene, make_pair, tmp_path):
    files, fused, up = scene
    far = make_pair(origin=(9e5, 5e6), name="far")
    nowhere = make_pair(georeferenced=False, name="nowhere")
    dark = make_pair(name="dark", edit=lambda pan, ms: (pan.fill(0), ms.fill(0)), nodata=0)
    half_pixel = write_raster(tmp_path / "half.tif", up, PAN_GRID @ Affine.translation(0.5, 0))
    other_crs = write_raster(tmp_path / "crs.tif", up, PAN_GRID, crs="EPSG:32634")
    small = write_raster(tmp_path / "small.tif", up[:, :128], PAN_GRID)
    three = write_raster(tmp_path / "three.tif", up[:3], PAN_GRID)
    plain = write_raster(tmp_path / "plain.tif", up[:, :128])
    masked = write_raster(tmp_path / "masked.tif", np.zeros_like(up), PAN_GRID, nodata=0)
    pair = ["--pan", files.pan, "--ms", files.ms]
    return {
        "missing result": ([tmp_path / "none.tif", *pair], 1, "none.tif"),
        "missing reference": ([fused, *pair, "--reference", tmp_path / "none.tif"], 1, "none.tif"),
        "on the MS grid": ([files.ms, *pair], 1, "not on the grid"),
        "half a pixel off": ([half_pixel, *pair], 1, "not on the grid"),
        "another CRS": ([other_crs, *pair], 1, "not on the grid"),
        "elsewhere": ([fused, "--pan", far.pan, "--ms", far.ms], 1, "outside"),
        "no georeference": ([plain, *pair], 1, "no georeference"),
        "pair without georeference": ([small, "--pan", nowhere.pan, "--ms", nowhere.ms], 1, "no georeference"),
        "band counts": ([three, *pair], 1, "found 3, expected 4"),
        "bands of the reference": ([fused, *pair, "--reference", three], 1, "reference"),
        "size of the reference": ([fused, *pair, "--reference", small], 1, "same size"),
        "result all masked": ([masked, *pair], 1, "valid"),
        "pair all masked": ([fused, "--pan", dark.pan, "--ms", dark.ms], 1, "valid"),
        "MS all masked": ([fused, "--pan", files.pan, "--ms", dark.ms], 1, "valid"),
        "swapped": ([fused, "--pan", files.ms, "--ms", files.pan], 1, "PAN before MS"),
        "no MS": ([fused, "--pan", files.pan], 2, "--ms"),
    }


def test_every_bad_input_is_one_clear_line(run, scene, make_pair, tmp_path):
    for name, (arguments, code, text) in bad_inputs(scene, make_pair, tmp_path).items():
        done = run("-q", "assess", *arguments)
        assert done.exit_code == code, (name, done.output, done.exception)
        assert text in done.output, (name, done.output)
        assert isinstance(done.exception, SystemExit), (name, done.exception)
        if code == 1:
            assert len(done.stderr.strip().splitlines()) == 1, (name, done.stderr)
            assert not done.stdout, name


def test_what_sharpen_writes_can_be_assessed(run, make_pair, tmp_path, untrained_weights):
    pair, inner = make_pair(), make_pair(shape=(128, 128), name="inner", origin=(500016.0, 4999984.0))
    out = tmp_path / "out.tif"
    done = run("-q", "sharpen", pair.pan, inner.ms, "-o", out, "--weights", untrained_weights, "--align", "off")
    assert done.exit_code == 0, done.output
    got = json.loads(run("-q", "assess", out, "--pan", pair.pan, "--ms", inner.ms, "--json").stdout)
    with rasterio.open(out) as file:
        assert file.shape == (128, 128)
    assert got["output"] == str(out)
    assert got["trained_on"] == ["d_rho", "r_ergas", "r_sam", "r_q2n"]
    assert "trained on" in run("-q", "assess", out, "--pan", pair.pan, "--ms", inner.ms).stdout
    assert 0 < got["r_ergas"] < 5
    assert Path(out).exists()
