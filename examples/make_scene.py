"""Make the example scene, or others for training: a simulated PAN and MS pair of any visible and near-infrared sensor.

Without arguments the example is made (WorldView-4, with IMD files). A set of scenes to train on, in `simulated/`:
python examples/make_scene.py --sensor wv2 --jitter --count 20 --reference --manifest -o simulated
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin
from rasterio.warp import transform as reproject_points
from simulator import cameras, landscape, sensor
from simulator.canvas import Canvas

EPSG = 32633
UPPER_LEFT = (470120.0, 5543860.0)
ACQUIRED = "2018-04-26T10:04:31.204500Z"
BAND_TITLES = {"B": "blue", "G": "green", "R": "red", "N": "nir", "P": "pan"}
COLOURS = {"B": ColorInterp.blue, "G": ColorInterp.green, "R": ColorInterp.red, "N": ColorInterp.nir}
MARGIN_PX = 16
"""MS pixels of ground around the picture that cast shadows and blur into it."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A finished pair: PAN (1, rn, rn) and MS (bands, n, n) numbers; reference (bands, rn, rn) when asked for."""

    pan: NDArray[np.uint16]
    ms: NDArray[np.uint16]
    reference: NDArray[np.uint16] | None


def simulate(
    ms_size: int,
    seed: int,
    with_reference: bool = False,
    camera: sensor.Camera = sensor.WORLDVIEW_4,
    shift: tuple[float, float] = (0.0, 0.0),
) -> Scene:
    """Build the landscape and photograph it.

    Args:
        ms_size: rows and columns of the MS.
        seed: the same seed gives the same pixels.
        camera: what it is photographed by.
        shift: how far the MS really lies from where its grid says, in PAN pixels (rows, columns), to half a pixel.
        with_reference: also image the MS bands at PAN resolution without noise, by an MTF as good there as the MS
            has at its own resolution.
    """
    step = sensor.SUPERSAMPLING
    ms_step = step * camera.ratio
    margin = MARGIN_PX * ms_step
    rng = np.random.default_rng([seed, 0])
    canvas = Canvas(ms_size * ms_step + 2 * margin, camera.pan_gsd / step, rng, camera.bands)
    landscape.build(canvas, seed)
    radiance = canvas.radiance()
    pan = sensor.image_band(radiance[-1], step, margin, camera.pan.nyquist_gain)
    moved = np.roll(radiance[:-1], [round(-s * step) for s in shift], axis=(1, 2))
    ms, reference = [], []
    for band, layer, off in zip(camera.ms, radiance[:-1], moved, strict=True):
        seen = sensor.image_band(off, ms_step, margin, band.nyquist_gain)
        ms.append(sensor.digitise(seen, band, rng, camera.max_dn))
        if with_reference:
            sharp = sensor.image_band(layer, step, margin, band.nyquist_gain) / band.radiance_per_dn
            reference.append(np.clip(np.rint(sharp), 1, camera.max_dn).astype(np.uint16))
    digits = sensor.digitise(pan, camera.pan, rng, camera.max_dn)
    return Scene(digits[None], np.stack(ms), np.stack(reference) if with_reference else None)


def write_raster(path: Path, data: NDArray[np.uint16], bands: Sequence[sensor.Band], gsd: float) -> None:
    """Write numbers as a tiled, compressed GeoTIFF with band names and colours."""
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        dtype="uint16",
        count=data.shape[0],
        height=data.shape[1],
        width=data.shape[2],
        crs=f"EPSG:{EPSG}",
        transform=from_origin(*UPPER_LEFT, gsd, gsd),
        tiled=True,
        blockxsize=128,
        blockysize=128,
        compress="deflate",
        zlevel=9,
        predictor=2,
        photometric="MINISBLACK",
    ) as target:
        target.write(data)
        target.descriptions = tuple(BAND_TITLES.get(band.name, band.name) for band in bands)
        if len(bands) > 1:
            target.colorinterp = [COLOURS.get(band.name, ColorInterp.undefined) for band in bands]
        target.update_tags(
            TIFFTAG_IMAGEDESCRIPTION="Simulated scene: no place, no satellite", TIFFTAG_DATETIME="2018:04:26 10:04:31"
        )


def write_imd(path: Path, bands: Sequence[sensor.Band], size: int, gsd: float) -> None:
    """Write image metadata in the vendor's keyword format, as GDAL reads it into its IMD and IMAGERY domains."""
    lines = [
        'version = "28.3";',
        f"generationTime = {ACQUIRED};",
        'productOrderId = "000000000000_01_P001";',
        'productCatalogId = "0000000000000000";',
        'imageDescriptor = "ORStandard2A";',
        f'bandId = "{"P" if len(bands) == 1 else "Multi"}";',
        'panSharpenAlgorithm = "None";',
        f"numRows = {size};",
        f"numColumns = {size};",
        'productLevel = "LV2A";',
        'productType = "Standard";',
        "numberOfLooks = 1;",
        'radiometricLevel = "Corrected";',
        'radiometricEnhancement = "Off";',
        "bitsPerPixel = 16;",
        'compressionType = "None";',
        'outputFormat = "GeoTIFF";',
    ]
    corners = _geographic(_corners(size, gsd))
    for band in bands:
        lines += _group(f"BAND_{band.name}", corners | _calibration(band))
    lines += _group("IMAGE_1", _image_fields(gsd))
    lines += _group("MAP_PROJECTED_PRODUCT", _map_fields(size, gsd))
    path.write_text("\n".join([*lines, "END;", ""]), encoding="ascii", newline="\n")


def _group(name: str, fields: dict[str, str]) -> list[str]:
    return [f"BEGIN_GROUP = {name}", *(f"\t{key} = {value};" for key, value in fields.items()), f"END_GROUP = {name}"]


def _corners(size: int, gsd: float) -> dict[str, tuple[float, float]]:
    """Map coordinates of the outermost pixel centres."""
    left, top = UPPER_LEFT[0] + gsd / 2, UPPER_LEFT[1] - gsd / 2
    right, bottom = left + (size - 1) * gsd, top - (size - 1) * gsd
    return {"UL": (left, top), "UR": (right, top), "LR": (right, bottom), "LL": (left, bottom)}


def _geographic(corners: dict[str, tuple[float, float]]) -> dict[str, str]:
    x, y = zip(*corners.values(), strict=True)
    lon, lat = reproject_points(f"EPSG:{EPSG}", "EPSG:4326", x, y)[:2]
    fields: dict[str, str] = {}
    for name, east, north in zip(corners, lon, lat, strict=True):
        fields |= {f"{name}Lon": f"{east:.8f}", f"{name}Lat": f"{north:.8f}", f"{name}HAE": "0.00"}
    return fields


def _calibration(band: sensor.Band) -> dict[str, str]:
    """The factors that turn numbers into radiance: L = DN * absCalFactor / effectiveBandwidth, W m-2 sr-1 um-1."""
    step_um = float(sensor.WAVELENGTHS[1] - sensor.WAVELENGTHS[0]) / 1000.0
    width = float(band.response().sum()) * step_um
    return {
        "absCalFactor": f"{band.radiance_per_dn * width:.6e}",
        "effectiveBandwidth": f"{width:.6e}",
        "TDILevel": "16" if band.name == sensor.PAN_BAND.name else "8",
    }


def _image_fields(gsd: float) -> dict[str, str]:
    return {
        "satId": '"WV04"',
        "mode": '"FullSwath"',
        "scanDirection": '"Forward"',
        "CatId": '"0000000000000000"',
        "firstLineTime": ACQUIRED,
        "minCollectedGSD": f"{gsd:.3f}",
        "maxCollectedGSD": f"{gsd:.3f}",
        "meanCollectedGSD": f"{gsd:.3f}",
        "meanSunAz": f"{sensor.SUN_AZIMUTH:.1f}",
        "meanSunEl": f"{sensor.SUN_ELEVATION:.1f}",
        "meanSatAz": "0.0",
        "meanSatEl": "90.0",
        "meanOffNadirViewAngle": "0.0",
        "cloudCover": "0.000",
        "resamplingKernel": '"CC"',
    }


def _map_fields(size: int, gsd: float) -> dict[str, str]:
    corners = _corners(size, gsd)
    fields = {
        "earliestAcqTime": ACQUIRED,
        "latestAcqTime": ACQUIRED,
        "datumName": '"WE"',
        "semiMajorAxis": "6378137.0000",
        "inverseFlattening": "298.257223563",
        "mapProjName": '"UTM"',
        "mapZone": "33",
        "mapHemisphere": '"N"',
        "productUnits": '"M"',
        "originX": f"{corners['UL'][0]:.8f}",
        "originY": f"{corners['UL'][1]:.8f}",
        "orientationAngle": "0.0",
        "colSpacing": f"{gsd:.2f}",
        "rowSpacing": f"{gsd:.2f}",
        "productGSD": f"{gsd:.2f}",
    }
    for name, (x, y) in corners.items():
        fields |= {f"{name}X": f"{x:.8f}", f"{name}Y": f"{y:.8f}"}
    return fields


def main(arguments: Sequence[str] | None = None) -> None:
    """Make pan.tif and ms.tif in a folder, or in one folder per seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent, help="folder (default: this one)")
    parser.add_argument("--seed", type=int, default=7, help="another seed, another town (default: %(default)s)")
    parser.add_argument("--size", type=int, default=448, metavar="MS_PX", help="MS rows and columns (default: 448)")
    parser.add_argument("--reference", action="store_true", help="also write reference.tif: ideal MS at PAN resolution")
    parser.add_argument("--sensor", default="wv4", help="sensor of the table of CrossDiff (default: %(default)s)")
    parser.add_argument("--jitter", action="store_true", help="vary its band edges, MTF gains and noise by the seed")
    parser.add_argument("--shift", default="0,0", metavar="Y,X", help="PAN pixels that the MS lies off (default: 0,0)")
    parser.add_argument("--count", type=int, default=1, help="scenes, of successive seeds, each in its own folder")
    parser.add_argument("--manifest", action="store_true", help="also write manifest.json, for `crossdiff pretrain`")
    options = parser.parse_args(arguments)
    if options.size < 1 or options.seed < 0 or options.count < 1:
        parser.error("--size and --count must be at least 1 and --seed at least 0")
    shift = tuple(float(part) for part in options.shift.split(","))
    items = []
    for seed in range(options.seed, options.seed + options.count):
        folder = options.output / str(seed) if options.count > 1 else options.output
        rng = np.random.default_rng([seed, 1]) if options.jitter else None
        camera = cameras.camera(options.sensor, rng)
        write_scene(folder, simulate(options.size, seed, options.reference, camera, (shift[0], shift[1])), camera)
        names = ["pan", "ms", *(["reference"] if options.reference else [])]
        items.append(
            {
                "name": f"simulated {camera.key} {seed}",
                "sensor": camera.key,
                "bands": [band.name for band in camera.ms],
                "split": "train",
                "files": {name: str((folder / f"{name}.tif").relative_to(options.output)) for name in names},
            }
        )
    if options.manifest:
        (options.output / "manifest.json").write_text(json.dumps(items, indent=1), encoding="utf-8")


def write_scene(folder: Path, scene: Scene, camera: sensor.Camera) -> None:
    """Write pan.tif, ms.tif and perhaps reference.tif; IMD files beside the first two for WorldView-4."""
    folder.mkdir(parents=True, exist_ok=True)
    ms_gsd = camera.pan_gsd * camera.ratio
    write_raster(folder / "pan.tif", scene.pan, [camera.pan], camera.pan_gsd)
    write_raster(folder / "ms.tif", scene.ms, camera.ms, ms_gsd)
    if camera.key == sensor.WORLDVIEW_4.key:
        write_imd(folder / "pan.IMD", [camera.pan], scene.pan.shape[1], camera.pan_gsd)
        write_imd(folder / "ms.IMD", camera.ms, scene.ms.shape[1], ms_gsd)
    if scene.reference is not None:
        write_raster(folder / "reference.tif", scene.reference, camera.ms, camera.pan_gsd)


if __name__ == "__main__":
    main()
