"""The page of one result: what it is drawn from, and that it works in a browser."""

import json
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import landscape, write_raster
from rasterio.io import MemoryFile
from rasterio.transform import Affine

from crossdiff_cli.cli.main import main
from crossdiff_cli.geometry.grid import GridMapping
from crossdiff_cli.geometry.window import Window
from crossdiff_cli.imaging.resample import expand
from crossdiff_cli.io.png import png
from crossdiff_cli.io.raster import Raster
from crossdiff_cli.options import PairOptions
from crossdiff_cli.quality.assess import assess, assess_arrays
from crossdiff_cli.quality.baselines import BASELINES
from crossdiff_cli.quality.files import JudgedFiles
from crossdiff_cli.quality.inputs import judged_arrays
from crossdiff_cli.report import maps as maps_module
from crossdiff_cli.report import rivals as rivals_module
from crossdiff_cli.report.colour import FALSE, GREY, TRUE, composites, stretch
from crossdiff_cli.report.histogram import histogram
from crossdiff_cli.report.hotspots import hardest
from crossdiff_cli.report.maps import draw_maps
from crossdiff_cli.report.page import build_page
from crossdiff_cli.report.rivals import rival_picture, score_rivals
from crossdiff_cli.report.views import map_picture
from crossdiff_cli.sensors.table import SENSORS, Band, find_sensor

PAN_GRID = Affine(0.5, 0, 500000, 0, -0.5, 5000000)
GRID = GridMapping((4.0, 4.0), (0.0, 0.0))
GAINS = (0.3, 0.3, 0.3, 0.3)


def bands(sensor, names):
    return find_sensor(sensor).select(names.split(","))


@pytest.fixture(scope="module")
def judged():
    """A scene in memory, sharpened by a baseline, with a blot of a wrong colour and a blurred patch."""
    pan, ms = (torch.from_numpy(x) for x in landscape((320, 320), 4, 4, seed=3))
    fused = BASELINES["GSA"](pan, ms, GRID.ratio, GRID.offset, GAINS, None)
    fused[1:3, 40:90, 200:260] += 250
    fused[:, 200:300, 20:120] = expand(ms[None], (320, 320), GRID.ratio, GRID.offset)[0][:, 200:300, 20:120]
    return judged_arrays(fused, pan, ms, GRID, GAINS, None, None)


def test_composites():
    assert composites(bands("wv3", "CA,B,G,Y,R,RE,N1,N2")) == {TRUE: (4, 2, 1), FALSE: (6, 4, 2)}
    assert composites(bands("vhr", "NIR,R,G,B")) == {TRUE: (1, 2, 3), FALSE: (0, 1, 2)}
    assert composites(bands("vhr", "R,G,B")) == {TRUE: (0, 1, 2)}
    assert composites(bands("vhr", "NIR,R,G")) == {FALSE: (0, 1, 2)}
    assert composites(bands("l8", "SWIR2,SWIR1,NIR")) == {FALSE: (0, 1, 2)}
    assert composites(bands("vhr", "NIR")) == {GREY: (0, 0, 0)}
    assert composites(bands("vhr", "NIR,R")) == {GREY: (1, 1, 1)}
    sixteen = tuple(Band(f"X{i}", 420 + 35 * i, 30) for i in range(16))
    assert composites(sixteen) == {TRUE: (7, 4, 2), FALSE: (12, 7, 4)}
    for sensor in SENSORS.values():
        for layout in sensor.layouts:
            assert composites(sensor.select(layout)), sensor.key


def test_stretch_leaves_masked_pixels_out_and_shows_them_black():
    image = np.tile(np.linspace(100, 200, 1000, dtype=np.float32), (2, 1)).reshape(2, 20, 50)
    mask = np.ones((20, 50), bool)
    mask[0, :5], image[:, 0, :5] = False, 1e9
    levels = stretch(image, mask)
    assert levels.high.max() < 200
    picture = levels.picture(image, mask, (1, 0, 1))
    assert picture.shape == (3, 20, 50)
    assert (picture[:, 0, :5] == 0).all()
    assert picture[:, -1, -1].tolist() == [255] * 3
    assert (np.diff(picture[0, 1:].flatten().astype(int)) >= 0).all()
    assert stretch(image, np.zeros_like(mask)).picture(image, ~mask).shape == (2, 20, 50)
    flat = np.full((1, 4, 4), 7, np.float32)
    assert stretch(flat, np.ones((4, 4), bool)).picture(flat, np.ones((4, 4), bool)).max() == 0


def test_a_part_has_its_own_contrast_within_bounds():
    mask = np.ones((30, 30), bool)
    whole = stretch(np.linspace(0, 400, 900, dtype=np.float32).reshape(1, 30, 30), mask)
    part = np.linspace(100, 300, 900, dtype=np.float32).reshape(1, 30, 30)
    assert whole.near(stretch(part, mask)).high == pytest.approx(stretch(part, mask).high)
    flat = whole.near(stretch(np.full((1, 30, 30), 50, np.float32), mask))
    assert float(flat.high[0] - flat.low[0]) == pytest.approx(float(whole.high[0] - whole.low[0]) / 4)
    assert float(flat.high[0] + flat.low[0]) / 2 == pytest.approx(50, abs=1)


def test_png_survives():
    levels = np.random.default_rng(0).integers(0, 256, (4, 9, 13), dtype=np.uint8)
    for count in (1, 3, 4):
        with MemoryFile(png(levels[:count])) as memory, memory.open() as file:
            assert file.driver == "PNG"
            assert np.array_equal(file.read(), levels[:count])


def test_reduced_reading(tmp_path):
    data = np.arange(64, dtype="uint16").reshape(1, 8, 8) + 1
    with Raster(write_raster(tmp_path / "a.tif", data, PAN_GRID)) as raster:
        got, mask = raster.read_reduced(Window(0, 4, 8, 4), (4, 2))
    assert mask.all()
    blocks = data[0, :, 4:].reshape(4, 2, 2, 2).mean(axis=(1, 3))
    assert np.abs(got[0] - blocks).max() <= 0.5  # GDAL rounds averages of integers
    data[0, :4, :4] = 0
    with Raster(write_raster(tmp_path / "b.tif", data, PAN_GRID, nodata=0)) as raster:
        got, mask = raster.read_reduced(Window(0, 0, 8, 8), (4, 4))
    assert mask.tolist() == [[False, False, True, True]] * 2 + [[True] * 4] * 2
    assert set(got[0][mask].tolist()) <= set(data.flatten().tolist())


def test_maps_are_the_figures_cut_into_cells(judged, monkeypatch):
    report = assess(judged)
    monkeypatch.setattr(maps_module, "CELLS", 1)
    one = draw_maps(judged)
    assert one.correlation.shape == (4, 1, 1)
    for band, quality in enumerate(report.bands):
        assert float(one.correlation[band]) == pytest.approx(1 - quality.d_rho, abs=1e-9)
    monkeypatch.setattr(maps_module, "CELLS", 20)
    monkeypatch.setattr(maps_module, "_WINDOW", 128)
    small = draw_maps(judged)
    monkeypatch.setattr(maps_module, "_WINDOW", 512)
    whole = draw_maps(judged)
    assert torch.allclose(small.correlation, whole.correlation, atol=1e-9)
    assert torch.allclose(small.error, whole.error, atol=1e-6)
    assert (whole.side, whole.cell, whole.error.shape) == (4, (16.0, 16.0), (4, 20, 20))
    blot = whole.error[1, 3:5, 13:16].mean()
    assert blot > 5 * whole.error[1, 10:, 10:].mean()
    assert blot > 5 * whole.error[0, 3:5, 13:16].mean()


def test_maps_leave_masked_cells_open(judged):
    mask = torch.ones(320, 320, dtype=torch.bool)
    mask[:160] = False
    full = Window(0, 0, 320, 320)
    masked = judged_arrays(
        judged.fused(full)[0], judged.pan(full)[0], judged.ms(Window(0, 0, 80, 80))[0], GRID, GAINS, mask, None
    )
    maps = draw_maps(masked)
    assert maps.correlation[:, :39].isnan().all()
    assert maps.error[:, :39].isnan().all()
    assert maps.correlation[:, 41:].isfinite().all()
    for place in hardest(maps, (320, 320)):
        assert place.window.row >= 140


def test_the_hardest_places_hold_the_faults(judged):
    places = hardest(draw_maps(judged), judged.shape)
    assert [p.kind for p in places] == ["detail"] * 3 + ["colour"] * 3 or len(places) < 6
    detail, colour = (next(p for p in places if p.kind == kind) for kind in ("detail", "colour"))
    assert detail.window.intersection(Window(200, 20, 100, 100)).height > 50
    assert colour.window.intersection(Window(40, 200, 50, 60)).height > 30
    for i, one in enumerate(places):
        assert one.window.intersection(Window(0, 0, 320, 320)) == one.window
        assert not any(one.window.intersection(other.window) for other in places[i + 1 :])


def test_rivals_score_as_themselves(judged, monkeypatch):
    full = Window(0, 0, *judged.shape)
    pan, ms = judged.pan(full)[0], judged.ms(Window(0, 0, *judged.ms_shape))[0]
    rivals = score_rivals(judged)
    assert rivals.window == full
    gsa = BASELINES["GSA"](pan, ms, GRID.ratio, GRID.offset, GAINS, None)
    assert rivals.baselines["GSA"].hqnr == pytest.approx(assess_arrays(gsa, pan, ms, 4, (0, 0), GAINS).hqnr, abs=1e-6)
    assert rivals.ours.hqnr == pytest.approx(assess(judged).hqnr, abs=1e-9)
    assert rivals.best != "EXP"
    part = rival_picture(judged, Window(100, 40, 60, 70), "GSA")
    assert torch.allclose(part, gsa[:, 100:160, 40:110])
    monkeypatch.setattr(rivals_module, "_WHOLE", 1)
    monkeypatch.setattr(rivals_module, "SIDE", 128)
    hole = replace(judged, fused=lambda w: (judged.fused(w)[0], torch.full(w.shape, w.row >= 128)))
    assert score_rivals(hole).window.row >= 128


def test_histogram_and_map_picture():
    before, after = np.full(500, 10, np.float32), np.full(500, 30, np.float32)
    text = histogram(before, after)
    assert "10 to 30; mean 10 → 30, deviation 0 → 0" in text
    points = re.search(r'polyline class="after" points="([^"]*)"', text)[1].split()
    heights = [float(p.split(",")[1]) for p in points]
    assert heights.index(min(heights)) == len(heights) - 1
    assert "no valid pixel" in histogram(before[:0], after)
    import base64

    uri = map_picture(torch.tensor([[0.0, 1.0, torch.nan]]), "error", 0.0, 1.0)
    with MemoryFile(base64.b64decode(uri.split(",")[1])) as memory, memory.open() as file:
        levels = file.read()
    assert levels[3].tolist() == [[255, 255, 0]]
    assert levels[:3, 0, 0].sum() > levels[:3, 0, 1].sum()


def page_of(tmp_path, count, name="fused.tif", names=None, edit=None, reference=False, **profile):
    pan, ms = landscape((256, 256), count, 4, seed=1)
    coarse = PAN_GRID @ Affine.scale(4)
    up = expand(torch.from_numpy(ms)[None], (256, 256), (4.0, 4.0), (0.0, 0.0))[0].numpy() + 0.5 * (pan - pan.mean())
    if edit:
        edit(up)
    paths = [
        write_raster(tmp_path / n, data.astype("float32"), grid, **profile)
        for n, data, grid in ((name, up, PAN_GRID), ("pan.tif", pan, PAN_GRID), ("ms.tif", ms, coarse))
    ]
    options = PairOptions(sensor="vhr", bands=names)
    with JudgedFiles(paths[0], paths[1], [paths[2]], paths[0] if reference else None, options) as files:
        return build_page(files, files.report()), paths


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


@pytest.mark.parametrize(
    "names", [("B", "G", "R"), ("B", "G", "R", "NIR"), ("CA", "B", "G", "Y", "R", "RE", "N1", "N2"), ("NIR",)]
)
def test_page_stands_alone_with_any_bands(tmp_path, names):
    page, _ = page_of(tmp_path, len(names), names=names)
    assert "{{" not in page
    assert not re.search(r"""(?:src|href)=["']?(?!data:)\w+:|@import|https?://""", page)
    data = data_of(page)
    assert set(data["composites"]) <= {TRUE, FALSE, GREY}
    for view in data["views"]:
        assert {"MS", "PAN", "Result"} <= set(view["layers"])
        for layer in view["layers"].values():
            assert all(uri.startswith("data:image/png;base64,") for uri in layer["src"].values())
    assert page.count("Spectral error of ") == len(names)
    assert all(f"<h3>{name} " in page for name in names)
    for label in ("HQNR", "MTF-GLP-FS", "R-ERGAS", "What was assumed"):
        assert label in page


def test_page_with_reference_masks_and_a_hostile_name(tmp_path):
    def edit(up):
        up[:, :100] = -9

    page, _ = page_of(tmp_path, 4, name="<b>{{data}}.tif", edit=edit, reference=True, nodata=-9)
    assert "&lt;b&gt;{{data}}.tif" in page
    assert "<b>{{" not in page
    assert "Against the reference" in page
    assert "nodata: result -9" in page
    assert data_of(page)["views"][0]["title"] == "Overview"


def test_assess_writes_the_page_and_nothing_else(tmp_path):
    _, (fused, pan, ms) = page_of(tmp_path, 4)
    before = set(tmp_path.iterdir())
    html = tmp_path / "page.html"
    html.write_text("old")
    run = CliRunner().invoke
    done = run(main, ["assess", fused, "--pan", pan, "--ms", ms, "--sensor", "vhr", "--html", str(html), "--json"])
    assert done.exit_code == 0, done.output
    assert set(tmp_path.iterdir()) - before == {html}
    assert f"<b>{json.loads(done.stdout)['hqnr']:.4f}</b>" in html.read_text(encoding="utf-8")
    for target in (tmp_path / "no" / "page.html", tmp_path):
        done = run(main, ["-q", "assess", fused, "--pan", pan, "--ms", ms, "--html", str(target)])
        assert done.exit_code == 1
        assert len(done.stderr.strip().splitlines()) == 1


def test_sharpen_writes_a_report(make_pair, tmp_path, untrained_weights):
    files = make_pair()
    out, page = tmp_path / "out.tif", tmp_path / "out.html"
    arguments = ["-q", "sharpen", files.pan, files.ms, "-o", str(out), "--weights", str(untrained_weights)]
    done = CliRunner().invoke(main, [*arguments, "--report", str(tmp_path / "no" / "out.html")])
    assert done.exit_code == 1
    assert not out.exists()
    done = CliRunner().invoke(main, [*arguments, "-b", "3,2,1", "--bands", "R,G,B", "--report", str(page)])
    assert done.exit_code == 0, done.output
    text = page.read_text(encoding="utf-8")
    assert "training loss" in text
    assert "3 bands: R, G, B" in text


@pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is not installed")
def test_the_page_runs_in_a_browser(tmp_path):
    page, _ = page_of(tmp_path, 4)
    path = tmp_path / "page.html"
    path.write_text(page, encoding="utf-8")
    flags = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--virtual-time-budget=5000",
    ]  # fmt: skip
    done = subprocess.run(
        ["chromium", *flags, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", path.as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    views = len(data_of(page)["views"])
    assert views > 2
    assert f'data-ready="{views} views"' in done.stdout
    assert done.stdout.count('class="thumb"') == 4 * (views - 1)
    assert 'aria-valuenow="50"' in done.stdout
    assert '<span class="tag left" id="tag-left">MS</span>' in done.stdout
    stage = re.search(r'<img id="image-right"[^>]*>', done.stdout)[0]
    assert 'alt="Result, Overview"' in stage
    assert "data:image/png" in stage
