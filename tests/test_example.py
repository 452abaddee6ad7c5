"""The example scene: its files, its determinism, and the physics that ties PAN to MS."""

import hashlib
import importlib
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SIZE, SEED, RATIO = 72, 7, 4


def make(folder: Path, *options: str) -> Path:
    """Run the script as a user does and return its folder."""
    command = [sys.executable, str(EXAMPLES / "make_scene.py"), "-o", str(folder), "--size", str(SIZE), *options]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return folder


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small scene with its reference."""
    return make(tmp_path_factory.mktemp("scene"), "--reference")


@pytest.fixture(scope="module")
def sensor() -> Iterator[ModuleType]:
    """The simulator's camera."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        yield importlib.import_module("simulator.sensor")
    finally:
        sys.path.remove(str(EXAMPLES))


def read(path: Path) -> NDArray[np.float64]:
    """All bands of a raster."""
    with rasterio.open(path) as source:
        return np.asarray(source.read(), dtype=np.float64)


def block_mean(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over RATIO x RATIO pixels of (C, H, W)."""
    bands, height, width = image.shape
    return np.asarray(image.reshape(bands, height // RATIO, RATIO, width // RATIO, RATIO).mean(axis=(2, 4)))


def explained(target: NDArray[np.float64], bands: NDArray[np.float64]) -> float:
    """Multiple correlation of an image (H, W) with bands (C, H, W), by least squares with a constant."""
    design = np.column_stack([*(band.ravel() for band in bands), np.ones(target.size)])
    fitted = design @ np.linalg.lstsq(design, target.ravel(), rcond=None)[0]
    return float(np.corrcoef(fitted, target.ravel())[0, 1])


@pytest.mark.parametrize("folder_is_committed", [False, True])
def test_grids_bands_and_colours(scene: Path, folder_is_committed: bool) -> None:
    folder, size = (EXAMPLES, 448) if folder_is_committed else (scene, SIZE)
    with rasterio.open(folder / "pan.tif") as pan, rasterio.open(folder / "ms.tif") as ms:
        assert (pan.count, pan.height, pan.width) == (1, size * RATIO, size * RATIO)
        assert (ms.count, ms.height, ms.width) == (4, size, size)
        assert pan.crs == ms.crs == rasterio.CRS.from_epsg(32633)
        assert (pan.transform.a, pan.transform.e) == (0.31, -0.31)
        assert ms.transform.a == RATIO * pan.transform.a
        assert pan.bounds == ms.bounds
        assert ms.descriptions == ("blue", "green", "red", "nir")
        assert ms.colorinterp == (ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.nir)
        assert ms.tags(ns="IMAGE_STRUCTURE")["COMPRESSION"] == "DEFLATE"
        assert set(pan.block_shapes + ms.block_shapes) == {(128, 128)}
        assert set(pan.dtypes + ms.dtypes) == {"uint16"}


def test_committed_files_are_small() -> None:
    assert sum((EXAMPLES / name).stat().st_size for name in ("pan.tif", "ms.tif")) < 6 * 2**20


@pytest.mark.parametrize(("name", "band_id", "groups"), [("pan", "P", ["P"]), ("ms", "Multi", ["B", "G", "R", "N"])])
def test_gdal_reads_the_vendor_metadata(scene: Path, name: str, band_id: str, groups: list[str]) -> None:
    with rasterio.open(scene / f"{name}.tif") as source:
        imagery, imd = source.tags(ns="IMAGERY"), source.tags(ns="IMD")
        corner = source.xy(0, 0)
        assert imd["numRows"] == str(source.height)
    assert imagery["SATELLITEID"] == "WV04"
    assert imagery["ACQUISITIONDATETIME"] == "2018-04-26 10:04:31"
    assert imd["bandId"].strip('"') == band_id
    assert imd["IMAGE_1.satId"].strip('"') == "WV04"
    text = (scene / f"{name}.IMD").read_text(encoding="ascii")
    assert [line.split("BAND_")[1] for line in text.splitlines() if line.startswith("BEGIN_GROUP = BAND_")] == groups
    assert [float(imd[f"BAND_{group}.absCalFactor"]) > 0 for group in groups] == [True] * len(groups)
    origin = float(imd["MAP_PROJECTED_PRODUCT.originX"]), float(imd["MAP_PROJECTED_PRODUCT.originY"])
    assert origin == pytest.approx(corner, abs=1e-6)


def test_same_seed_same_pixels_other_seed_other_pixels(scene: Path, tmp_path: Path) -> None:
    again, other = make(tmp_path / "again"), make(tmp_path / "other", "--seed", str(SEED + 1))
    for name in ("pan.tif", "ms.tif"):
        digests = [hashlib.sha256(read(folder / name).tobytes()).hexdigest() for folder in (scene, again, other)]
        assert digests[0] == digests[1] != digests[2]
    assert not (again / "reference.tif").exists()


@pytest.mark.parametrize("folder_is_committed", [False, True])
def test_numbers_fill_the_11_bits_without_saturation(scene: Path, folder_is_committed: bool) -> None:
    folder = EXAMPLES if folder_is_committed else scene
    for name in ("pan.tif", "ms.tif"):
        for band in read(folder / name):
            assert band.min() >= 1
            assert band.max() < 2047
            low, middle, high = np.percentile(band, (1, 50, 99))
            assert middle > 150
            assert high - low > 300


@pytest.mark.parametrize("folder_is_committed", [False, True])
def test_degraded_pan_is_explained_by_the_ms(scene: Path, folder_is_committed: bool) -> None:
    folder = EXAMPLES if folder_is_committed else scene
    pan, ms = block_mean(read(folder / "pan.tif"))[0], read(folder / "ms.tif")
    assert explained(pan, ms) > 0.95
    shifted = np.roll(pan, 1, axis=1)
    assert explained(shifted, ms) < explained(pan, ms) - 0.03


def test_reference_agrees_with_the_ms(scene: Path) -> None:
    reference, ms = read(scene / "reference.tif"), read(scene / "ms.tif")
    assert reference.shape == (4, SIZE * RATIO, SIZE * RATIO)
    for sharp, band in zip(block_mean(reference), ms, strict=True):
        assert float(np.corrcoef(sharp.ravel(), band.ravel())[0, 1]) > 0.95
        assert sharp.mean() == pytest.approx(band.mean(), rel=0.01)


@pytest.mark.parametrize(("pixel", "gain"), [(2, 0.16), (8, 0.23)])
def test_camera_passes_the_nyquist_gain(sensor: ModuleType, pixel: int, gain: float) -> None:
    margin, size = 8 * pixel, 64 * pixel
    position = np.arange(size) - margin + 0.5
    wave = np.cos(math.pi / pixel * (position - pixel / 2))
    ground = np.broadcast_to(1.0 + 0.5 * wave, (size, size)).astype(np.float32)
    picture = sensor.image_band(ground, pixel, margin, gain)
    alternating = 1.0 + 0.5 * gain * (-1.0) ** np.arange(picture.shape[1])
    assert picture == pytest.approx(np.broadcast_to(alternating, picture.shape), abs=2e-4)


def test_pan_is_the_wide_band_integral(sensor: ModuleType) -> None:
    pan = sensor.PAN_BAND.response()
    inside = (sensor.WAVELENGTHS >= 460) & (sensor.WAVELENGTHS <= 790)
    assert pan[inside].min() > 0.95
    assert pan[(sensor.WAVELENGTHS < 435) | (sensor.WAVELENGTHS > 815)].max() < 0.01
    light = sensor.material_light()
    blue, _, red, nir, wide = light["crop"].sum(axis=0)
    assert nir > wide > max(blue, red)
    assert light["river"].sum(axis=0)[3] < 0.05 * nir


def test_noise_grows_with_the_signal(sensor: ModuleType) -> None:
    band = sensor.PAN_BAND
    rng = np.random.default_rng(0)
    for dn in (100.0, 900.0):
        numbers = sensor.digitise(np.full((400, 400), dn * band.radiance_per_dn, np.float32), band, rng)
        expected = math.sqrt(dn / band.electrons_per_dn + band.read_noise_dn**2 + 1 / 12)
        assert float(numbers.std()) == pytest.approx(expected, rel=0.02)
        assert float(numbers.mean()) == pytest.approx(dn, abs=0.1)
