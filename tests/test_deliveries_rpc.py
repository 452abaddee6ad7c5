"""Unrectified PAN and MS: related by their RPCs, sharpened in sensor geometry, the RPC moved with the crop."""

import json

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from conftest import changed, landscape, sharpen_options, write_raster
from delivery_files import gaofen, maxar, maxar_image, pixels, rpc_model
from rasterio.transform import RPCTransformer

from crossdiff_cli.cli.main import main
from crossdiff_cli.errors import NoOverlapError, SceneError
from crossdiff_cli.geometry.window import Window
from crossdiff_cli.io.open_pair import open_pair
from crossdiff_cli.io.relate import relate_rpcs
from crossdiff_cli.options import PairOptions
from crossdiff_cli.tasks.sharpen import sharpen

PAN = rpc_model((32.0, 32.0), (32.0, 32.0))
FOUR = PairOptions(sensor="vhr", bands=("B", "G", "R", "NIR"))


def ms_model(row=0.0, col=0.0, ratio=4.0, **changes):
    """The RPC of an MS whose first corner lies at (row, col) of the PAN; RPC positions are of pixel centres."""
    line, samp = ((32.5 - offset) / ratio - 0.5 for offset in (row, col))
    return rpc_model((line, samp), (32.0 / ratio, 32.0 / ratio), **changes)


@pytest.mark.parametrize(
    ("row", "col", "ratio"), [(0.0, 0.0, 4.0), (-4.0, 8.0, 4.0), (2.5, -1.25, 4.0), (0.0, 3.0, 3.7), (0.0, 0.0, 2.0)]
)
def test_ratio_and_offset_follow_from_the_models(row, col, ratio):
    grid = relate_rpcs(PAN, ms_model(row, col, ratio), (64, 64), ("pan", "ms"))
    assert grid.ratio == pytest.approx((ratio, ratio), abs=1e-4)
    assert grid.offset == pytest.approx((row, col), abs=1e-2)


def test_a_ratio_beside_a_round_one_is_kept_where_it_matters():
    near = rpc_model((7.625, 7.625), (8.0 / 1.001, 8.0 / 1.001))
    wide = rpc_model((16000.0, 16000.0), (16000.0, 16000.0)), rpc_model((3999.625, 3999.625), (3996.0, 3996.0))
    assert relate_rpcs(PAN, near, (64, 64), ("pan", "ms")).ratio == (4.0, 4.0)
    assert relate_rpcs(*wide, (32000, 32000), ("pan", "ms")).ratio[0] == pytest.approx(4.004, abs=1e-4)


def test_a_view_from_elsewhere_is_refused():
    with pytest.raises(SceneError):
        relate_rpcs(PAN, ms_model(height=(30.0, 0.0)), (64, 64), ("pan", "ms"))
    both = rpc_model((32.0, 32.0), (32.0, 32.0), height=(120.0, 0.0)), ms_model(height=(30.0, 0.0))
    assert relate_rpcs(*both, (64, 64), ("pan", "ms")).offset == pytest.approx((0.0, 0.0), abs=1e-2)


def test_another_geometry_is_refused():
    bent = ms_model()
    bent.line_num_coeff = [0.0, 0.5, -1.0] + [0.0] * 17
    with pytest.raises(SceneError):
        relate_rpcs(PAN, bent, (64, 64), ("pan", "ms"))


def test_gaofen_level_one_is_related_by_its_rpbs(tmp_path):
    gaofen(tmp_path, rpcs=(PAN, ms_model(-4.0, 8.0)))
    with open_pair(str(tmp_path)) as pair:
        assert pair.grid.ratio == (4.0, 4.0)
        assert pair.grid.offset == pytest.approx((-4.0, 8.0), abs=1e-2)
        assert pair.footprint == Window(0, 8, 60, 56)
        assert pair.transform(pair.footprint) is None
        assert any("related by their RPCs" in note for note in pair.notes)


def test_without_rpcs_the_same_ground_is_assumed(tmp_path):
    gaofen(tmp_path)
    with open_pair(str(tmp_path)) as pair:
        assert (pair.grid.ratio, pair.grid.offset) == ((4.0, 4.0), (0.0, 0.0))


def test_rpcs_of_different_ground_do_not_overlap(tmp_path):
    gaofen(tmp_path, rpcs=(PAN, ms_model(ground=15.1)))
    with pytest.raises(NoOverlapError):
        open_pair(str(tmp_path))


def test_maxar_tiles_in_sensor_geometry(tmp_path):
    pan, ms = pixels()
    maxar_image(tmp_path, pan, 1, "P", letter="P", band_id="P", rpc=PAN, georeferenced=False)
    maxar_image(tmp_path, ms, 4, "R G B N", letter="M", band_id="Multi", rpc=ms_model(2.0, 2.0), georeferenced=False)
    with open_pair(str(tmp_path)) as pair:
        assert pair.grid.offset == pytest.approx((2.0, 2.0), abs=1e-2)
        assert pair.rpcs(Window(3, 5, 10, 10)).line_off == 29.0
        assert pair.rpcs(Window(3, 5, 10, 10)).samp_off == 27.0
        assert [band.name for band in pair.bands] == ["R", "G", "B", "NIR"]


def test_the_result_lies_on_the_ground_where_the_pan_did(tmp_path, untrained_weights):
    """GDAL gives the same ground to a pixel of the result as to the pixel of the PAN that it came from."""
    pan, ms = landscape((256, 256), 4, 4)
    files = [
        write_raster(tmp_path / "pan.tif", np.rint(pan).astype("uint16")),
        write_raster(tmp_path / "ms.tif", np.rint(ms[:, 10:, 5:]).astype("uint16")),
    ]
    model = rpc_model((128.0, 128.0), (128.0, 128.0))
    coarse = rpc_model((128.5 / 4 - 0.5 - 10, 128.5 / 4 - 0.5 - 5), (32.0, 32.0))
    for file, rpcs in zip(files, (model, coarse), strict=True):
        with rasterio.open(file, "r+") as dataset:
            dataset.rpcs = rpcs
    options = sharpen_options(pair=FOUR, weights=untrained_weights, tile=256, device="cpu", precision="fp32")
    options = changed(options, align=False)
    sharpen(files[0], [files[1]], tmp_path / "out.tif", options)
    with rasterio.open(tmp_path / "out.tif") as result, rasterio.open(files[0]) as source:
        assert result.shape == (216, 236)
        with RPCTransformer(result.rpcs) as ours, RPCTransformer(source.rpcs) as theirs:
            here = ours.xy([0, 100, 215], [0, 50, 235], zs=[100.0] * 3)
            there = theirs.xy([40, 140, 255], [20, 70, 255], zs=[100.0] * 3)
        assert np.allclose(here, there, atol=1e-9)
        fused = result.read()
    cropped = write_raster(tmp_path / "cropped.tif", np.rint(pan[:, 40:, 20:]).astype("uint16"))
    sharpen(cropped, [files[1]], tmp_path / "same.tif", options)
    with rasterio.open(tmp_path / "same.tif") as file:
        same = file.read()
    inside = np.s_[:, 48:-48, 48:-48]
    assert np.abs(fused[inside].astype(int) - same[inside]).max() <= 1


def test_a_delivery_through_the_commands(tmp_path, untrained_weights):
    pan, ms = landscape((256, 256), 4, 4)
    for data, ratio, groups, letter, band in ((pan, 1, "P", "P", "P"), (ms, 4, "R G B N", "M", "Multi")):
        maxar_image(tmp_path / "order", np.rint(data).astype("uint16"), ratio, groups, letter=letter, band_id=band)
    run = CliRunner()
    out = tmp_path / "out.tif"
    told = run.invoke(main, ["info", str(tmp_path / "order"), "--json"])
    assert told.exit_code == 0, told.output
    facts = json.loads(told.stdout)
    assert (facts["sensor"], facts["bands"]) == ("wv4", ["R", "G", "B", "NIR"])
    assert facts["delivery"].startswith("Maxar delivery")
    done = run.invoke(
        main,
        ["sharpen", str(tmp_path / "order"), "-o", str(out), "--weights", str(untrained_weights), "--tile", "256",
         "--device", "cpu", "--json"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["bands"] == ["R", "G", "B", "NIR"]
    with rasterio.open(out) as result:
        assert result.shape == (256, 256)
        assert result.descriptions == ("R", "G", "B", "NIR")
        assert result.tags()["CROSSDIFF_SOURCES"].count(".TIL") == 2
        assert result.tags(ns="IMAGERY")["SATELLITEID"] == "WV04"


def test_bidx_picks_bands_of_a_delivery(tmp_path):
    maxar(tmp_path, "R G B N")
    with open_pair(str(tmp_path), options=PairOptions(bidx=(3, 1))) as pair:
        assert [band.name for band in pair.bands] == ["B", "R"]
    gaofen(tmp_path / "gf", "4,3,2,1")
    with open_pair(str(tmp_path / "gf"), options=PairOptions(bidx=(2, 1))) as pair:
        assert [band.name for band in pair.bands] == ["R", "NIR"]
