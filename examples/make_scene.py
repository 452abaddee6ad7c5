"""Make the example scene, or others for training: a simulated PAN and MS pair of any visible and near-infrared sensor.

Without arguments the example is made (WorldView-4, with IMD files). A set of scenes to train on, in `simulated/`:
python examples/make_scene.py --sensor wv2 --jitter --count 20 --reference --manifest -o simulated
"""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin
from rasterio.warp import transform as reproject_points
from simulator import cameras, landscape, manifest, sensor
from simulator.canvas import LONGEST_SHADOW, Canvas

from crossdiff_cli.errors import CrossDiffError, OutputError, SensorError
from crossdiff_cli.sensors.table import SENSORS, find_sensor

EPSG = 32633
UPPER_LEFT = (470120.0, 5543860.0)
ACQUIRED = "2018-04-26T10:04:31.204500Z"
BAND_TITLES = {"B": "blue", "G": "green", "R": "red", "N": "nir", "P": "pan"}
COLOURS = {"B": ColorInterp.blue, "G": ColorInterp.green, "R": ColorInterp.red, "N": ColorInterp.nir}
MARGIN_PX = 16
"""MS pixels of ground around the picture that cast shadows and blur into it, at least."""
FARTHEST_PX = 12
"""MS pixels that the MS may lie off; the rest of the margin is for the blur."""

_SHIFT_HELP = "PAN pixels that the MS lies off, whole or not (default: 0,0; negative: --shift=-0.3,1)"
_BAND_SHIFT_HELP = "each MS band lies off by its own amount, at most so many PAN pixels either way, drawn by the seed"

Shift = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Scene:
    """A finished pair: PAN (1, rn, rn) and MS (bands, n, n) numbers; reference (bands, rn, rn) when asked for."""

    pan: NDArray[np.uint16]
    ms: NDArray[np.uint16]
    reference: NDArray[np.uint16] | None
    shifts: tuple[Shift, ...]
    """How far each band of the MS lies from where its grid says, in PAN pixels (rows, columns)."""


def simulate(
    ms_size: int,
    seed: int,
    with_reference: bool = False,
    camera: sensor.Camera = sensor.WORLDVIEW_4,
    shift: Shift = (0.0, 0.0),
    band_shifts: Sequence[Shift] = (),
) -> Scene:
    """Build the landscape and photograph it.

    Args:
        ms_size: rows and columns of the MS.
        seed: the same seed gives the same pixels.
        camera: what it is photographed by.
        shift: how far the MS really lies from where its grid says, in PAN pixels (rows, columns), whole or not.
        band_shifts: how far each band lies from there, likewise; none where empty.
        with_reference: also image the MS bands at PAN resolution without noise, by an MTF as good there as the MS
            has at its own resolution. It lies where the PAN lies.
    """
    step = camera.supersampling
    ms_step = step * camera.ratio
    margin = max(MARGIN_PX, math.ceil(LONGEST_SHADOW / (camera.pan_gsd * camera.ratio))) * ms_step
    rng = np.random.default_rng([seed, 0])
    canvas = Canvas(ms_size * ms_step + 2 * margin, camera.pan_gsd / step, rng, camera.bands)
    landscape.build(canvas, seed)
    radiance = canvas.radiance()
    pan = sensor.image_band(radiance[-1], step, margin, camera.pan.nyquist_gain)
    apart = band_shifts or [(0.0, 0.0)] * len(camera.ms)
    shifts = tuple((shift[0] + rows, shift[1] + columns) for rows, columns in apart)
    ms, reference = [], []
    for band, layer, off in zip(camera.ms, radiance[:-1], shifts, strict=True):
        seen = sensor.image_band(layer, ms_step, margin, band.nyquist_gain, (off[0] * step, off[1] * step))
        ms.append(sensor.digitise(seen, band, rng, camera.max_dn))
        if with_reference:
            sharp = sensor.image_band(layer, step, margin, band.nyquist_gain) / band.radiance_per_dn
            reference.append(np.clip(np.rint(sharp), 1, camera.max_dn).astype(np.uint16))
    digits = sensor.digitise(pan, camera.pan, rng, camera.max_dn)
    return Scene(digits[None], np.stack(ms), np.stack(reference) if with_reference else None, shifts)


def write_raster(
    path: Path, data: NDArray[np.uint16], bands: Sequence[sensor.Band], gsd: float, shifts: Sequence[Shift] = ()
) -> None:
    """Write numbers as a tiled, compressed GeoTIFF with band names, colours and, of bands that lie off, their shift."""
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
        for index, shift in enumerate(shifts, 1):
            if any(shift):
                target.update_tags(index, TRUE_SHIFT_PAN_PX="{:.6g},{:.6g}".format(*shift))


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


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def _sensor_key(text: str) -> str:
    try:
        return find_sensor(text).key
    except SensorError:
        raise argparse.ArgumentTypeError(f"unknown sensor {text!r}: known are {', '.join(SENSORS)}") from None


def _shift(text: str) -> Shift:
    try:
        rows, columns = (float(part) for part in text.split(","))
    except ValueError:
        rows = columns = math.nan
    if not math.isfinite(rows + columns):
        raise argparse.ArgumentTypeError(f"{text!r} is not ROWS,COLUMNS in PAN pixels, such as 0.3,-1.25")
    return rows, columns


def _parser() -> _Parser:
    parser = _Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent, help="folder (default: this one)")
    parser.add_argument("--seed", type=int, default=7, help="another seed, another town (default: %(default)s)")
    parser.add_argument("--size", type=int, default=448, metavar="MS_PX", help="MS rows and columns (default: 448)")
    parser.add_argument("--reference", action="store_true", help="also write reference.tif: ideal MS at PAN resolution")
    parser.add_argument("--sensor", type=_sensor_key, default="wv4", help="sensor of the table (default: %(default)s)")
    parser.add_argument("--jitter", action="store_true", help="vary its band edges, MTF gains and noise by the seed")
    parser.add_argument("--shift", type=_shift, default=(0.0, 0.0), metavar="Y,X", help=_SHIFT_HELP)
    parser.add_argument("--band-shift", type=float, default=0.0, metavar="PX", help=_BAND_SHIFT_HELP)
    parser.add_argument("--count", type=int, default=1, help="scenes of successive seeds, each in a folder SENSOR-SEED")
    parser.add_argument("--manifest", action="store_true", help="list them in manifest.json, for `crossdiff pretrain`")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Make pan.tif and ms.tif in a folder; with --count or --manifest in one folder per scene."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.size < 1 or options.seed < 0 or options.count < 1:
        parser.error("--size and --count must be at least 1 and --seed at least 0")
    plain = cameras.camera(options.sensor)
    farthest = FARTHEST_PX * plain.ratio
    if not 0.0 <= options.band_shift <= farthest - max(abs(part) for part in options.shift):
        parser.error(f"--shift and --band-shift together must be from 0 to {farthest} PAN pixels ({plain.ratio} to 1)")
    try:
        _make(options, plain)
    except (CrossDiffError, OSError, MemoryError) as error:
        parser.exit(1, f"{parser.prog}: error: {error}\n")


def _make(options: argparse.Namespace, plain: sensor.Camera) -> None:
    """Make the scenes that are asked for.

    Raises:
        ManifestError, OutputError: a foreign manifest or the scene is there already.
        OSError: a file cannot be written.
    """
    apart = options.count > 1 or options.manifest
    seeds = range(options.seed, options.seed + options.count)
    folders = [options.output / f"{plain.key}-{seed}" if apart else options.output for seed in seeds]
    there = [folder for folder in folders if apart and folder.exists()]
    if there:
        raise OutputError(f"{there[0]} is there already: choose another --seed or -o, or remove it")
    if options.manifest:
        manifest.read(options.output)
    for line in cameras.departures(plain):
        print(line, file=sys.stderr)
    for seed, folder in zip(seeds, folders, strict=True):
        camera = cameras.camera(options.sensor, np.random.default_rng([seed, 1])) if options.jitter else plain
        offsets = np.random.default_rng([seed, 6]).uniform(-1, 1, (len(camera.ms), 2)) * options.band_shift
        band_shifts = [(float(rows), float(columns)) for rows, columns in offsets]
        scene = simulate(options.size, seed, options.reference, camera, options.shift, band_shifts)
        write_scene(folder, scene, camera)
        if options.manifest:
            manifest.append(options.output, _entry(folder.name, seed, scene, camera))


def _entry(folder: str, seed: int, scene: Scene, camera: sensor.Camera) -> dict[str, object]:
    names = ["pan", "ms", *(["reference"] if scene.reference is not None else [])]
    return {
        "name": f"simulated {camera.key} {seed}",
        "sensor": camera.key,
        "bands": [band.name for band in camera.ms],
        "split": "train",
        "files": {name: f"{folder}/{name}.tif" for name in names},
        "ratio": camera.ratio,
        "pan_gsd_m": camera.pan_gsd,
        "true_shifts_pan_px": [list(shift) for shift in scene.shifts],
    }


def write_scene(folder: Path, scene: Scene, camera: sensor.Camera) -> None:
    """Write pan.tif, ms.tif and perhaps reference.tif; IMD files beside the first two for WorldView-4."""
    folder.mkdir(parents=True, exist_ok=True)
    ms_gsd = camera.pan_gsd * camera.ratio
    write_raster(folder / "pan.tif", scene.pan, [camera.pan], camera.pan_gsd)
    write_raster(folder / "ms.tif", scene.ms, camera.ms, ms_gsd, scene.shifts)
    if camera.key == sensor.WORLDVIEW_4.key:
        write_imd(folder / "pan.IMD", [camera.pan], scene.pan.shape[1], camera.pan_gsd)
        write_imd(folder / "ms.IMD", camera.ms, scene.ms.shape[1], ms_gsd)
    if scene.reference is not None:
        write_raster(folder / "reference.tif", scene.reference, camera.ms, camera.pan_gsd)


if __name__ == "__main__":
    main()
