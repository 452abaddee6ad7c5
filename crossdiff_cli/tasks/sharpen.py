"""Scene in, tiles through the network, GeoTIFF out."""

import copy
import logging
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from tqdm import tqdm

from crossdiff_cli.estimate.survey import SceneEstimates, survey
from crossdiff_cli.geometry.patch import Patch
from crossdiff_cli.geometry.window import STRIDE, Tile, Window, best_size, tiles
from crossdiff_cli.imaging.back_projection import ITERATIONS
from crossdiff_cli.inference.run import BoundScene, Encoder, Fused, Lane, flow
from crossdiff_cli.io.extent import Bounds, chosen_bands, extent_of
from crossdiff_cli.io.open_pair import open_pair
from crossdiff_cli.io.pair import PairOptions, ScenePair
from crossdiff_cli.io.profile import profile_of
from crossdiff_cli.io.quantise import count_clipped, to_dtype
from crossdiff_cli.io.raster import bounded_cache
from crossdiff_cli.io.stac import item_path, write_item
from crossdiff_cli.io.target import check_creation, check_raster_target, check_target, refuse_target
from crossdiff_cli.io.writer import Profile, Writer
from crossdiff_cli.model.crossdiff import CrossDiff
from crossdiff_cli.model.device import (
    Precision,
    choose_devices,
    exact_float32,
    give_back_memory,
    inference_dtype,
    keep_memory,
    lanes_on,
    window_pixels,
)
from crossdiff_cli.model.spectral import Spectrum
from crossdiff_cli.model.weights import WeightStore
from crossdiff_cli.sensors.definitions import file_key
from crossdiff_cli.sensors.table import spectral_order
from crossdiff_cli.system.weight_files import bundled_weights, find_adapted_head

_log = logging.getLogger(__name__)

_LOST = 1e-3
"""Share of values cut off by the type asked for from which it is said."""
_TIDY = 8
"""Tiles after which memory is given back: more often would cost time, less often memory."""


class Tune(Protocol):
    """Fits a network to a scene; its text says how, for the tags of the result."""

    def __call__(self, pair: ScenePair, found: SceneEstimates, model: CrossDiff) -> CrossDiff:
        """The fitted copy of `model`, or `model` itself."""


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
    noise: bool = True
    """Take what is no stronger than the noise of PAN and MS for no detail."""
    tune: Tune | None = None
    """Fits the network to the scene before it is sharpened."""
    iterations: int = ITERATIONS
    """Back-projections that make the result consistent with the MS; 0 for none."""
    extent: str = "intersection"
    """`intersection` of PAN and MS, or the whole `pan` with nodata outside."""
    bounds: Bounds | None = None
    """Part of the extent to sharpen (left, bottom, right, top); the pixels are those of the whole result."""
    bounds_crs: str | None = None
    """CRS of `bounds`; None for the PAN's."""
    out_bands: tuple[str, ...] | None = None
    """Bands to write, in this order; all bands are used to make them."""
    dtype: str | None = None
    """None for the type of the MS."""
    driver: str = "GTiff"
    creation: Mapping[str, str] = field(default_factory=dict)
    overwrite: bool = False
    stac: bool = False
    """Also write a STAC item beside the result."""
    jobs: int = 2
    """Threads that read ahead."""
    worker: int = 0
    """Number of this process among those that sharpen on this machine at once: which GPU `auto` and `cuda` mean."""
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
        pan: panchromatic image, anything GDAL opens, or a delivery (folder or metadata file).
        ms: one multispectral image or delivery, or one image per band; empty where `pan` is a delivery of both.
        output: target file; it holds a complete result or is not touched.
        options: defaults as the command's.
        store: keeps the networks from scene to scene; None loads them.

    Raises:
        CrossDiffError: any bad input, with one line that says what and how to cure it.
    """
    options = options or SharpenOptions()
    started = time.monotonic()
    _check_targets(output, options)
    keep_memory()
    devices = choose_devices(options.device, options.precision, options.worker)
    networks = _networks(options, devices, store or WeightStore(keep=len(devices)))
    with bounded_cache(), exact_float32(devices), open_pair(pan, ms, options.pair) as pair:
        refuse_target(output, (pair.pan, *pair.ms))
        found = survey(pair.sample_windows(), pair.grid, pair.bands, align=options.align, noise=options.noise)
        _report(pair, found)
        extent = extent_of(pair, options.extent, options.bounds, options.bounds_crs)
        chosen = chosen_bands(pair, options.out_bands)
        tags = {**found.tags(), "CROSSDIFF_WEIGHTS": networks[0][1]}
        profile = profile_of(pair, extent, chosen, options.dtype, options.driver, options.creation, tags=tags)
        models = _tuned(options.tune, pair, found, [model for model, _ in networks], devices)
        lanes = _lanes(pair, found, models, devices, options)
        plan = _plan(pair, extent, found, models[0], lanes, options)
        with _cache(pair, plan, options.jobs), Writer(output, profile, overwrite=options.overwrite) as writer:
            lost: list[int] = []
            write = partial(_write, writer, profile, extent, chosen, lost if options.dtype else None)
            consistency = _run(plan, pair.read, lanes, write, options)
            _report_lost(sum(lost) / (extent.height * extent.width * len(chosen)), profile.dtype, pair.dtype)
            writer.tag(
                CROSSDIFF_CONSISTENCY=f"{consistency:.6f}",
                CROSSDIFF_PRECISION=",".join(sorted({lane.precision for lane in lanes})),
            )
            if models[0] is not networks[0][0]:
                writer.tag(CROSSDIFF_ADAPTED=str(options.tune))
        if options.stac:
            write_item(output, profile, pair, consistency)
        seconds = time.monotonic() - started
        return SharpenResult(
            output=str(output),
            sensor=pair.sensor.key,
            bands=tuple(band.name for band in profile.bands),
            ratio=pair.ratio,
            shift_px=(round(found.registration.shift[1], 3), round(found.registration.shift[0], 3)),
            consistency=consistency,
            seconds=round(seconds, 3),
            mpx_per_s=round(extent.height * extent.width / 1e6 / seconds, 4),
        )


def _check_targets(output: Path, options: SharpenOptions) -> None:
    check_raster_target(output, overwrite=options.overwrite)
    check_creation(options.driver, options.creation)
    if options.stac:
        check_target(item_path(output), overwrite=options.overwrite)


def _networks(
    options: SharpenOptions, devices: Sequence[torch.device], store: WeightStore
) -> list[tuple[CrossDiff, str]]:
    """The network on every device, with the digest of its weights."""
    path = options.weights or _adapted_head(options.pair.sensor) or bundled_weights()
    return [store.get(path, device) for device in devices]


def _adapted_head(sensor: str) -> Path | None:
    return None if sensor == "auto" else find_adapted_head(file_key(sensor))


def _tuned(
    tune: Tune | None,
    pair: ScenePair,
    found: SceneEstimates,
    models: Sequence[CrossDiff],
    devices: Sequence[torch.device],
) -> list[CrossDiff]:
    """The first network fitted to the scene, and a copy of it on every other device; all as they are without `tune`."""
    first = models[0] if tune is None else tune(pair, found, models[0])
    if first is models[0]:
        return list(models)
    return [first, *(copy.deepcopy(first).to(device) for device in devices[1:])]


def _lanes(
    pair: ScenePair,
    found: SceneEstimates,
    models: Sequence[CrossDiff],
    devices: Sequence[torch.device],
    options: SharpenOptions,
) -> list[Lane]:
    lanes: list[Lane] = []
    scene = _bound_scene(pair, found)
    for device, model in zip(devices, models, strict=True):
        dtype = inference_dtype(device, options.precision)
        first = Lane(model, scene, device, dtype, options.iterations)
        lanes += [first, *(first.twin() for _ in range(1, lanes_on(device, devices)))]
    return lanes


def _bound_scene(pair: ScenePair, found: SceneEstimates) -> BoundScene:
    order = spectral_order(pair.bands)
    bands = [pair.bands[i] for i in order]
    return BoundScene(
        order=tuple(order),
        path=pair.pan.path,
        spectrum=Spectrum.of([(band.center_nm, band.width_nm) for band in bands], pair.sensor.pan_nm, pair.ratio),
        normalisation=found.normalisation.select(order),
        nyquist_gains=tuple(band.nyquist_gain for band in bands),
        sensor_model=lambda patch: found.sensor_model(patch).select_bands(order),
    )


def _cache(pair: ScenePair, plan: Sequence[Tile], readers: int) -> AbstractContextManager[object]:
    """GDAL's blocks: room for the strips that tiles side by side have decoded, which every reader does for itself."""
    rows = plan[0].window.height
    below = rows / pair.grid.ratio[0]
    strips = rows * pair.pan.strip_bytes + sum(below * raster.strip_bytes for raster in pair.ms)
    return bounded_cache(readers * strips)


def _run(
    plan: Sequence[Tile],
    read: Callable[[Window], Patch],
    lanes: Sequence[Lane],
    write: Callable[[Fused], None],
    options: SharpenOptions,
) -> float:
    """Fuse and write every tile; return the consistency of the result."""
    error = signal = 0.0
    # Closing the flow waits for its readers: the files they read from are closed only afterwards.
    with Encoder() as encoder, closing(flow(plan, read, lanes, options.jobs)) as parts:
        shown = tqdm(parts, total=len(plan), unit="tile", file=sys.stderr, disable=options.quiet or None)
        for count, fused in enumerate(shown, 1):
            if count % _TIDY == 0:
                give_back_memory()
            encoder.submit(write, fused)
            error, signal = error + fused.squared_error, signal + fused.squared_signal
    return math.sqrt(error / signal) if signal else 0.0


def _write(
    writer: Writer, profile: Profile, extent: Window, chosen: Sequence[int], lost: list[int] | None, fused: Fused
) -> None:
    """Encode a tile; `lost`, where it is asked for, gets the number of values that do not fit the type."""
    core = fused.tile.core
    data = fused.data[list(chosen)]
    if lost is not None:
        lost.append(count_clipped(data, fused.mask, profile.dtype))
    data = to_dtype(data, fused.mask, profile.dtype, profile.nodata)
    writer.write(data, Window(core.row - extent.row, core.col - extent.col, *core.shape))


def _report_lost(share: float, dtype: str, own: str) -> None:
    if share > _LOST:
        _log.warning(
            "%.1f %% of the values do not fit %s and were cut off: it is the DN that are written, not scaled "
            "(--dtype %s, the type of the MS, keeps them all)", 100 * share, dtype, own,
        )  # fmt: skip


def _plan(
    pair: ScenePair,
    extent: Window,
    found: SceneEstimates,
    model: CrossDiff,
    lanes: Sequence[Lane],
    options: SharpenOptions,
) -> list[Tile]:
    """The tiles of a scene, as large as was asked for or as the memory allows."""
    place = found.registration
    reach = model.halo(place.ratio(pair.grid.ratio), [band.nyquist_gain for band in pair.bands], options.iterations)
    reach += math.ceil(place.farthest((extent.row, extent.col), extent.stop))
    widest = max((lane.dtype for lane in lanes), key=lambda dtype: dtype.itemsize)
    pixels = window_pixels([lane.device for lane in lanes], len(pair.bands), widest)
    size = options.tile or best_size(extent, reach, pixels, lanes=len(lanes))
    return list(tiles(extent, size, reach, STRIDE))


def _report(pair: ScenePair, found: SceneEstimates) -> None:
    if pair.inputs.delivery:
        _log.info("%s", pair.inputs.delivery)
    bands = ",".join(band.name for band in pair.bands)
    _log.info("%s (%s), bands %s, ratio %.4g", pair.sensor.name, pair.sensor_source, bands, pair.ratio)
    if found.registration.correlation:
        _log.info("%s", found.registration.describe(pair.footprint.shape))
    if shifts := found.describe_band_shifts():
        _log.info("offset of single bands beyond that (x,y in PAN px): %s, corrected", shifts)
    if levels := found.describe_noise():
        _log.info("noise (standard deviation, DN): %s; weaker detail is suppressed", levels)
