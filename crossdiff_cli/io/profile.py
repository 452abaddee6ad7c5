"""What a result says of itself: grid, type, bands and tags."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from crossdiff_cli import __version__
from crossdiff_cli.errors import OutputError
from crossdiff_cli.geometry.window import Window
from crossdiff_cli.io.pair import ScenePair
from crossdiff_cli.io.writer import OutputProfile
from crossdiff_cli.sensors.table import Band

_OF_THE_PAN = ("ACQUISITIONDATETIME", "SATELLITEID", "CLOUDCOVER", "TIFFTAG_DATETIME", "AREA_OR_POINT")
"""Tags that the PAN gives to a result whose MS does not have them."""
_UNTRUE = re.compile(
    r"STATISTICS_|CROSSDIFF_|TIFFTAG_(?:SOFTWARE|[XY]RESOLUTION|RESOLUTIONUNIT)$|OVR_RESAMPLING_ALG$|Band_\d+$"
    r"|(?:wavelength|wavelength_units|fwhm)$"
)
"""Tags of the MS that its result makes untrue, or that are written anew."""


def profile_of(
    pair: ScenePair,
    extent: Window,
    chosen: Sequence[int],
    dtype: str | None,
    driver: str,
    creation: Mapping[str, str],
    *,
    tags: Mapping[str, str],
) -> OutputProfile:
    """Describe the result of a scene.

    Args:
        pair: the scene.
        extent: part of the PAN that is written.
        chosen: places of the bands that are written.
        dtype: None for that of the MS.
        driver: GTiff or COG.
        creation: its options.
        tags: provenance: what was estimated, and by which weights it was sharpened.

    Raises:
        OutputError: the nodata value does not fit the type.
    """
    dtype = dtype or pair.dtype
    nodata = pair.nodata
    if nodata is None and extent.intersection(pair.footprint) != extent:
        nodata = 0.0
    if nodata is not None and not _fits(nodata, dtype):
        raise OutputError(
            f"the nodata value does not fit {dtype}",
            found=f"{nodata:g}",
            cure="choose another with --nodata, or another --dtype",
        )
    imagery = {**pair.ms[0].imagery, **pair.pan.imagery}
    bands = [pair.bands[place] for place in chosen]
    scales = [scale for raster in pair.ms for scale in raster.scales]
    offsets = [offset for raster in pair.ms for offset in raster.offsets]
    units = [unit for raster in pair.ms for unit in raster.units]
    band_tags = [tags for raster in pair.ms for tags in raster.band_tags]
    return OutputProfile(
        shape=extent.shape,
        dtype=dtype,
        crs=pair.crs,
        transform=pair.transform(extent),
        nodata=nodata,
        bands=bands,
        scales=[scales[place] for place in chosen],
        offsets=[offsets[place] for place in chosen],
        units=[units[place] for place in chosen],
        band_tags=[_kept(band_tags[place]) for place in chosen],
        rpcs=pair.rpcs(extent),
        control_points=pair.control_points(extent),
        tags={**_tags(pair, bands, imagery), **tags},
        imagery=imagery,
        driver=driver,
        creation=creation,
    )


def _tags(pair: ScenePair, bands: Sequence[Band], imagery: Mapping[str, str]) -> dict[str, str]:
    """Return the tags of the MS that stay true, as `gdal_translate` keeps them, and those that name the inputs.

    Of several MS files the tags are kept in which all agree.
    """
    first, *others = (raster.tags for raster in pair.ms)
    common = {name: value for name, value in first.items() if all(tags.get(name) == value for tags in others)}
    # A COG has no IMAGERY domain of its own: what is carried stands among the plain tags too.
    pan = {name: value for name, value in {**pair.pan.tags, **imagery}.items() if name in _OF_THE_PAN}
    return {
        **pan,
        **_kept(common),
        "TIFFTAG_SOFTWARE": f"CrossDiff {__version__}",
        "CROSSDIFF_VERSION": __version__,
        "CROSSDIFF_SENSOR": pair.sensor.key,
        "CROSSDIFF_BANDS": ",".join(band.name for band in bands),
        "CROSSDIFF_SOURCES": ",".join(Path(raster.path).name for raster in (pair.pan, *pair.ms)),
    }


def _kept(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in tags.items() if not _UNTRUE.match(name)}


def _fits(nodata: float, dtype: str) -> bool:
    kind = np.dtype(dtype)
    if kind.kind not in "ui":
        return True
    info = np.iinfo(kind)
    return bool(float(nodata).is_integer() and info.min <= nodata <= info.max)
