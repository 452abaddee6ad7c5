"""The STAC item of a result: what it is, where and when, how it was made, and what from."""

import json
import math
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pyproj import Geod
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.transform import Affine, GCPTransformer, RPCTransformer, TransformerBase
from rasterio.warp import transform, transform_geom

from crossdiff_cli import __version__
from crossdiff_cli.errors import OutputError
from crossdiff_cli.io.hints import Hints
from crossdiff_cli.io.identify import read_hints
from crossdiff_cli.io.pair import ScenePair
from crossdiff_cli.io.writer import OutputProfile
from crossdiff_cli.sensors.table import Band
from crossdiff_cli.system.atomic import replacing

_SCHEMA = "https://stac-extensions.github.io/{}/schema.json"
_EXTENSIONS = [
    _SCHEMA.format(name) for name in ("eo/v2.0.0", "projection/v2.0.0", "raster/v2.0.0", "processing/v1.2.0")
]
_COMMON_NAMES = {
    "CA": "coastal", "DB": "coastal", "B": "blue", "G": "green", "Y": "yellow", "R": "red", "RE": "rededge",
    "RE1": "rededge071", "RE2": "rededge075", "RE3": "rededge078", "NIR": "nir", "N1": "nir08", "N2": "nir09",
    "CIRRUS": "cirrus", "SWIR1": "swir16", "SWIR2": "swir22", "TIR": "lwir", "TIR1": "lwir11", "TIR2": "lwir12",
}  # fmt: skip
_INSTRUMENTS = ("ETM+", "OLI-2", "OLI", "PMS", "WPM")
_UNNAMED = ("vhr", "generic")
_GEOTIFF = "image/tiff; application=geotiff"
_EDGE_METRES = 10_000.0
"""Sides of the footprint get a vertex at least this often: a straight side on the ground is none in degrees."""
_FIRST_SATELLITE = datetime(1972, 7, 23, tzinfo=UTC)
"""Launch of Landsat 1: no scene is older, and what metadata date earlier was not read."""


def item_path(result: Path) -> Path:
    """Where the item of a result lies: beside it, under the same name.

    Raises:
        OutputError: the result itself has that name.
    """
    path = result.with_suffix(".json")
    if path == result:
        raise OutputError(
            "the result would have the name of its own STAC item", path=result, cure="call the result .tif"
        )
    return path


def write_item(result: Path, profile: OutputProfile, pair: ScenePair, consistency: float) -> Path:
    """Write the item of a result that is complete; an old one is replaced, and only by a complete one.

    Raises:
        OutputError: it cannot be written.
    """
    path = item_path(result)
    try:
        with replacing(path) as temporary:
            text = json.dumps(item(result, profile, pair, consistency), indent=2, allow_nan=False)
            temporary.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"the STAC item cannot be written, while {result} is complete", path=path, found=error.strerror
        ) from error
    return path


def item(result: Path, profile: OutputProfile, pair: ScenePair, consistency: float) -> dict[str, Any]:
    """Describe a result as a STAC 1.1 item with the extensions eo, projection, raster and processing.

    Args:
        result: the file; links are relative to its folder.
        profile: what the file is.
        pair: what it was made from.
        consistency: as `SharpenResult.consistency`.
    """
    hints = [read_hints(raster.dataset()) for raster in (pair.pan, *pair.ms)]
    geometry = _footprint(profile)
    sources = [_href(raster.path, result.parent) for raster in (pair.pan, *pair.ms)]
    names = [Path(source).name for source in sources]
    weights = profile.tags.get("CROSSDIFF_WEIGHTS", "")
    properties = {
        **_time(hints),
        "created": _utc(datetime.now(UTC)),
        **_platform(pair),
        **_grid(profile),
        **_clouds(hints),
        "processing:software": {"crossdiff": __version__},
        "processing:lineage": f"{', '.join(names[1:])} sharpened with {names[0]} by CrossDiff, weights {weights[:16]}",
        "crossdiff:weights": weights,
        "crossdiff:consistency": round(consistency, 6),
        **_mtf(profile),
        "crossdiff:shift_px": [float(v) for v in profile.tags.get("CROSSDIFF_SHIFT_PX", "0,0").split(",")],
    }
    asset = {
        "href": f"./{result.name}",
        "type": f"{_GEOTIFF}; profile=cloud-optimized" if profile.driver == "COG" else _GEOTIFF,
        "title": "sharpened multispectral image",
        "roles": ["data"],
        "data_type": profile.dtype,
        **_nodata(profile.nodata),
        **({"raster:spatial_resolution": properties["gsd"]} if "gsd" in properties else {}),
        "bands": [_band(*band) for band in zip(profile.bands, profile.scales, profile.offsets, strict=True)],
    }
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": _EXTENSIONS,
        "id": result.stem,
        "geometry": geometry,
        **({"bbox": _bbox(geometry)} if geometry else {}),
        "properties": properties,
        "links": [
            {"rel": "derived_from", "href": source, **({"type": _GEOTIFF} if _is_tiff(source) else {})}
            for source in sources
        ],
        "assets": {"data": asset},
    }


def _mtf(profile: OutputProfile) -> dict[str, Any]:
    """Nyquist gain of each band of the MS and where it is from, as the tags of the result say."""
    gains, sources = (profile.tags.get(f"CROSSDIFF_{name}", "") for name in ("NYQUIST_GAINS", "MTF_SOURCE"))
    if not gains:
        return {}
    return {
        "crossdiff:nyquist_gains": [float(gain) for gain in gains.split(",")],
        "crossdiff:mtf_source": sources.split(","),
    }


def _band(band: Band, scale: float, offset: float) -> dict[str, Any]:
    common = _COMMON_NAMES.get(band.name)
    return {
        "name": band.name,
        **({"eo:common_name": common} if common else {}),
        "eo:center_wavelength": round(band.center_nm / 1000, 6),
        "eo:full_width_half_max": round(band.width_nm / 1000, 6),
        "raster:scale": float(scale),
        "raster:offset": float(offset),
    }


def _nodata(value: float | None) -> dict[str, Any]:
    if value is None:
        return {}
    if not math.isfinite(value):
        return {"nodata": "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"}
    return {"nodata": int(value) if float(value).is_integer() else value}


def _time(hints: list[Hints]) -> dict[str, Any]:
    """When the scene was taken; where no metadata say, the time that it was certainly taken in."""
    for found in (moment for one in hints for moment in _moments(one)):
        return {"datetime": _utc(found)}
    return {"datetime": None, "start_datetime": _utc(_FIRST_SATELLITE), "end_datetime": _utc(datetime.now(UTC))}


def _moments(hints: Hints) -> Iterator[datetime]:
    pairs = (("DATE_ACQUIRED", "SCENE_CENTER_TIME"), ("IMAGING_DATE", "IMAGING_TIME"))
    texts = [
        hints.imagery.get("ACQUISITIONDATETIME"),
        hints.tags.get("ACQUISITIONDATETIME"),
        hints.fact("firstLineTime"),
    ]
    texts += [f"{hints.fact(day)} {hints.fact(time)}" for day, time in pairs]
    for text in texts:
        # Landsat counts seven decimals of a second, of which `datetime` takes six.
        clean = re.sub(r"(\.\d{6})\d+", r"\1", (text or "").strip(' "'))
        try:
            moment = datetime.fromisoformat(clean)
        except ValueError:
            continue
        moment = moment.replace(tzinfo=moment.tzinfo or UTC)
        if moment >= _FIRST_SATELLITE:
            yield moment


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _platform(pair: ScenePair) -> dict[str, Any]:
    if pair.sensor.key in _UNNAMED:
        return {}
    name = pair.sensor.name
    instrument = next((word for word in _INSTRUMENTS if name.endswith(f" {word}")), "")
    platform = name.removesuffix(instrument).strip().lower().replace(" ", "-")
    return {"platform": platform, **({"instruments": [instrument.lower()]} if instrument else {})}


def _clouds(hints: list[Hints]) -> dict[str, float]:
    for one in hints:
        try:
            cover = float(one.imagery.get("CLOUDCOVER", ""))
        except ValueError:
            continue
        if 0 <= cover <= 100:  # the vendor's 999 means that nobody looked
            return {"eo:cloud_cover": cover}
    return {}


def _grid(profile: OutputProfile) -> dict[str, Any]:
    fields: dict[str, Any] = {"proj:shape": list(profile.shape)}
    if profile.transform is None:
        return fields
    corners = _outline(profile, 1)
    xs, ys = zip(*corners, strict=True)
    fields["proj:transform"] = [_short(value) for value in profile.transform[:6]]
    fields["proj:bbox"] = [_short(value) for value in (min(xs), min(ys), max(xs), max(ys))]
    if profile.crs is None:
        return {**fields, "proj:code": None}
    authority = profile.crs.to_authority()
    fields["proj:code"] = None if authority is None else ":".join(authority)
    if authority is None:
        fields["proj:wkt2"] = profile.crs.to_wkt(version="WKT2_2019")
    return {"gsd": round(_pixel_metres(profile.crs, profile.transform, profile.shape), 4), **fields}


def _short(value: float) -> float:
    """Without the noise of the last binary digits: 470249.89, not 470249.88999999996."""
    return float(f"{value:.15g}")


def _pixel_metres(crs: CRS, transform: Affine, shape: tuple[int, int]) -> float:
    """Side of a square pixel of the same area, in metres."""
    if not crs.is_geographic:
        return float(abs(transform.determinant) ** 0.5 * crs.linear_units_factor[1])
    middle = (shape[1] / 2, shape[0] / 2)
    x, y = transform @ middle
    sides = [transform @ (middle[0] + dx, middle[1] + dy) for dx, dy in ((1, 0), (0, 1))]
    right, down = (Geod(ellps="WGS84").inv(x, y, *side)[2] for side in sides)
    return float(math.sqrt(right * down))


def _outline(profile: OutputProfile, parts: int) -> list[tuple[float, float]]:
    """The image's outline from the upper left corner down, in its own coordinates: 4 x `parts` points."""
    rows, cols = profile.shape
    steps = [i / parts for i in range(parts)]
    ring = [
        *((0.0, rows * t) for t in steps),
        *((cols * t, float(rows)) for t in steps),
        *((float(cols), rows * (1 - t)) for t in steps),
        *((cols * (1 - t), 0.0) for t in steps),
    ]
    if profile.transform is None:
        return ring
    return [(float(x), float(y)) for x, y in (profile.transform @ point for point in ring)]


def _edge_parts(profile: OutputProfile) -> int:
    if profile.transform is None or profile.crs is None:
        return 1
    side = max(profile.shape) * _pixel_metres(profile.crs, profile.transform, profile.shape)
    return min(max(1, math.ceil(side / _EDGE_METRES)), 32)


def _footprint(profile: OutputProfile) -> dict[str, Any] | None:
    """The outline on WGS84 (GeoJSON) by geotransform, control points or RPCs; None where there are none of them."""
    ring = _outline(profile, _edge_parts(profile))
    if profile.transform is not None and profile.crs is not None:
        polygon = {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
        try:
            return _plain(transform_geom(profile.crs, "EPSG:4326", polygon, precision=7))
        except RasterioError:
            return None
    points, crs = profile.control_points
    if points:
        with GCPTransformer(list(points), tps=True) as transformer:
            return _placed_footprint(transformer, ring, crs)
    if profile.rpcs is not None:
        with RPCTransformer(profile.rpcs) as transformer:
            return _placed_footprint(transformer, ring, None, zs=[profile.rpcs.height_off] * len(ring))
    return None


def _placed_footprint(
    transformer: TransformerBase, ring: list[tuple[float, float]], crs: CRS | None, **heights: Any
) -> dict[str, Any] | None:
    """A ring of pixels (column, row) where a transformer places it; `crs` None: on WGS84."""
    cols, rows = zip(*ring, strict=True)
    x, y = transformer.xy(rows, cols, offset="ul", **heights)
    longitudes, latitudes = (x, y) if crs is None else transform(crs, "EPSG:4326", list(x), list(y))[:2]
    points = [[round(float(x), 7), round(float(y), 7)] for x, y in zip(longitudes, latitudes, strict=True)]
    if not all(math.isfinite(value) for point in points for value in point):
        return None
    return {"type": "Polygon", "coordinates": [[*points, points[0]]]}


def _plain(geometry: Any) -> dict[str, Any] | None:
    """Lists instead of tuples; None for coordinates that are nowhere on Earth."""
    plain: dict[str, Any] = json.loads(json.dumps({name: geometry[name] for name in ("type", "coordinates")}))
    return plain if all(math.isfinite(value) for ring in _rings(plain) for point in ring for value in point) else None


def _rings(geometry: dict[str, Any]) -> list[list[list[float]]]:
    polygons = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
    return [ring for polygon in polygons for ring in polygon]


def _bbox(geometry: dict[str, Any]) -> list[float]:
    """West, south, east, north; west exceeds east where the 180th meridian cuts the footprint (RFC 7946)."""
    rings = _rings(geometry)
    xs = [[point[0] for point in ring] for ring in rings]
    ys = [point[1] for ring in rings for point in ring]
    west, east = min(map(min, xs)), max(map(max, xs))
    if len(rings) > 1:
        west, east = min(min(x) for x in xs if min(x) >= 0), max(max(x) for x in xs if max(x) <= 0)
    return [west, min(ys), east, max(ys)]


def _href(path: str, folder: Path) -> str:
    """A source as others can find it: a URL, or a path relative to the item."""
    for prefix, url in (("/vsicurl/", ""), ("/vsis3/", "s3://"), ("/vsigs/", "gs://"), ("/vsiaz/", "az://")):
        if path.startswith(prefix):
            return url + path.removeprefix(prefix)
    if path.startswith("/vsi") or re.match(r"[A-Za-z][A-Za-z0-9+_]+:", path):
        return path
    return Path(os.path.relpath(path, folder)).as_posix()


def _is_tiff(source: str) -> bool:
    return source.lower().endswith((".tif", ".tiff"))
