"""sharpen: scene in, tiles through the network, GeoTIFF out."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossdiff_cli.geometry.patch import Patch
from crossdiff_cli.geometry.window import Tile, Window
from crossdiff_cli.inference.run import DeviceWorker, FusedTile, WriterThread, run_tiles
from crossdiff_cli.inference.stage_times import StageTimes
from crossdiff_cli.io.cache import bounded_cache
from crossdiff_cli.io.pair import ScenePair
from crossdiff_cli.io.stac import item_path, write_item
from crossdiff_cli.io.target import check_creation, check_raster_target, check_target, refuse_target
from crossdiff_cli.io.writer import OutputProfile, Writer
from crossdiff_cli.model.device import trim_heap
from crossdiff_cli.model.weights import WeightStore
from crossdiff_cli.options import OutputOptions, RuntimeOptions, SharpenOptions
from crossdiff_cli.system.progress import Progress
from crossdiff_cli.tasks.prepare import PreparedScene, prepared

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
    pan_nyquist_gain: float
    """MTF gain of the PAN at its Nyquist frequency."""
    pan_mtf_source: str
    """Its origin."""
    consistency: float
    """Relative RMS difference, over all bands, of the degraded result and the MS: 0.01 is one per cent."""
    seconds: float
    stage_seconds: dict[str, float]
    """Seconds that threads spent with `read`, `fuse` and `write`, added up; the stages overlap."""
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
    output = options.output
    check_targets(target, output)
    with prepared(pan, ms, options, store) as scene:
        pair, plan = scene.pair, scene.plan
        refuse_target(target, (pair.pan, *pair.ms))
        with (
            _cache(pair, plan, options.runtime.readers),
            Writer(target, scene.profile, overwrite=output.overwrite) as writer,
        ):
            sink, times = _Sink(writer, scene.profile, scene.extent), StageTimes()
            consistency = _run(plan, pair, scene.workers, sink, options.runtime, times)
            writer.tag(CROSSDIFF_CONSISTENCY=f"{consistency:.6f}", CROSSDIFF_PRECISION=_precisions(scene.workers))
        if output.stac:
            write_item(target, scene.profile, pair, consistency)
        return _result(target, scene, consistency, time.monotonic() - started, times)


def check_targets(target: Path, output: OutputOptions) -> None:
    """Check that result and STAC item can be written.

    Raises:
        OutputError: one of them exists and may not be replaced, or the driver does not know an option.
    """
    check_raster_target(target, overwrite=output.overwrite)
    check_creation(output.driver, output.creation)
    if output.stac:
        check_target(item_path(target), overwrite=output.overwrite)


def _cache(pair: ScenePair, plan: Sequence[Tile], readers: int) -> Any:
    """Bound GDAL's block cache: room for the strips that tiles side by side have decoded, for every reader."""
    rows = plan[0].window.height
    below = rows / pair.grid.ratio[0]
    strips = rows * pair.pan.strip_bytes + sum(below * raster.strip_bytes for raster in pair.ms)
    return bounded_cache([raster.path for raster in (pair.pan, *pair.ms)], readers * strips)


def _run(
    plan: Sequence[Tile],
    pair: ScenePair,
    workers: Sequence[DeviceWorker],
    sink: "_Sink",
    runtime: RuntimeOptions,
    times: StageTimes,
) -> float:
    """Fuse and write every tile; return the consistency of the result."""
    error = signal = 0.0
    read: Callable[[Window], Patch] = pair.read
    write = times.timed("write", sink.write)
    # Closing the generator waits for its readers: the files they read from are closed only afterwards.
    with WriterThread() as encoder, closing(run_tiles(plan, read, workers, runtime.readers, times)) as parts:
        progress = Progress(sum(tile.core.height * tile.core.width for tile in plan), shown=runtime.progress)
        for count, fused in enumerate(parts, 1):
            if count % _TILES_PER_TRIM == 0:
                trim_heap()
            encoder.submit(write, fused)
            error, signal = error + fused.squared_error, signal + fused.squared_signal
            progress.add(fused.tile.core.height * fused.tile.core.width)
        progress.close()
    sink.report_clipped(pair.dtype)
    return math.sqrt(error / signal) if signal else 0.0


class _Sink:
    """Writes fused tiles; counts the values that the data type of the output clips."""

    def __init__(self, writer: Writer, profile: OutputProfile, extent: Window) -> None:
        self._writer, self._profile, self._extent = writer, profile, extent
        self._clipped = 0

    def write(self, fused: FusedTile) -> None:
        self._clipped += fused.clipped
        self._writer.write(fused.data, fused.tile.core.relative_to(self._extent))

    def report_clipped(self, own: str) -> None:
        """Warn if the data type asked for does not hold the values; `own` is that of the MS."""
        share = self._clipped / (self._extent.height * self._extent.width * len(self._profile.bands))
        if self._profile.dtype != own and share > _CLIP_WARNING_SHARE:
            _log.warning(
                "%.1f %% of the values do not fit %s and were clipped: DN are written as they are, not scaled "
                "(--dtype %s, the type of the MS, keeps them all)", 100 * share, self._profile.dtype, own,
            )  # fmt: skip


def _precisions(workers: Sequence[DeviceWorker]) -> str:
    return ",".join(sorted({worker.precision for worker in workers}))


def _result(target: Path, scene: PreparedScene, consistency: float, seconds: float, times: StageTimes) -> SharpenResult:
    profile = scene.profile
    return SharpenResult(
        output=str(target),
        **scene.facts(),
        consistency=consistency,
        seconds=round(seconds, 3),
        stage_seconds={stage: round(taken, 3) for stage, taken in times.seconds.items()},
        mpx_per_s=round(profile.shape[0] * profile.shape[1] / 1e6 / seconds, 4),
    )
