"""`crossdiff degrade`: the Wald pair on disk."""

import json

import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner
from conftest import write_raster
from rasterio.transform import Affine

import crossdiff_cli.tasks.degrade as module
from crossdiff_cli.cli.main import main
from crossdiff_cli.geometry.grid import GridMapping
from crossdiff_cli.imaging.resample import degrade as degrade_image
from crossdiff_cli.io.open_pair import open_pair
from crossdiff_cli.options import DegradeOptions, EstimateOptions, PairOptions
from crossdiff_cli.quality.inputs import ms_mask
from crossdiff_cli.quality.windows import all_valid
from crossdiff_cli.tasks.degrade import NAMES, degrade

QB = DegradeOptions(pair=PairOptions(sensor="qb"), estimate=EstimateOptions(align=False, mtf="table", pan_mtf="table"))


@pytest.fixture
def run():
    runner = CliRunner()
    return lambda *arguments: runner.invoke(main, [str(a) for a in arguments])


def test_the_pair_is_the_dense_formula_rounded(make_pair, tmp_path, read_all):
    files = make_pair()
    result = degrade(files.pan, [files.ms], tmp_path / "wald", QB)
    pan, ms = (torch.from_numpy(read_all(p).astype("float32"))[None] for p in (files.pan, files.ms))
    with open_pair(files.pan, [files.ms], QB.pair) as pair:
        gains, pan_gain = [band.nyquist_gain for band in pair.bands], pair.sensor.pan_nyquist_gain
    expected_pan = degrade_image(pan, (64, 64), (4, 4), (0, 0), [pan_gain])[0]
    expected_ms = degrade_image(ms, (16, 16), (4, 4), (0, 0), gains)[0]
    assert np.abs(read_all(result.pan) - expected_pan.numpy()).max() <= 0.501
    assert np.abs(read_all(result.ms) - expected_ms.numpy()).max() <= 0.501
    assert np.array_equal(read_all(result.reference), read_all(files.ms))
    assert (result.ratio, result.sensor, result.bands) == (4.0, "qb", ("B", "G", "R", "NIR"))


def test_grids_types_and_names(make_pair, tmp_path):
    files = make_pair(shape=(244, 252), dtype="uint8")
    result = degrade(files.pan, [files.ms], tmp_path / "wald", QB)
    with rasterio.open(files.ms) as source, rasterio.open(result.reference) as reference:
        assert reference.transform == source.transform
        assert reference.shape == (60, 60)
        assert reference.dtypes == ("uint8",) * 4
        assert reference.crs == source.crs
    with rasterio.open(result.pan) as pan, rasterio.open(result.ms) as ms:
        assert pan.transform == Affine(2, 0, 500000, 0, -2, 5000000)
        assert ms.transform == Affine(8, 0, 500000, 0, -8, 5000000)
        assert (pan.shape, ms.shape) == ((60, 60), (15, 15))
        assert ms.descriptions == ("B", "G", "R", "NIR")
    with open_pair(result.pan, [result.ms]) as pair:
        assert pair.sensor.key == "qb"
        assert pair.grid == GridMapping((4.0, 4.0), (0.0, 0.0))


def test_windows_change_nothing(make_pair, tmp_path, read_all, monkeypatch):
    files = make_pair(shape=(512, 640), dtype="float32")
    whole = degrade(files.pan, [files.ms], tmp_path / "whole", QB)
    monkeypatch.setattr(module, "_TILE", 32)
    parts = degrade(files.pan, [files.ms], tmp_path / "parts", QB)
    for name in ("pan", "ms", "reference"):
        a, b = read_all(getattr(whole, name)), read_all(getattr(parts, name))
        assert np.allclose(a, b, rtol=1e-5, atol=1e-3), name


def test_masked_pixels_spread_and_are_never_read(make_pair, tmp_path, read_all):
    def hole(value):
        def edit(pan, ms):
            pan[0, 100:108, 40:60] = value
            ms[:, 50, 50] = value

        return edit

    results = {}
    for value in (0, 65535):
        files = make_pair(name=str(value), edit=hole(value), nodata=value)
        result = degrade(files.pan, [files.ms], tmp_path / f"wald{value}", QB)
        results[value] = [read_all(path) for path in (result.pan, result.ms, result.reference)]
    for small, large in zip(*results.values(), strict=True):
        masked = (small == 0).all(axis=0)
        assert masked.any()
        assert np.array_equal(masked, (large == 65535).all(axis=0))
        assert np.array_equal(small[:, ~masked], large[:, ~masked])
    hole_mask = torch.ones(256, 256, dtype=torch.bool)
    hole_mask[100:108, 40:60] = False
    valid = torch.from_numpy((results[0][0] != 0)[0])
    assert not (valid & ~ms_mask(hole_mask, (64, 64), GridMapping((4.0, 4.0), (0.0, 0.0)))).any()
    far = [torch.arange(64) * 4 + low for low in (-16, 20)]
    assert valid[all_valid(hole_mask, (far[0], far[1]), (far[0], far[1]))].all()


def test_ms_larger_than_pan_ratio_and_phase(make_pair, tmp_path):
    """Only MS pixels that lie whole on the PAN are kept, and their corner is where it was."""
    pan, ms = make_pair(), make_pair(shape=(320, 320), name="wide", origin=(499991.0, 5000013.0))
    result = degrade(pan.pan, [ms.ms], tmp_path / "wald", QB)
    with rasterio.open(result.reference) as reference, rasterio.open(ms.ms) as source:
        col, row = ~source.transform @ (reference.transform.c, reference.transform.f)
        assert (col, row) == (round(col), round(row)) == (5, 7)
        assert reference.shape == (60, 60)
        assert np.array_equal(reference.read(), source.read()[:, 7:67, 5:65])


def test_a_non_integer_ratio_keeps_its_geometry(tmp_path):
    rng = np.random.default_rng(0)
    grid = Affine(0.5, 0, 500000, 0, -0.5, 5000000)
    pan = write_raster(tmp_path / "pan.tif", rng.uniform(100, 900, (1, 250, 250)).astype("float32"), grid)
    ms_data = rng.uniform(100, 900, (4, 100, 100)).astype("float32")
    ms = write_raster(tmp_path / "ms.tif", ms_data, grid @ Affine.scale(2.5))
    result = degrade(pan, [ms], tmp_path / "wald", QB)
    with rasterio.open(result.ms) as file:
        assert file.transform.almost_equals(grid @ Affine.scale(6.25))
        assert file.shape == (40, 40)
    with open_pair(result.pan, [result.ms], QB.pair) as pair:
        assert pair.grid.ratio == pytest.approx((2.5, 2.5))


def test_alignment_registers_pan_with_the_reference(make_pair, tmp_path):
    truth = make_pair(shape=(512, 512))
    with rasterio.open(truth.pan) as file:
        moved = np.roll(file.read(), (2, -1), (1, 2))
        grid = file.transform
    pan = write_raster(tmp_path / "moved.tif", moved, grid)
    options = DegradeOptions(pair=PairOptions(sensor="qb"), estimate=EstimateOptions(mtf="table", pan_mtf="table"))
    found = degrade(pan, [truth.ms], tmp_path / "wald", options)
    assert found.shift_px == pytest.approx((-1, 2), abs=0.1)
    inner = np.s_[:, 8:-8, 8:-8]
    with rasterio.open(found.pan) as a, rasterio.open(degrade(truth.pan, [truth.ms], tmp_path / "true", QB).pan) as b:
        difference = np.abs(a.read()[inner].astype(float) - b.read()[inner])
    assert difference.mean() < 3


def test_without_georeference(make_pair, tmp_path):
    files = make_pair(georeferenced=False)
    result = degrade(files.pan, [files.ms], tmp_path / "wald", QB)
    with open_pair(result.pan, [result.ms], QB.pair) as pair:
        assert pair.grid == GridMapping((4.0, 4.0), (0.0, 0.0))
        assert not pair.pan.georeferenced


def test_command_and_all_or_nothing(run, make_pair, tmp_path, monkeypatch):
    files = make_pair()
    folder = tmp_path / "wald"
    done = run("-q", "degrade", files.pan, files.ms, "-o", folder, "--sensor", "qb", "--json")
    assert json.loads(done.stdout)["reference"] == str(folder / "reference.tif")
    assert sorted(p.name for p in folder.iterdir()) == sorted(NAMES)
    again = run("-q", "degrade", files.pan, files.ms, "-o", folder)
    assert again.exit_code == 1
    assert "--overwrite" in again.stderr
    before = (folder / "pan.tif").read_bytes()
    calls = []

    def fail(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise MemoryError
        return original(*arguments)

    original = module.array_to_dtype
    monkeypatch.setattr(module, "array_to_dtype", fail)
    assert run("-q", "degrade", files.pan, files.ms, "-o", folder, "--overwrite").exit_code == 1
    assert (folder / "pan.tif").read_bytes() == before
    assert sorted(p.name for p in folder.iterdir()) == sorted(NAMES)
    calls.clear()
    assert run("-q", "degrade", files.pan, files.ms, "-o", tmp_path / "new").exit_code == 1
    assert not (tmp_path / "new").exists()


def test_bad_inputs_are_one_line(run, make_pair, tmp_path):
    files, tiny = make_pair(), make_pair(shape=(20, 20), name="tiny")
    file = tmp_path / "file"
    file.write_text("x")
    for arguments, text in (
        ([files.pan, tmp_path / "none.tif", "-o", tmp_path / "out"], "none.tif"),
        ([files.ms, files.pan, "-o", tmp_path / "out"], "PAN before MS"),
        ([files.pan, files.ms, "-o", file], "is a file"),
        ([files.pan, files.ms, "-o", tmp_path / "no" / "out"], "no"),
        ([tiny.pan, tiny.ms, "-o", tmp_path / "out"], "too few"),
    ):
        done = run("-q", "degrade", *arguments)
        assert done.exit_code == 1, (text, done.output, done.exception)
        assert isinstance(done.exception, SystemExit), (text, done.exception)
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert text in done.stderr
        assert not (tmp_path / "out").exists()
