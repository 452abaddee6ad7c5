"""Scene in, tiles through the network, GeoTIFF out."""

import logging
import math
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from crossdiff_cli import __version__
from crossdiff_cli.device import Precision, choose_devices, keep_memory, network_dtype, window_pixels
from crossdiff_cli.errors import OutputError
from crossdiff_cli.fuse import halo
from crossdiff_cli.heads import own_head
from crossdiff_cli.model.crossdiff import CrossDiff
from crossdiff_cli.model.region import STRIDE
from crossdiff_cli.model.weights import WeightStore, default_weights
from crossdiff_cli.pipeline import Encoder, Fused, Lane, flow
from crossdiff_cli.scene.pair import PairOptions, ScenePair
from crossdiff_cli.scene.raster import bounded_cache
from crossdiff_cli.scene.tiles import Tile, Window, best_size, tiles
from crossdiff_cli.scene.writer import Profile, Writer, check_target, to_dtype
from crossdiff_cli.survey import Survey, survey

_log = logging.getLogger(__name__)

CARRIED_TAGS = ("ACQUISITIONDATETIME", "SATELLITEID", "CLOUDCOVER", "TIFFTAG_DATETIME", "AREA_OR_POINT")


@dataclass(frozen=True, slots=True)
class SharpenOptions:
    """Everything `crossdiff sharpen` can be told, besides the files."""

    pair: PairOptions = field(default_factory=PairOptions)
    weights: Path | None = None
    """None for the head adapted to the sensor, if the sensor is named and there is one, else for the shipped ones."""
    device: str = "auto"
    precision: Precision = "auto"
    tile: int | None = None
    """Side of a tile's core in PAN pixels, a multiple of 256; None for what the memory at hand allows."""
    align: bool = True
    rounds: int = 1
    """Back-projections that make the result consistent with the MS; 0 for none."""
    extent: str = "intersection"
    """`intersection` of PAN and MS, or the whole `pan` with nodata outside."""
    dtype: str | None = None
    """None for the type of the MS."""
    driver: str = "GTiff"
    creation: Mapping[str, str] = field(default_factory=dict)
    overwrite: bool = False
    jobs: int = 2
    """Threads that read ahead."""
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class SharpenResult:
    """What was done, for the log and `--json`."""

    output: str
    sensor: str
    bands: tuple[str, ...]
    ratio: float
    shift_px: tuple[float, float]
    """(x, y), PAN pixels."""
    consistency: float
    """Relative RMS difference, over all bands, of the degraded result and the MS: 0.01 is one per cent."""
    seconds: float
    mpx_per_s: float

    def as_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


def sharpen(
    pan: str,
    ms: Sequence[str],
    output: Path,
    options: SharpenOptions | None = None,
    store: WeightStore | None = None,
) -> SharpenResult:
    """Fuse a PAN and an MS image into a sharp MS GeoTIFF on the PAN grid.

    Args:
        pan: panchromatic image, anything GDAL opens.
        ms: one multispectral image, or one per band.
        output: target file; it holds a complete result or is not touched.
        options: defaults as the command's.
        store: keeps the networks from scene to scene; None loads them.

    Raises:
        CrossDiffError: any bad input, with one line that says what and how to cure it.
    """
    options = options or SharpenOptions()
    started = time.monotonic()
    check_target(output, overwrite=options.overwrite)
    keep_memory()
    path = options.weights or own_head(options.pair.sensor) or default_weights()
    devices = choose_devices(options.device)
    store = store or WeightStore(keep=len(devices))
    networks = [store.get(path, device) for device in devices]
    with bounded_cache(), ScenePair(pan, ms, options.pair) as pair:
        found = survey(pair, align=options.align)
        _report(pair, found)
        extent = pair.footprint if options.extent == "intersection" else Window(0, 0, *pair.pan.shape)
        profile = _profile(pair, extent, found, options, networks[0][1])
        lanes = [
            Lane(pair, found, model, device, network_dtype(device, options.precision), options.rounds)
            for device, (model, _) in zip(devices, networks, strict=True)
            # Two streams keep a GPU busy: one computes while the other copies.
            for _ in range(2 if device.type == "cuda" else 1)
        ]
        plan = _plan(pair, extent, found, networks[0][0], [lane.device for lane in lanes], options)
        with Writer(output, profile, overwrite=options.overwrite) as writer:

            def write(fused: Fused) -> None:
                core = fused.tile.core
                data = to_dtype(fused.data, fused.mask, profile.dtype, profile.nodata)
                writer.write(data, Window(core.row - extent.row, core.col - extent.col, *core.shape))

            error = signal = 0.0
            # Closing the flow waits for its readers: the files they read from are closed only afterwards.
            with Encoder() as encoder, closing(flow(plan, pair.read, lanes, options.jobs)) as parts:
                bar = tqdm(parts, total=len(plan), unit="tile", file=sys.stderr, disable=options.quiet or None)
                for fused in bar:
                    encoder.submit(write, fused)
                    error, signal = error + fused.squared_error, signal + fused.squared_signal
            consistency = math.sqrt(error / signal) if signal else 0.0
            writer.tag(CROSSDIFF_CONSISTENCY=f"{consistency:.6f}")
        seconds = time.monotonic() - started
        return SharpenResult(
            output=str(output),
            sensor=pair.sensor.key,
            bands=tuple(band.name for band in pair.bands),
            ratio=pair.ratio,
            shift_px=(round(found.shift[1], 3), round(found.shift[0], 3)),
            consistency=consistency,
            seconds=round(seconds, 3),
            mpx_per_s=round(extent.height * extent.width / 1e6 / seconds, 4),
        )


def _plan(
    pair: ScenePair,
    extent: Window,
    found: Survey,
    model: CrossDiff,
    devices: Sequence[torch.device],
    options: SharpenOptions,
) -> list[Tile]:
    """The tiles of a scene, as large as was asked for or as the memory allows."""
    reach = halo(model, pair.grid.ratio, [band.nyquist_gain for band in pair.bands], options.rounds)
    reach += math.ceil(max(abs(v) for v in found.shift))
    size = options.tile or best_size(extent, reach, window_pixels(devices, len(pair.bands)))
    return list(tiles(extent, size, reach, STRIDE))


def _report(pair: ScenePair, found: Survey) -> None:
    bands = ",".join(band.name for band in pair.bands)
    _log.info("%s (%s), bands %s, ratio %.4g", pair.sensor.name, pair.sensor_source, bands, pair.ratio)
    if found.correlation:
        _log.info(
            "the MS lies %+.2f (x) and %+.2f (y) PAN pixels from its nominal place: corrected (correlation %.3f)",
            found.shift[1],
            found.shift[0],
            found.correlation,
        )


def _profile(pair: ScenePair, extent: Window, found: Survey, options: SharpenOptions, weights: str) -> Profile:
    dtype = options.dtype or pair.dtype
    nodata = pair.nodata
    if nodata is None and extent != pair.footprint:
        nodata = 0.0
    if nodata is not None and not _fits(nodata, dtype):
        raise OutputError(f"nodata {nodata:g} does not fit {dtype}: choose another with --nodata, or another --dtype")
    raw = {**pair.pan.tags, **pair.ms[0].tags}
    tags = {name: value for name, value in raw.items() if name in CARRIED_TAGS}
    tags["CROSSDIFF_VERSION"] = __version__
    tags["CROSSDIFF_WEIGHTS"] = weights
    tags["CROSSDIFF_SENSOR"] = pair.sensor.key
    tags["CROSSDIFF_BANDS"] = ",".join(band.name for band in pair.bands)
    tags["CROSSDIFF_SHIFT_PX"] = f"{found.shift[1]:.3f},{found.shift[0]:.3f}"
    tags["CROSSDIFF_SOURCES"] = ",".join(Path(raster.path).name for raster in (pair.pan, *pair.ms))
    whole = dtype == pair.dtype
    return Profile(
        shape=extent.shape,
        dtype=dtype,
        crs=pair.crs,
        transform=pair.transform(extent),
        nodata=nodata,
        bands=pair.bands,
        scales=[scale for raster in pair.ms for scale in raster.scales] if whole else [1.0] * pair.band_count,
        offsets=[offset for raster in pair.ms for offset in raster.offsets] if whole else [0.0] * pair.band_count,
        rpcs=pair.rpcs(extent),
        tags=tags,
        imagery={**pair.ms[0].imagery, **pair.pan.imagery},
        driver=options.driver,
        creation=options.creation,
    )


def _fits(nodata: float, dtype: str) -> bool:
    kind = np.dtype(dtype)
    if kind.kind not in "ui":
        return True
    info = np.iinfo(kind)
    return bool(float(nodata).is_integer() and info.min <= nodata <= info.max)
