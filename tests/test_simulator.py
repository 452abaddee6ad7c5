"""The simulator beyond the example: any sensor's bands, simulated ones near them, misregistration, a manifest."""

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from crossdiff_cli.estimate.survey import survey
from crossdiff_cli.io.open_pair import open_pair
from crossdiff_cli.options import PairOptions
from crossdiff_cli.sensors.table import SENSORS, find_sensor
from crossdiff_cli.training.manifest import read_manifest
from crossdiff_cli.training.training_scene import load_scene

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL = ("--sensor", "qb", "--size", "16")


@pytest.fixture(scope="module")
def make_scene():
    sys.path.insert(0, str(EXAMPLES))
    try:
        spec = importlib.util.spec_from_file_location("make_scene", EXAMPLES / "make_scene.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules["make_scene"] = module
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(EXAMPLES))


def test_a_scene_has_the_bands_and_ratio_of_its_sensor(make_scene, tmp_path):
    make_scene.main(["-o", str(tmp_path), "--sensor", "wv2", "--size", "40", "--reference"])
    with rasterio.open(tmp_path / "pan.tif") as pan, rasterio.open(tmp_path / "ms.tif") as ms:
        assert (pan.width, ms.width, ms.count) == (160, 40, 8)
        assert [d.lower() for d in ms.descriptions][:3] == ["ca", "blue", "green"]
        assert pan.bounds == ms.bounds
        numbers = ms.read()
    assert numbers.min() > 0
    assert numbers.max() <= 2**11 - 1
    assert 100 < np.median(numbers) < 1500
    assert not (tmp_path / "pan.IMD").exists()


def test_jitter_follows_the_seed_and_stays_near(make_scene):
    camera = make_scene.cameras.camera
    plain, one, again, other = (camera("ge1", rng and np.random.default_rng(rng)) for rng in (None, 1, 1, 2))
    assert one == again != other
    table = {band.name: band for band in find_sensor("ge1").bands}
    for exact, near in zip(plain.ms, one.ms, strict=True):
        assert (exact.low + exact.high) / 2 == pytest.approx(table[exact.name].center_nm)
        assert abs(near.low - exact.low) <= 5
        assert abs(near.nyquist_gain - exact.nyquist_gain) <= 0.03


def test_the_shift_is_where_the_ms_lies(make_scene):
    """The correlation of the MS with the average of the shifted reference peaks at the shift that was asked for."""
    scene = make_scene.simulate(64, 3, with_reference=True, shift=(4.0, -8.0))
    truth, ms = scene.reference[1].astype(float), scene.ms[1].astype(float)

    def agreement(dy: int, dx: int) -> float:
        moved = np.roll(truth, (-dy, -dx), axis=(0, 1)).reshape(64, 4, 64, 4).mean(axis=(1, 3))
        return float(np.corrcoef(moved[8:-8, 8:-8].ravel(), ms[8:-8, 8:-8].ravel())[0, 1])

    found = max((agreement(dy, dx), dy, dx) for dy in range(-12, 13, 2) for dx in range(-12, 13, 2))
    assert found[1:] == (4, -8)


def test_a_set_of_scenes_can_be_trained_on(make_scene, tmp_path):
    make_scene.main(["-o", str(tmp_path), "--sensor", "qb", "--size", "48", "--reference", "--jitter", "--count", "2",
                     "--manifest", "--seed", "30"])  # fmt: skip
    entries = read_manifest(tmp_path / "manifest.json", "train")
    assert [entry.name for entry in entries] == ["simulated qb 30", "simulated qb 31"]
    assert json.loads((tmp_path / "manifest.json").read_text())[0]["files"]["pan"] == "qb-30/pan.tif"
    scenes = [load_scene(entry) for entry in entries]
    for scene in scenes:
        assert scene.reference is not None
        assert scene.spectrum.ratio == 4
    assert not torch.equal(scenes[0].ms, scenes[1].ms)


@pytest.mark.parametrize("key", SENSORS)
def test_the_pixel_size_is_that_of_the_sensor(make_scene, key):
    cameras = make_scene.cameras
    camera = cameras.camera(key)
    assert camera.pan_gsd == min(cameras.PAN_GSD[key], cameras.COARSEST_GSD)
    assert camera.pan_gsd / camera.supersampling <= make_scene.sensor.COARSEST_SAMPLE


def test_pixel_sizes_of_deliveries(make_scene):
    """Against the vendors' figures; and a sensor without one would not be noticed by the table alone."""
    sizes = make_scene.cameras.PAN_GSD
    assert sizes.keys() == SENSORS.keys()
    assert [sizes[key] for key in ("wv3", "wv4", "gf2", "ik", "spot6", "l8")] == [0.31, 0.31, 0.8, 0.82, 1.5, 15.0]


@pytest.mark.parametrize("key", ["l7", "wv2", "kompsat3a", "skysat", "l8"])
def test_the_noise_does_not_depend_on_the_bits(make_scene, key):
    """Half the range of an 11-bit sensor is 30 x 1023 photo-electrons, and the read noise is 1 in 2047 of the range."""
    camera = make_scene.cameras.camera(key)
    band, half = camera.ms[1], camera.max_dn / 2
    flat = np.full((300, 300), half * band.radiance_per_dn, np.float32)
    numbers = make_scene.sensor.digitise(flat, band, np.random.default_rng(0), camera.max_dn)
    relative = math.sqrt(1 / (30 * 2047 / 2) + (2 / 2047) ** 2 + 1 / 12 / half**2)
    assert float(numbers.std()) / half == pytest.approx(relative, rel=0.02)


@pytest.mark.parametrize("key", ["wv4", "gf2", "skysat"])
def test_a_shift_of_any_size_is_exact(make_scene, monkeypatch, key):
    """On a linear ramp, shifting by (y, x) adds slope . (y, x), whatever the blur."""
    slopes, camera = (0.7, -0.4), make_scene.cameras.camera(key)
    shift, apart = (0.3, -1.27), [(0.0, 0.0), (0.11, 0.4), (-0.6, 0.05), (2.0, -3.0)]

    def ramp(canvas):
        along = (np.arange(canvas.size) - canvas.size / 2) / camera.supersampling
        ground = slopes[0] * along[:, None] + slopes[1] * along
        return np.broadcast_to(ground.astype(np.float32), (len(camera.bands), canvas.size, canvas.size))

    monkeypatch.setattr(make_scene.landscape, "build", lambda canvas, seed: None)
    monkeypatch.setattr(make_scene.Canvas, "radiance", ramp)
    monkeypatch.setattr(make_scene.sensor, "digitise", lambda seen, *_: seen)
    still, moved = (
        make_scene.simulate(6, 0, camera=camera, shift=by, band_shifts=off)
        for by, off in (((0, 0), ()), (shift, apart))
    )
    assert np.array_equal(still.pan, moved.pan)
    for before, after, own, told in zip(still.ms, moved.ms, apart, moved.shifts, strict=True):
        total = (shift[0] + own[0], shift[1] + own[1])
        assert told == total
        assert after - before == pytest.approx(np.full((6, 6), np.dot(slopes, total)), abs=2e-3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--shift", "1"), "--shift: '1' is not ROWS,COLUMNS in PAN pixels"),
        (("--shift", "1,2,3"), "'1,2,3' is not ROWS,COLUMNS"),
        (("--shift", "nan,0"), "'nan,0' is not ROWS,COLUMNS"),
        (("--sensor", "wv9"), "--sensor: unknown sensor 'wv9': known are qb, ik,"),
        (("--shift", "40,0", "--band-shift", "9"), "must be from 0 to 48 PAN pixels"),
        (("--band-shift", "-1"), "must be from 0 to 48 PAN pixels"),
        (("--size", "0"), "--size and --count must be at least 1"),
    ],
)
def test_a_wrong_option_is_one_line_and_code_2(tmp_path, options, words):
    command = [sys.executable, str(EXAMPLES / "make_scene.py"), "-o", str(tmp_path / "out"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert words in done.stderr
    assert not (tmp_path / "out").exists()


def refused(make_scene, capsys, *options):
    """The line with which the options are refused."""
    with pytest.raises(SystemExit) as stopped:
        make_scene.main(list(options))
    assert stopped.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_manifest_grows_and_no_scene_is_overwritten(make_scene, tmp_path, capsys):
    folder = ("-o", str(tmp_path), "--manifest", "--seed", "5")
    make_scene.main([*folder, *SMALL])
    make_scene.main([*folder, "--sensor", "ge1", "--size", "16"])
    before = (tmp_path / "qb-5" / "pan.tif").read_bytes()
    listed = (tmp_path / "manifest.json").read_bytes()
    assert "qb-5 is there already" in refused(make_scene, capsys, *folder, "--sensor", "QB02", "--size", "8")
    assert (tmp_path / "qb-5" / "pan.tif").read_bytes() == before
    assert (tmp_path / "manifest.json").read_bytes() == listed
    entries = read_manifest(tmp_path / "manifest.json", "train")
    assert [entry.name for entry in entries] == ["simulated qb 5", "simulated ge1 5"]
    assert [Path(entry.ms).parent.name for entry in entries] == ["qb-5", "ge1-5"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ge1-5", "manifest.json", "qb-5"]


@pytest.mark.parametrize("text", ['{"a": 1}', "not json", "[1]", '[{"files": 3}]'])
def test_a_foreign_manifest_is_left_alone(make_scene, tmp_path, capsys, text):
    (tmp_path / "manifest.json").write_text(text)
    assert "is no list of scenes" in refused(make_scene, capsys, "-o", str(tmp_path), "--manifest", *SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]
    assert (tmp_path / "manifest.json").read_text() == text


def test_a_folder_that_cannot_be_made_is_one_line(make_scene, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in refused(make_scene, capsys, "-o", str(tmp_path / "file" / "out"), *SMALL)


@pytest.mark.parametrize("key", ["wv4", "pneo", "skysat"])
def test_the_ground_around_reaches_as_far_as_the_shadows(make_scene, monkeypatch, key):
    """The tallest thing, 22 m, with the sun at 49.2 degrees."""
    camera, sizes = make_scene.cameras.camera(key), []
    monkeypatch.setattr(make_scene.landscape, "build", lambda canvas, seed: sizes.append(canvas.size * canvas.sample))
    make_scene.simulate(8, 0, camera=camera)
    assert (sizes[0] - 8 * camera.ratio * camera.pan_gsd) / 2 >= 22 / math.tan(math.radians(49.2))


def test_what_is_not_as_the_sensor_is_said(make_scene, tmp_path, capsys):
    make_scene.main(["-o", str(tmp_path), "--sensor", "skysat", "--size", "16", "--manifest"])
    assert capsys.readouterr().err.splitlines() == [
        "SkySat is simulated at ratio 2: at ratio 1, that of its products, there is nothing to sharpen"
    ]
    assert json.loads((tmp_path / "manifest.json").read_text())[0]["ratio"] == 2
    cameras = make_scene.cameras
    assert cameras.departures(cameras.camera("wv3")) == []
    (line,) = cameras.departures(cameras.camera("l7"))
    assert "PAN pixels of 2 m, not 15 m" in line


def test_band_shifts_are_drawn_by_the_seed_and_recorded(make_scene, tmp_path):
    for name in ("one", "again"):
        make_scene.main(["-o", str(tmp_path / name), *SMALL, "--band-shift", "0.8", "--shift", "2,0", "--manifest"])
    items = [json.loads((tmp_path / name / "manifest.json").read_text())[0] for name in ("one", "again")]
    shifts = np.array(items[0]["true_shifts_pan_px"])
    assert items[0] == items[1]
    assert shifts.shape == (4, 2)
    assert len(np.unique(shifts)) == 8
    assert float(np.abs(shifts - (2.0, 0.0)).max()) <= 0.8
    with rasterio.open(tmp_path / "one" / "qb-7" / "ms.tif") as ms:
        tags = [ms.tags(band)["TRUE_SHIFT_PAN_PX"] for band in ms.indexes]
    assert np.array([tag.split(",") for tag in tags], float) == pytest.approx(shifts, abs=1e-5)


def test_bands_that_lie_apart_are_found(make_scene, tmp_path):
    """To 0.15 MS pixels, by `survey`, in the bands that the PAN follows closely enough to be believed."""
    scene = make_scene.simulate(112, 3, shift=(0.3, -0.45), band_shifts=[(0, 0), (-1.1, 0.9), (1.2, -1.0), (0, 0)])
    make_scene.write_scene(tmp_path, scene, make_scene.sensor.WORLDVIEW_4)
    with open_pair(str(tmp_path / "pan.tif"), [str(tmp_path / "ms.tif")], PairOptions(sensor="wv4")) as pair:
        found = survey(pair.sample_windows(), pair.grid, pair.bands)
    for band in (1, 2):
        off = np.subtract(np.add(found.registration.shift, found.registration.band_shifts[band]), scene.shifts[band])
        assert float(np.abs(off).max()) < 0.15 * 4
        assert float(np.abs(np.subtract(found.registration.shift, scene.shifts[band])).max()) > 0.15 * 4
