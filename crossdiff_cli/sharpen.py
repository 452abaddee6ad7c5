"""Scene in, tiles through the network, GeoTIFF out."""

import logging
import math
import sys
import time
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from crossdiff_cli import __version__
from crossdiff_cli.device import Precision, choose_device, keep_memory, network_dtype
from crossdiff_cli.errors import OutputError, SceneError
from crossdiff_cli.fuse import Sampling, fuse, halo, to_ms
from crossdiff_cli.heads import own_head
from crossdiff_cli.masking import extend, extend_coarse
from crossdiff_cli.model.crossdiff import CrossDiff
from crossdiff_cli.model.spectral import Spectrum
from crossdiff_cli.model.unet import STRIDE
from crossdiff_cli.model.weights import WeightStore, default_weights
from crossdiff_cli.mtf import EXPAND_RADIUS
from crossdiff_cli.scene.pair import PairOptions, Patch, ScenePair
from crossdiff_cli.scene.part import Bounds, chosen_bands, extent_of
from crossdiff_cli.scene.raster import bounded_cache
from crossdiff_cli.scene.stac import item_path, write_item
from crossdiff_cli.scene.tiles import Tile, Window, tiles
from crossdiff_cli.scene.writer import BLOCK, Profile, Writer, check_target, to_dtype
from crossdiff_cli.survey import Survey, survey

_log = logging.getLogger(__name__)

_LARGEST_TILE = 2048
CARRIED_TAGS = ("ACQUISITIONDATETIME", "SATELLITEID", "CLOUDCOVER", "TIFFTAG_DATETIME", "AREA_OR_POINT")


class Tune(Protocol):
    """Fits a network to a scene; its text says how, for the tags of the result."""

    def __call__(self, pair: ScenePair, found: Survey, model: CrossDiff) -> CrossDiff:
        """The fitted copy of `model`, or `model` itself."""


@dataclass(frozen=True, slots=True)
class SharpenOptions:
    """Everything `crossdiff sharpen` can be told, besides the files."""

    pair: PairOptions = field(default_factory=PairOptions)
    weights: Path | None = None
    """None for the head adapted to the sensor, if the sensor is named and there is one, else for the shipped ones."""
    device: str = "auto"
    precision: Precision = "auto"
    tile: int = 1536
    """Side of a tile's core in PAN pixels, a multiple of 256."""
    align: bool = True
    tune: Tune | None = None
    """Fits the network to the scene before it is sharpened."""
    rounds: int = 1
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
    while True:
        try:
            return _sharpen(pan, ms, output, options, store)
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
        # Only here, where the error and the tensors that its traceback holds are gone, is there room again.
        options = _with_smaller_tile(options)


def _is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """PyTorch has an error of its own for a GPU alone."""
    return isinstance(error, torch.cuda.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _with_smaller_tile(options: SharpenOptions) -> SharpenOptions:
    """The same options with half the tile; the tile does not change the result.

    Raises:
        SceneError: the tile is the smallest already.
    """
    tile = (options.tile or _LARGEST_TILE) // 2 // BLOCK * BLOCK
    if not tile:
        raise SceneError(f"out of memory at a tile of {BLOCK} pixels, the smallest: --device cpu, or free some memory")
    _log.warning("out of memory: once more with a tile of %d pixels (--tile %d)", tile, tile)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return replace(options, tile=tile)


def _sharpen(
    pan: str, ms: Sequence[str], output: Path, options: SharpenOptions, store: WeightStore | None
) -> SharpenResult:
    started = time.monotonic()
    check_target(output, overwrite=options.overwrite)
    if options.stac:
        check_target(item_path(output), overwrite=options.overwrite)
    keep_memory()
    path = options.weights or own_head(options.pair.sensor) or default_weights()
    device = choose_device(options.device)
    model, weights = (store or WeightStore()).get(path, device)
    with bounded_cache(), ScenePair(pan, ms, options.pair) as pair:
        found = survey(pair, align=options.align)
        _report(pair, found)
        extent = extent_of(pair, options.extent, options.bounds, options.bounds_crs)
        chosen = chosen_bands(pair, options.out_bands)
        profile = _profile(pair, extent, chosen, found, options, weights)
        if options.tune is not None:
            model = options.tune(pair, found, model)
        job = _Job(pair, found, model, device, options)
        # Closing the run waits for its readers: the files they read from are closed only afterwards.
        with Writer(output, profile, overwrite=options.overwrite) as writer, closing(job.run(extent)) as parts:
            for tile, data, mask in parts:
                core = Window(tile.core.row - extent.row, tile.core.col - extent.col, *tile.core.shape)
                writer.write(to_dtype(data[list(chosen)], mask, profile.dtype, profile.nodata), core)
            writer.tag(CROSSDIFF_CONSISTENCY=f"{job.consistency:.6f}")
        if options.stac:
            write_item(output, profile, pair, job.consistency)
        seconds = time.monotonic() - started
        return SharpenResult(
            output=str(output),
            sensor=pair.sensor.key,
            bands=tuple(band.name for band in profile.bands),
            ratio=pair.ratio,
            shift_px=(round(found.shift[1], 3), round(found.shift[0], 3)),
            consistency=job.consistency,
            seconds=round(seconds, 3),
            mpx_per_s=round(extent.height * extent.width / 1e6 / seconds, 4),
        )


class _Job:
    """One scene on its way through the network, tile by tile, with the next tiles read ahead."""

    def __init__(
        self, pair: ScenePair, found: Survey, model: CrossDiff, device: torch.device, options: SharpenOptions
    ) -> None:
        self.pair, self.found, self.model, self.device, self.options = pair, found, model, device, options
        self.gains = tuple(band.nyquist_gain for band in pair.bands)
        self.halo = halo(model, pair.grid.ratio, self.gains, options.rounds)
        self.halo += math.ceil(max(abs(v) for v in found.shift))
        self.halo += math.ceil(max((abs(v) for shift in found.band_shifts for v in shift), default=0.0))
        self.spectrum = Spectrum(
            torch.tensor([band.center_nm for band in pair.bands], device=device),
            torch.tensor([band.width_nm for band in pair.bands], device=device),
            torch.tensor(pair.sensor.pan_nm, device=device),
            pair.ratio,
        )
        self.dtype = network_dtype(device, options.precision)
        self._squared_error = 0.0
        self._squared_signal = 0.0

    @property
    def consistency(self) -> float:
        """See `SharpenResult.consistency`."""
        return math.sqrt(self._squared_error / self._squared_signal) if self._squared_signal else 0.0

    def run(self, extent: Window) -> Generator[tuple[Tile, NDArray[np.float32], NDArray[np.bool_]], None, None]:
        """Yield each tile with its fused core (C, rows, cols) in DN and the core's mask."""
        plan = list(tiles(extent, self.options.tile, self.halo, STRIDE))
        with (
            ThreadPoolExecutor(max_workers=self.options.jobs) as readers,
            tqdm(total=len(plan), unit="tile", file=sys.stderr, disable=self.options.quiet or None) as bar,
        ):
            ahead: deque[tuple[Tile, Future[Patch]]] = deque()
            waiting = iter(plan)
            try:
                while True:
                    for tile in waiting:
                        ahead.append((tile, readers.submit(self.pair.read, tile.window)))
                        if len(ahead) > self.options.jobs:
                            break
                    if not ahead:
                        return
                    tile, patch = ahead.popleft()
                    yield tile, *self._fuse(tile, patch.result())
                    bar.update()
            finally:
                for _, pending in ahead:
                    pending.cancel()

    def _fuse(self, tile: Tile, patch: Patch) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        core = tile.core.within(tile.window)
        mask = self.pair.valid(patch)[core]
        if not mask.any():
            return np.zeros((len(self.gains), *tile.core.shape), np.float32), mask
        statistics, pair = self.found.statistics, self.pair
        shift = self.found.shift
        offset = (patch.offset[0] + shift[0], patch.offset[1] + shift[1])
        sampling = Sampling(pair.grid.ratio, offset, self.gains, self.found.band_shifts)
        with torch.inference_mode():
            pan = statistics.normalise_pan(torch.from_numpy(patch.pan).to(self.device))[None]
            ms = statistics.normalise_ms(torch.from_numpy(patch.ms).to(self.device))[None]
            pan_mask, ms_mask = (
                torch.from_numpy(m).to(self.device)[None, None] for m in (patch.pan_mask, patch.ms_mask)
            )
            pan = extend_coarse(pan, pan_mask, rounds=8)
            ms = extend(ms, ms_mask, rounds=2 * EXPAND_RADIUS)
            hrms = fuse(self.model, pan, ms, sampling, self.spectrum, self.options.rounds, self.dtype)
            fused = statistics.denormalise_ms(hrms[0, :, core[0], core[1]]).cpu()
            self._measure(hrms, ms, sampling, tile, ms_mask)
        data = fused.numpy()
        if not np.isfinite(data).all():
            raise SceneError(
                f"the network gave values that are not finite at row {tile.core.row}, column {tile.core.col} "
                f"of {pair.pan.path}"
            )
        return data, mask

    def _measure(self, hrms: Tensor, ms: Tensor, sampling: Sampling, tile: Tile, ms_mask: Tensor) -> None:
        """Add the MS pixels whose centres lie in the core to the consistency figure."""
        seen = to_ms(hrms, (ms.shape[2], ms.shape[3]), sampling)
        inside = []
        for axis, core in enumerate(tile.core.within(tile.window)):
            centre = (
                sampling.offset[axis]
                + (torch.arange(ms.shape[2 + axis], device=ms.device) + 0.5) * sampling.ratio[axis]
            )
            inside.append((centre >= core.start) & (centre < core.stop))
        counted = ms_mask[0, 0] & inside[0][:, None] & inside[1]
        wanted, got = (self.found.statistics.denormalise_ms(x[0])[:, counted].double() for x in (ms, seen))
        self._squared_error += float((got - wanted).square().sum())
        self._squared_signal += float(wanted.square().sum())


def _report(pair: ScenePair, found: Survey) -> None:
    if pair.inputs.delivery:
        _log.info("%s", pair.inputs.delivery)
    bands = ",".join(band.name for band in pair.bands)
    _log.info("%s (%s), bands %s, ratio %.4g", pair.sensor.name, pair.sensor_source, bands, pair.ratio)
    if found.correlation:
        _log.info(
            "the MS lies %+.2f (x) and %+.2f (y) PAN pixels from its nominal place: corrected (correlation %.3f)",
            found.shift[1],
            found.shift[0],
            found.correlation,
        )
    if found.band_shifts:
        _log.info("beyond that, bands lie apart (x,y in PAN pixels): %s; corrected", _bands_apart(pair, found))


def _bands_apart(pair: ScenePair, found: Survey) -> str:
    shifts = zip(pair.bands, found.band_shifts, strict=True)
    return " ".join(f"{band.name}:{col:+.2f},{row:+.2f}" for band, (row, col) in shifts if (row, col) != (0.0, 0.0))


def _profile(
    pair: ScenePair, extent: Window, chosen: Sequence[int], found: Survey, options: SharpenOptions, weights: str
) -> Profile:
    dtype = options.dtype or pair.dtype
    nodata = pair.nodata
    if nodata is None and extent.intersection(pair.footprint) != extent:
        nodata = 0.0
    if nodata is not None and not _fits(nodata, dtype):
        raise OutputError(f"nodata {nodata:g} does not fit {dtype}: choose another with --nodata, or another --dtype")
    imagery = {**pair.ms[0].imagery, **pair.pan.imagery}
    # A COG has no IMAGERY domain of its own: what is carried stands among the plain tags too.
    raw = {**pair.pan.tags, **pair.ms[0].tags, **imagery}
    tags = {name: value for name, value in raw.items() if name in CARRIED_TAGS}
    tags["CROSSDIFF_VERSION"] = __version__
    tags["CROSSDIFF_WEIGHTS"] = weights
    if options.tune is not None:
        tags["CROSSDIFF_ADAPTED"] = str(options.tune)
    tags["CROSSDIFF_SENSOR"] = pair.sensor.key
    bands = [pair.bands[place] for place in chosen]
    tags["CROSSDIFF_BANDS"] = ",".join(band.name for band in bands)
    tags["CROSSDIFF_SHIFT_PX"] = f"{found.shift[1]:.3f},{found.shift[0]:.3f}"
    if found.band_shifts:
        tags["CROSSDIFF_BAND_SHIFTS_PX"] = _bands_apart(pair, found)
    tags["CROSSDIFF_SOURCES"] = ",".join(Path(raster.path).name for raster in (pair.pan, *pair.ms))
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
        tags=tags,
        imagery=imagery,
        driver=options.driver,
        creation=options.creation,
    )


def _fits(nodata: float, dtype: str) -> bool:
    kind = np.dtype(dtype)
    if kind.kind not in "ui":
        return True
    info = np.iinfo(kind)
    return bool(float(nodata).is_integer() and info.min <= nodata <= info.max)
