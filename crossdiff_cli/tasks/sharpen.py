"""sharpen: scene in, tiles through the network, GeoTIFF out."""

import copy
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from crossdiff_cli.estimate.survey import SceneEstimates, survey
from crossdiff_cli.geometry.patch import Patch
from crossdiff_cli.geometry.window import Tile, Window
from crossdiff_cli.inference.plan import plan_tiles
from crossdiff_cli.inference.run import BoundScene, DeviceWorker, FusedTile, WriterThread, bind_workers, run_tiles
from crossdiff_cli.io.extent import chosen_bands, extent_of
from crossdiff_cli.io.open_pair import open_pair
from crossdiff_cli.io.pair import ScenePair
from crossdiff_cli.io.profile import profile_of
from crossdiff_cli.io.quantise import count_clipped, to_dtype
from crossdiff_cli.io.raster import bounded_cache
from crossdiff_cli.io.stac import item_path, write_item
from crossdiff_cli.io.target import check_creation, check_raster_target, check_target, refuse_target
from crossdiff_cli.io.writer import OutputProfile, Writer
from crossdiff_cli.model.crossdiff import CrossDiff
from crossdiff_cli.model.device import choose_devices, exact_float32, trim_heap
from crossdiff_cli.model.spectral import Spectrum
from crossdiff_cli.model.weights import WeightStore
from crossdiff_cli.options import NetworkOptions, OutputOptions, RuntimeOptions, SharpenOptions
from crossdiff_cli.sensors.definitions import file_key
from crossdiff_cli.sensors.table import spectral_order
from crossdiff_cli.system.progress import Progress
from crossdiff_cli.system.weight_files import bundled_weights, find_adapted_head

_log = logging.getLogger(__name__)

_CLIP_WARNING_SHARE = 1e-3
"""Share of values clipped to the data type asked for above which a warning is given."""
_TILES_PER_TRIM = 8
"""Tiles after which freed memory is returned to the system: more often would cost time, less often memory."""


@dataclass(frozen=True, slots=True)
class SharpenResult:
    """What was done, for the log and `--json`."""

    output: str
    sensor: str
    bands: tuple[str, ...]
    ratio: float
    shift_px: tuple[float, float]
    """(x, y), PAN pixels."""
    nyquist_gains: tuple[float, ...]
    """MTF gain of each band of the MS at its Nyquist frequency."""
    mtf_source: tuple[str, ...]
    """Origin of each gain: `scene`, `table` or `option`."""
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
    target: Path,
    options: SharpenOptions | None = None,
    store: WeightStore | None = None,
) -> SharpenResult:
    """Fuse a PAN and an MS image into a sharp MS GeoTIFF on the PAN grid.

    Args:
        pan: panchromatic image, anything GDAL opens, or a delivery (folder or metadata file).
        ms: one multispectral image or delivery, or one image per band; empty where `pan` is a delivery of both.
        target: output file; it holds a complete result or is not touched.
        options: defaults as the command's.
        store: keeps the networks from scene to scene; None loads them.

    Raises:
        CrossDiffError: any bad input, with what was found, what was expected and the cure.
    """
    options, started = options or SharpenOptions(), time.monotonic()
    output, runtime = options.output, options.runtime
    _check_targets(target, output)
    devices = choose_devices(runtime.device, runtime.precision, runtime.worker)
    bundled = _load(options.network, options.pair.sensor, devices, store)
    with bounded_cache(), exact_float32(devices), open_pair(pan, ms, options.pair) as pair:
        refuse_target(target, (pair.pan, *pair.ms))
        estimates = _survey(pair, options)
        networks, tuned = _fine_tuned(options.network, pair, estimates, bundled, devices)
        extent = extent_of(pair, output.extent, output.bounds, output.bounds_crs)
        bands = chosen_bands(pair, output.bands)
        workers = bind_workers(
            networks, _bound(pair, estimates), devices, runtime.precision, options.network.iterations
        )
        plan = plan_tiles(extent, networks[0], estimates, workers, options.network.iterations, runtime.tile)
        tags = {**estimates.tags(), **tuned, "CROSSDIFF_WEIGHTS": bundled[0][1]}
        profile = profile_of(pair, extent, bands, output.dtype, output.driver, output.creation, tags=tags)
        with _cache(pair, plan, runtime.readers), Writer(target, profile, overwrite=output.overwrite) as writer:
            consistency = _run(plan, pair, workers, _Sink(writer, profile, extent, bands), runtime)
            writer.tag(CROSSDIFF_CONSISTENCY=f"{consistency:.6f}", CROSSDIFF_PRECISION=_precisions(workers))
        if output.stac:
            write_item(target, profile, pair, consistency)
        return _result(target, pair, estimates, profile, consistency, time.monotonic() - started)


def _check_targets(target: Path, output: OutputOptions) -> None:
    check_raster_target(target, overwrite=output.overwrite)
    check_creation(output.driver, output.creation)
    if output.stac:
        check_target(item_path(target), overwrite=output.overwrite)


def _load(
    network: NetworkOptions, sensor: str, devices: Sequence[torch.device], store: WeightStore | None
) -> list[tuple[CrossDiff, str]]:
    """Load the network on every device; return each with the digest of its weights."""
    adapted = None if sensor == "auto" else find_adapted_head(file_key(sensor))
    path, store = network.weights or adapted or bundled_weights(), store or WeightStore(keep=len(devices))
    return [store.get(path, device) for device in devices]


def _survey(pair: ScenePair, options: SharpenOptions) -> SceneEstimates:
    """Estimate what the scene tells of itself, and log it."""
    estimates = survey(pair.sample_windows(), pair.grid, pair.bands, options.estimate, path=pair.pan.path)
    if pair.inputs.delivery:
        _log.info("%s", pair.inputs.delivery)
    bands = ",".join(band.name for band in pair.bands)
    _log.info("%s (%s), bands %s, ratio %.4g", pair.sensor.name, pair.sensor_source, bands, pair.ratio)
    if estimates.registration.correlation:
        _log.info("%s", estimates.registration.describe(pair.footprint.shape))
    if shifts := estimates.describe_band_shifts():
        _log.info("offset of single bands beyond that (x,y in PAN px): %s, corrected", shifts)
    _log.info("%s", estimates.describe_mtf())
    if levels := estimates.describe_noise():
        _log.info("noise (standard deviation, DN): %s; weaker detail is suppressed", levels)
    return estimates


def _fine_tuned(
    network: NetworkOptions,
    pair: ScenePair,
    estimates: SceneEstimates,
    bundled: Sequence[tuple[CrossDiff, str]],
    devices: Sequence[torch.device],
) -> tuple[list[CrossDiff], Mapping[str, str]]:
    """Fine-tune the fusion head on the scene if asked; return the network of every device, and tags that say so."""
    first = bundled[0][0]
    if network.fine_tune_steps:
        from crossdiff_cli.training.zero_shot import fine_tune

        first = fine_tune(pair, estimates, first, network.fine_tune_steps)
    if first is bundled[0][0]:
        return [model for model, _ in bundled], {}
    tags = {"CROSSDIFF_ADAPTED": f"{network.fine_tune_steps} steps"}
    return [first, *(copy.deepcopy(first).to(device) for device in devices[1:])], tags


def _bound(pair: ScenePair, estimates: SceneEstimates) -> BoundScene:
    order = spectral_order(pair.bands)
    bands = [pair.bands[i] for i in order]
    return BoundScene(
        order=tuple(order),
        path=pair.pan.path,
        spectrum=Spectrum.of([(band.center_nm, band.width_nm) for band in bands], pair.sensor.pan_nm, pair.ratio),
        normalisation=estimates.normalisation.select(order),
        nyquist_gains=tuple(estimates.nyquist_gains[i] for i in order),
        sensor_model=lambda patch: estimates.sensor_model(patch).select_bands(order),
    )


def _cache(pair: ScenePair, plan: Sequence[Tile], readers: int) -> Any:
    """Bound GDAL's block cache: room for the strips that tiles side by side have decoded, for every reader."""
    rows = plan[0].window.height
    below = rows / pair.grid.ratio[0]
    strips = rows * pair.pan.strip_bytes + sum(below * raster.strip_bytes for raster in pair.ms)
    return bounded_cache(readers * strips)


def _run(
    plan: Sequence[Tile], pair: ScenePair, workers: Sequence[DeviceWorker], sink: "_Sink", runtime: RuntimeOptions
) -> float:
    """Fuse and write every tile; return the consistency of the result."""
    error = signal = 0.0
    read: Callable[[Window], Patch] = pair.read
    # Closing the generator waits for its readers: the files they read from are closed only afterwards.
    with WriterThread() as encoder, closing(run_tiles(plan, read, workers, runtime.readers)) as parts:
        progress = Progress(sum(tile.core.height * tile.core.width for tile in plan), shown=runtime.progress)
        for count, fused in enumerate(parts, 1):
            if count % _TILES_PER_TRIM == 0:
                trim_heap()
            encoder.submit(sink.write, fused)
            error, signal = error + fused.squared_error, signal + fused.squared_signal
            progress.add(fused.tile.core.height * fused.tile.core.width)
        progress.close()
    sink.report_clipped(pair.dtype)
    return math.sqrt(error / signal) if signal else 0.0


class _Sink:
    """Rounds fused tiles to the data type of the output and writes them; counts what that clips."""

    def __init__(self, writer: Writer, profile: OutputProfile, extent: Window, bands: Sequence[int]) -> None:
        self._writer, self._profile, self._extent, self._bands = writer, profile, extent, list(bands)
        self._clipped = 0

    def write(self, fused: FusedTile) -> None:
        core, dtype = fused.tile.core, self._profile.dtype
        data = fused.data[self._bands]
        self._clipped += count_clipped(data, fused.mask, dtype)
        window = core.relative_to(self._extent)
        self._writer.write(to_dtype(data, fused.mask, dtype, self._profile.nodata), window)

    def report_clipped(self, own: str) -> None:
        """Warn if the data type asked for does not hold the values; `own` is that of the MS."""
        share = self._clipped / (self._extent.height * self._extent.width * len(self._bands))
        if self._profile.dtype != own and share > _CLIP_WARNING_SHARE:
            _log.warning(
                "%.1f %% of the values do not fit %s and were clipped: DN are written as they are, not scaled "
                "(--dtype %s, the type of the MS, keeps them all)", 100 * share, self._profile.dtype, own,
            )  # fmt: skip


def _precisions(workers: Sequence[DeviceWorker]) -> str:
    return ",".join(sorted({worker.precision for worker in workers}))


def _result(
    target: Path, pair: ScenePair, estimates: SceneEstimates, profile: OutputProfile, consistency: float, seconds: float
) -> SharpenResult:
    shift = estimates.registration.shift
    return SharpenResult(
        output=str(target),
        sensor=pair.sensor.key,
        bands=tuple(band.name for band in profile.bands),
        ratio=pair.ratio,
        shift_px=(round(shift[1], 3), round(shift[0], 3)),
        nyquist_gains=tuple(round(gain, 3) for gain in estimates.nyquist_gains),
        mtf_source=estimates.mtf_sources,
        consistency=consistency,
        seconds=round(seconds, 3),
        mpx_per_s=round(profile.shape[0] * profile.shape[1] / 1e6 / seconds, 4),
    )
