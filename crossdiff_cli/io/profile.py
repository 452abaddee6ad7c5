"""What a result says of itself: grid, type, bands and tags."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from crossdiff_cli import __version__
from crossdiff_cli.errors import OutputError
from crossdiff_cli.geometry.window import Window
from crossdiff_cli.io.pair import ScenePair
from crossdiff_cli.io.writer import Profile
from crossdiff_cli.sensors.table import Band

CARRIED_TAGS = ("ACQUISITIONDATETIME", "SATELLITEID", "CLOUDCOVER", "TIFFTAG_DATETIME", "AREA_OR_POINT")


def profile_of(
    pair: ScenePair,
    extent: Window,
    chosen: Sequence[int],
    dtype: str | None,
    driver: str,
    creation: Mapping[str, str],
    *,
    tags: Mapping[str, str],
) -> Profile:
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
        raise OutputError(f"nodata {nodata:g} does not fit {dtype}: choose another with --nodata, or another --dtype")
    imagery = {**pair.ms[0].imagery, **pair.pan.imagery}
    bands = [pair.bands[place] for place in chosen]
    scales = [scale for raster in pair.ms for scale in raster.scales]
    offsets = [offset for raster in pair.ms for offset in raster.offsets]
    return Profile(
        shape=extent.shape,
        dtype=dtype,
        crs=pair.crs,
        transform=pair.transform(extent),
        nodata=nodata,
        bands=bands,
        scales=[scales[place] for place in chosen],
        offsets=[offsets[place] for place in chosen],
        rpcs=pair.rpcs(extent),
        tags={**_tags(pair, bands, imagery), **tags},
        imagery=imagery,
        driver=driver,
        creation=creation,
    )


def _tags(pair: ScenePair, bands: Sequence[Band], imagery: Mapping[str, str]) -> dict[str, str]:
    """Return the tags that are carried over from the inputs, and those that name them."""
    # A COG has no IMAGERY domain of its own: what is carried stands among the plain tags too.
    raw = {**pair.pan.tags, **pair.ms[0].tags, **imagery}
    return {
        **{name: value for name, value in raw.items() if name in CARRIED_TAGS},
        "CROSSDIFF_VERSION": __version__,
        "CROSSDIFF_SENSOR": pair.sensor.key,
        "CROSSDIFF_BANDS": ",".join(band.name for band in bands),
        "CROSSDIFF_SOURCES": ",".join(Path(raster.path).name for raster in (pair.pan, *pair.ms)),
    }


def _fits(nodata: float, dtype: str) -> bool:
    kind = np.dtype(dtype)
    if kind.kind not in "ui":
        return True
    info = np.iinfo(kind)
    return bool(float(nodata).is_integer() and info.min <= nodata <= info.max)
