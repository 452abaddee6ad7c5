"""The Wald pair: PAN and MS one ratio down by their MTFs, and the MS as the reference that a result is scored by."""

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from affine import Affine
from numpy.typing import NDArray

from crossdiff_cli import __version__
from crossdiff_cli.errors import OutputError, SceneError
from crossdiff_cli.estimate.registration import Registration
from crossdiff_cli.estimate.survey import MtfSource, survey
from crossdiff_cli.geometry.grid import GridMapping
from crossdiff_cli.geometry.window import Window, tiles
from crossdiff_cli.imaging.quantise import array_to_dtype
from crossdiff_cli.imaging.resample import degrade as degrade_image
from crossdiff_cli.imaging.resample import mtf_radius
from crossdiff_cli.io.open_pair import open_pair
from crossdiff_cli.io.pair import ScenePair
from crossdiff_cli.io.target import check_target, refuse_target
from crossdiff_cli.io.writer import OutputProfile, Writer, move_raster
from crossdiff_cli.options import DegradeOptions
from crossdiff_cli.sensors.table import Band
from crossdiff_cli.system.atomic import hidden_beside, remove_abandoned
from crossdiff_cli.system.paths import exists, is_folder
from crossdiff_cli.system.signals import undone_by

Image = tuple[NDArray[np.float32], NDArray[np.bool_]]
"""Data (bands, rows, columns) and mask (rows, columns), True where valid."""

NAMES = ("pan.tif", "ms.tif", "reference.tif")
_TILE = 256
"""Side of the windows that are written, in pixels; a multiple of the files' blocks."""
_SMALLEST = 2


@dataclass(frozen=True, slots=True)
class DegradeResult:
    """What was written, for the log and `--json`."""

    pan: str
    ms: str
    reference: str
    sensor: str
    bands: tuple[str, ...]
    ratio: float
    shift_px: tuple[float, float]
    """(x, y), PAN pixels of the input."""
    nyquist_gains: tuple[float, ...]
    """MTF gain, at the Nyquist frequency of the degraded MS, by which each band was degraded."""
    mtf_source: tuple[MtfSource, ...]
    """Origin of each gain: `scene`, `table` or `option`."""
    pan_nyquist_gain: float
    """MTF gain, at the Nyquist frequency of the degraded PAN, by which the PAN was degraded."""
    pan_mtf_source: MtfSource
    """Its origin."""

    def as_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


def degrade(pan: str, ms: Sequence[str], folder: Path, options: DegradeOptions | None = None) -> DegradeResult:
    """Write `pan.tif`, `ms.tif` and `reference.tif` into a folder: a pair whose true result is known.

    The degraded PAN and the reference lie on the MS grid, cut to whole pixels of the degraded MS. Data types are those
    of the inputs. A pixel that a masked one would go into is masked.

    Args:
        pan: panchromatic image, anything GDAL opens.
        ms: one multispectral image, or one per band.
        folder: made if it is missing; it holds all three files or is not touched.
        options: defaults as the command's.

    Raises:
        CrossDiffError: any bad input, with one line that says what and how to cure it.
    """
    options = options or DegradeOptions()
    if exists(folder) and not is_folder(folder):
        raise OutputError("it is a file", path=folder, cure="name a folder")
    targets = [folder / name for name in NAMES]
    for target in targets:
        check_target(target if is_folder(folder) else folder, overwrite=options.overwrite)
    with open_pair(pan, ms, options.pair) as pair:
        for target in targets:
            refuse_target(target, (pair.pan, *pair.ms))
        found = survey(
            pair.sample_windows(), pair.grid, pair.bands, options.estimate, pair.pan.path, pair.sensor.pan_nyquist_gain
        )
        plan = _plan(pair, found.registration)
        with _together(folder) as hidden:
            _write(pair, plan, found.pan_nyquist_gain, found.nyquist_gains, hidden)
        return DegradeResult(
            pan=str(targets[0]),
            ms=str(targets[1]),
            reference=str(targets[2]),
            sensor=pair.sensor.key,
            bands=tuple(band.name for band in pair.bands),
            ratio=round(sum(plan.coarse.ratio) / 2, 6),
            shift_px=(round(found.registration.shift[1], 3), round(found.registration.shift[0], 3)),
            nyquist_gains=tuple(round(gain, 3) for gain in found.nyquist_gains),
            mtf_source=found.mtf_sources,
            pan_nyquist_gain=round(found.pan_nyquist_gain, 3),
            pan_mtf_source=found.pan_mtf_source,
        )


@dataclass(frozen=True, slots=True)
class _Plan:
    """Where the degraded pair lies; "fine" is the MS grid of the input, cut to `crop`."""

    crop: Window
    """The MS pixels that are kept."""
    pan: GridMapping
    """How those lie on the PAN grid, as registered."""
    coarse: GridMapping
    """How the degraded MS lies on them."""
    coarse_shape: tuple[int, int]
    transform: Affine | None
    """Geotransform of the crop."""


def _plan(pair: ScenePair, place: Registration) -> _Plan:
    starts, shapes, coarse_shape = [], [], []
    for axis in (0, 1):
        offset, ratio = pair.grid.offset[axis], pair.grid.ratio[axis]
        first = max(0, math.ceil(-offset / ratio - 1e-6))
        last = min(pair.ms_shape[axis], math.floor((pair.pan.shape[axis] - offset) / ratio + 1e-6))
        count = math.floor((last - first) / ratio + 1e-6)
        if count < _SMALLEST:
            raise SceneError(
                f"too few of its pixels lie whole on {pair.pan.path} for a ratio of {ratio:.3g}",
                path=pair.ms[0].path,
                found=max(last - first, 0),
            )
        starts.append(first)
        coarse_shape.append(count)
        shapes.append(math.ceil(count * ratio - 1e-6))
    crop = Window(starts[0], starts[1], shapes[0], shapes[1])
    ratio_rows, ratio_cols = (
        pair.grid.ratio if _transform(pair) else tuple(n / m for n, m in zip(shapes, coarse_shape, strict=True))
    )
    row, col = (pair.grid.offset[axis] + starts[axis] * pair.grid.ratio[axis] for axis in (0, 1))
    origin = _transform(pair)
    return _Plan(
        crop=crop,
        pan=GridMapping(place.ratio(pair.grid.ratio), place.offset((row, col), (0.0, 0.0))),
        coarse=GridMapping((ratio_rows, ratio_cols), (0.0, 0.0)),
        coarse_shape=(coarse_shape[0], coarse_shape[1]),
        transform=None if origin is None else origin @ Affine.translation(crop.col, crop.row),
    )


def _transform(pair: ScenePair) -> Affine | None:
    """Geotransform of the MS, by way of the PAN where the MS has none."""
    if pair.ms[0].georeferenced:
        return pair.ms[0].transform
    if not pair.pan.georeferenced:
        return None
    (row, col), (rows, cols) = pair.grid.offset, pair.grid.ratio
    return pair.pan.transform @ Affine.translation(col, row) @ Affine.scale(cols, rows)


def _write(pair: ScenePair, plan: _Plan, pan_gain: float, gains: tuple[float, ...], folder: Path) -> None:
    whole = Window(0, 0, *plan.crop.shape)

    def read_ms(window: Window) -> Image:
        there = Window(window.row + plan.crop.row, window.col + plan.crop.col, *window.shape)
        parts = [raster.read(there) for raster in pair.ms]
        return np.concatenate([data for data, _ in parts]), np.logical_and.reduce([mask for _, mask in parts])

    pan_source = _Source(pair.pan.read, Window(0, 0, *pair.pan.shape), plan.pan, (pan_gain,))
    ms_source = _Source(read_ms, whole, plan.coarse, gains)
    coarse = None
    if plan.transform is not None:
        coarse = plan.transform @ Affine.scale(plan.coarse.ratio[1], plan.coarse.ratio[0])
    low, high = pair.sensor.pan_nm
    pan_band = Band("PAN", (low + high) / 2, high - low, pan_gain)
    reference = _profile(pair, plan)
    pan = replace(
        reference, dtype=pair.pan.dtype, bands=[pan_band], scales=pair.pan.scales, offsets=pair.pan.offsets,
        nodata=_pan_nodata(pair), imagery={**reference.imagery, **pair.pan.imagery},
    )  # fmt: skip
    jobs: list[tuple[str, OutputProfile, Callable[[Window], Image]]] = [
        (NAMES[0], pan, pan_source.degraded),
        (NAMES[1], replace(reference, shape=plan.coarse_shape, transform=coarse), ms_source.degraded),
        (NAMES[2], reference, read_ms),
    ]
    for name, profile, image in jobs:
        with Writer(folder / name, profile) as writer:
            for window in _windows(profile.shape):
                writer.write(array_to_dtype(*image(window), profile.dtype, profile.nodata), window)


@dataclass(frozen=True, slots=True)
class _Source:
    """An image that is read by window and brought to a coarser grid."""

    read: Callable[[Window], Image]
    whole: Window
    grid: GridMapping
    gains: tuple[float, ...]

    def degraded(self, core: Window) -> Image:
        """A window of the coarser grid; beyond the image its edge pixels are repeated, masked ones spread."""
        spans = []
        for axis in (0, 1):
            ratio, start = self.grid.ratio[axis], (core.row, core.col)[axis]
            radius = max(mtf_radius(gain, ratio) for gain in self.gains) + 2
            first = math.floor(self.grid.offset[axis] + start * ratio) - radius
            last = math.ceil(self.grid.offset[axis] + (start + core.shape[axis]) * ratio) + radius
            size = self.whole.shape[axis]
            spans.append((min(max(first, 0), size - 1), max(min(last, size), 1)))
        (top, bottom), (left, right) = spans
        outer = Window(top, left, max(bottom - top, 1), max(right - left, 1))
        data, mask = self.read(outer)
        offset = self.grid.local_offset(outer, core)
        image, masked = torch.from_numpy(data)[None], torch.from_numpy(~mask)[None, None].float()
        out = degrade_image(image, core.shape, self.grid.ratio, offset, self.gains)[0]
        if not masked.any():
            return out.numpy(), np.ones(core.shape, np.bool_)
        touched = degrade_image(masked, core.shape, self.grid.ratio, offset, [min(self.gains)])[0, 0]
        return out.numpy(), (touched == 0).numpy()


def _windows(shape: tuple[int, int]) -> Iterator[Window]:
    return (tile.core for tile in tiles(Window(0, 0, *shape), _TILE, 0, 1))


def _profile(pair: ScenePair, plan: _Plan) -> OutputProfile:
    """Of the reference."""
    # What the user said about the sensor goes into the files; what was guessed does not.
    told = {"SATELLITEID": pair.sensor.key} if pair.sensor_source == "option" else {}
    return OutputProfile(
        shape=plan.crop.shape,
        dtype=pair.dtype,
        crs=pair.crs,
        transform=plan.transform,
        nodata=pair.nodata,
        bands=pair.bands,
        scales=[scale for raster in pair.ms for scale in raster.scales],
        offsets=[offset for raster in pair.ms for offset in raster.offsets],
        tags={"CROSSDIFF_VERSION": __version__, "CROSSDIFF_SENSOR": pair.sensor.key},
        imagery={**told, **pair.ms[0].imagery},
    )


def _pan_nodata(pair: ScenePair) -> float | None:
    """The PAN's own value, else the MS's where PAN can hold it, else 0 or NaN where anything can be masked."""
    own = pair.pan.nodata[0]
    if own is not None or not pair.pan.masked:
        return own
    return float("nan") if np.dtype(pair.pan.dtype).kind == "f" else 0.0


@contextmanager
def _together(folder: Path) -> Iterator[Path]:
    """A hidden folder inside `folder`: its files move there together, or not at all, and then `folder` is as it was."""
    made = not folder.exists()
    hidden = hidden_beside(folder / "degrade")

    def remove() -> None:
        shutil.rmtree(hidden, ignore_errors=True)
        if made:
            with suppress(OSError):  # it holds the files
                folder.rmdir()

    with undone_by(remove):
        try:
            try:
                folder.mkdir(exist_ok=True)
                remove_abandoned(folder / "degrade")
                hidden.mkdir()
            except OSError as error:
                raise OutputError("the folder cannot be made", path=folder, found=error.strerror) from error
            yield hidden
            for name in NAMES:
                move_raster(hidden / name, folder / name)
        finally:
            remove()
