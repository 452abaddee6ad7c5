"""Make the example scene: a simulated WorldView-4-like PAN and MS pair, with the vendor's IMD files beside them."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin
from rasterio.warp import transform as reproject_points
from simulator import landscape, sensor
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
    """A finished pair: PAN (1, 4n, 4n) and MS (4, n, n) numbers; reference (4, 4n, 4n) when asked for."""

    pan: NDArray[np.uint16]
    ms: NDArray[np.uint16]
    reference: NDArray[np.uint16] | None


def simulate(ms_size: int, seed: int, with_reference: bool = False) -> Scene:
    """Build the landscape and photograph it.

    Args:
        ms_size: rows and columns of the MS.
        seed: the same seed gives the same pixels.
        with_reference: also image the MS bands at PAN resolution without noise, by an MTF as good there as the MS
            has at its own resolution.
    """
    step = sensor.SUPERSAMPLING
    ms_step = step * sensor.RATIO
    margin = MARGIN_PX * ms_step
    rng = np.random.default_rng([seed, 0])
    canvas = Canvas(ms_size * ms_step + 2 * margin, sensor.PAN_GSD / step, rng)
    landscape.build(canvas, seed)
    radiance = canvas.radiance()
    pan_band = sensor.PAN_BAND
    pan = sensor.image_band(radiance[-1], step, margin, pan_band.nyquist_gain)
    ms, reference = [], []
    for band, layer in zip(sensor.MS_BANDS, radiance, strict=False):
        ms.append(sensor.digitise(sensor.image_band(layer, ms_step, margin, band.nyquist_gain), band, rng))
        if with_reference:
            sharp = sensor.image_band(layer, step, margin, band.nyquist_gain) / band.radiance_per_dn
            reference.append(np.clip(np.rint(sharp), 1, sensor.MAX_DN).astype(np.uint16))
    return Scene(
        sensor.digitise(pan, pan_band, rng)[None], np.stack(ms), np.stack(reference) if with_reference else None
    )


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
        target.descriptions = tuple(BAND_TITLES[band.name] for band in bands)
        if len(bands) > 1:
            target.colorinterp = [COLOURS[band.name] for band in bands]
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
        "TDILevel": "16" if band is sensor.PAN_BAND else "8",
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
    """Make pan.tif and ms.tif, each with its IMD file, in a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent, help="folder (default: this one)")
    parser.add_argument("--seed", type=int, default=7, help="another seed, another town (default: %(default)s)")
    parser.add_argument("--size", type=int, default=448, metavar="MS_PX", help="MS rows and columns (default: 448)")
    parser.add_argument("--reference", action="store_true", help="also write reference.tif: ideal MS at PAN resolution")
    options = parser.parse_args(arguments)
    if options.size < 1 or options.seed < 0:
        parser.error("--size must be at least 1 and --seed at least 0")
    options.output.mkdir(parents=True, exist_ok=True)
    scene = simulate(options.size, options.seed, options.reference)
    pan_gsd, ms_gsd = sensor.PAN_GSD, sensor.PAN_GSD * sensor.RATIO
    write_raster(options.output / "pan.tif", scene.pan, [sensor.PAN_BAND], pan_gsd)
    write_imd(options.output / "pan.IMD", [sensor.PAN_BAND], options.size * sensor.RATIO, pan_gsd)
    write_raster(options.output / "ms.tif", scene.ms, sensor.MS_BANDS, ms_gsd)
    write_imd(options.output / "ms.IMD", sensor.MS_BANDS, options.size, ms_gsd)
    if scene.reference is not None:
        write_raster(options.output / "reference.tif", scene.reference, sensor.MS_BANDS, pan_gsd)


if __name__ == "__main__":
    main()
