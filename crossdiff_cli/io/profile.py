"""What a result says of itself: grid, type, bands and tags."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from crossdiff_cli import __version__
from crossdiff_cli.errors import OutputError
from crossdiff_cli.estimate.survey import Survey
from crossdiff_cli.geometry.window import Window
from crossdiff_cli.io.pair import ScenePair
from crossdiff_cli.io.writer import Profile
from crossdiff_cli.sensors.table import Band

NOISY = 0.05
"""Deviation of noise, of that of its image, from which it shows."""
CARRIED_TAGS = ("ACQUISITIONDATETIME", "SATELLITEID", "CLOUDCOVER", "TIFFTAG_DATETIME", "AREA_OR_POINT")


def bands_apart(pair: ScenePair, found: Survey) -> str:
    """How far each band lies from where all lie, `name:x,y` in PAN pixels; those that do not are left out."""
    shifts = zip(pair.bands, found.registered.band_shifts, strict=True)
    return " ".join(f"{band.name}:{col:+.2f},{row:+.2f}" for band, (row, col) in shifts if (row, col) != (0.0, 0.0))


def noisy(pair: ScenePair, found: Survey) -> str:
    """How noisy the PAN and the bands are where it shows, `name:deviation` in DN."""
    names = ["PAN", *(band.name for band in pair.bands)]
    levels = zip(names, [found.pan_noise, *found.noise], [found.pan_noise_dn, *found.noise_dn], strict=True)
    return " ".join(f"{name}:{dn:.2g}" for name, share, dn in levels if share > NOISY)


def stretched(pair: ScenePair, found: Survey) -> str:
    """How the displacement grows from one end of the scene to the other, as a clause of a sentence; empty if not."""
    if found.registered.stretch == (0.0, 0.0):
        return ""
    col, row = (found.registered.stretch[axis] * pair.footprint.shape[axis] for axis in (1, 0))
    return f", and {col:+.2f} (x) and {row:+.2f} (y) more from its left and upper to its right and lower end"


def profile_of(
    pair: ScenePair,
    extent: Window,
    chosen: Sequence[int],
    found: Survey,
    dtype: str | None,
    driver: str,
    creation: Mapping[str, str],
    *,
    weights: str,
) -> Profile:
    """Describe the result of a scene.

    Args:
        pair: the scene.
        extent: part of the PAN that is written.
        chosen: places of the bands that are written.
        found: what the survey found.
        dtype: None for that of the MS.
        driver: GTiff or COG.
        creation: its options.
        weights: digest of the weights.

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
        tags=_tags(pair, found, bands, imagery, weights),
        imagery=imagery,
        driver=driver,
        creation=creation,
    )


def _tags(
    pair: ScenePair, found: Survey, bands: Sequence[Band], imagery: Mapping[str, str], weights: str
) -> dict[str, str]:
    """What is carried over from the inputs, and what was done."""
    # A COG has no IMAGERY domain of its own: what is carried stands among the plain tags too.
    raw = {**pair.pan.tags, **pair.ms[0].tags, **imagery}
    place = found.registered
    tags = {name: value for name, value in raw.items() if name in CARRIED_TAGS}
    tags["CROSSDIFF_VERSION"] = __version__
    tags["CROSSDIFF_WEIGHTS"] = weights
    tags["CROSSDIFF_SENSOR"] = pair.sensor.key
    tags["CROSSDIFF_BANDS"] = ",".join(band.name for band in bands)
    tags["CROSSDIFF_SHIFT_PX"] = f"{place.shift[1]:.3f},{place.shift[0]:.3f}"
    if any(place.stretch):
        tags["CROSSDIFF_STRETCH"] = f"{place.stretch[1]:.6f},{place.stretch[0]:.6f}"
    if place.band_shifts:
        tags["CROSSDIFF_BAND_SHIFTS_PX"] = bands_apart(pair, found)
    if levels := noisy(pair, found):
        tags["CROSSDIFF_NOISE_DN"] = levels
    tags["CROSSDIFF_SOURCES"] = ",".join(Path(raster.path).name for raster in (pair.pan, *pair.ms))
    return tags


def _fits(nodata: float, dtype: str) -> bool:
    kind = np.dtype(dtype)
    if kind.kind not in "ui":
        return True
    info = np.iinfo(kind)
    return bool(float(nodata).is_integer() and info.min <= nodata <= info.max)
