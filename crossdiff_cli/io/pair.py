"""ScenePair: a PAN and an MS image checked against each other, aligned, and read by window."""

import logging
import warnings
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasterio.rpc import RPC
from rasterio.transform import Affine

from crossdiff_cli.errors import SceneError, SensorError
from crossdiff_cli.geometry.grid import Grid, relate, same_bounds
from crossdiff_cli.geometry.window import Window, spread
from crossdiff_cli.io.hints import Hints
from crossdiff_cli.io.identify import Choice, Detection, detect_sensor, read_hints
from crossdiff_cli.io.inputs import resolve
from crossdiff_cli.io.raster import Raster
from crossdiff_cli.io.rpc import relate_rpcs
from crossdiff_cli.io.warping import apart, warp_to
from crossdiff_cli.sensors.definitions import named_sensor
from crossdiff_cli.sensors.table import find_sensor

warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)

_log = logging.getLogger(__name__)

_MIN_RATIO, _MAX_RATIO = 1.25, 20.0
_MS_MARGIN = 4
"""MS pixels read beyond a window: what `mtf.expand` reaches, and one."""
_COLLAR_SHARE = 0.001
"""Share of pixels that are zero in every band from which zero is taken for nodata where none is declared."""


@dataclass(frozen=True, slots=True)
class Patch:
    """One window of a pair: raw DN, zero where invalid."""

    pan: NDArray[np.float32]
    """(1, H, W)."""
    pan_mask: NDArray[np.bool_]
    """(H, W), True where valid."""
    ms: NDArray[np.float32]
    """(C, h, w)."""
    ms_mask: NDArray[np.bool_]
    """(h, w), True where all bands are valid."""
    offset: tuple[float, float]
    """PAN coordinates, within the window, of the outer corner of MS pixel (0, 0) of the window."""


@dataclass(frozen=True, slots=True)
class PairOptions:
    """What the user may say about a pair."""

    sensor: str = "auto"
    bands: tuple[str, ...] | None = None
    """Names of the MS bands in file order."""
    bidx: tuple[int, ...] | None = None
    """1-based MS bands to use."""
    nodata: float | None = None
    ignore_nodata: bool = False
    """Every number is data: neither declared nodata values nor a black collar are looked at."""


class ScenePair:
    """PAN and MS of one scene. Checks everything a header can tell before a pixel is fused."""

    def __init__(self, pan: str, ms: Sequence[str] = (), options: PairOptions | None = None) -> None:
        """Open and check a pair.

        Args:
            pan: the panchromatic image, or a delivery (folder or metadata file).
            ms: one multispectral image or delivery, or one file per band; nothing where `pan` is a delivery of both.
            options: sensor, bands and nodata, where the files do not say.

        Raises:
            SceneError: files that cannot be read or do not belong together.
            SensorError: unknown sensor, or bands that do not fit.
        """
        options = options or PairOptions()
        self.notes: list[str] = []
        """What was assumed, for the log and the report."""
        self.inputs = inputs = resolve(pan, ms)
        for remark in inputs.remarks:
            self._note(remark)
        pan, ms = inputs.pan, inputs.ms
        if options.bidx is not None and len(ms) != 1:
            raise SceneError("--bidx picks bands of one MS file; with one file per band, name the files you want")
        self.pan = _raster(pan, options, inputs.pan_nodata)
        self.ms = [_raster(path, options, inputs.ms_nodata, options.bidx) for path in ms]
        if self.pan.count != 1:
            raise SceneError(
                f"the PAN image {pan} has {self.pan.count} bands; give PAN before MS, or pick one: '{pan},band=1'"
            )
        self._check_ms_files()
        hints = [read_hints(raster.dataset()).select(raster.indexes) for raster in (self.pan, *self.ms)]
        self.grid = self._relate()
        self._check_ratio()
        footprint = self.grid.footprint(self.pan.shape, self.ms_shape)
        if footprint is None:
            if self.pan.georeferenced and self.ms[0].georeferenced:
                raise apart(self.pan, ms[0], self.ms_shape, self.ms[0].transform)
            raise SceneError(f"{pan} and {ms[0]} do not overlap: their RPCs show different ground")
        self.footprint: Window = footprint
        if not options.ignore_nodata:
            self._assume_collar()
        found = self._identify(options, hints)
        self.sensor, self.bands, self.sensor_source = found.sensor, found.bands, found.source

    @property
    def ms_shape(self) -> tuple[int, int]:
        """Rows and columns of the MS."""
        return self.ms[0].shape

    @property
    def band_count(self) -> int:
        """Number of MS bands."""
        return sum(raster.count for raster in self.ms)

    @property
    def ratio(self) -> float:
        """MS pixel size over PAN pixel size, the mean of both axes."""
        return sum(self.grid.ratio) / 2

    @property
    def crs(self) -> CRS | None:
        """The PAN's CRS, or the MS's where the PAN has none."""
        return self.pan.crs or self.ms[0].crs

    def transform(self, extent: Window) -> Affine | None:
        """Geotransform of a part of the PAN grid; None without georeference."""
        if not self.pan.georeferenced:
            return None
        return self.pan.transform @ Affine.translation(extent.col, extent.row)

    def rpcs(self, extent: Window) -> RPC | None:
        """The PAN's rational polynomials for a part of its grid: line and sample offsets follow the crop."""
        rpcs = copy(self.pan.rpcs)
        if rpcs is not None:
            rpcs.line_off, rpcs.samp_off = rpcs.line_off - extent.row, rpcs.samp_off - extent.col
        return rpcs

    @property
    def nodata(self) -> float | None:
        """Value of masked pixels: the MS's own, else 0 or NaN when anything can be masked, else None."""
        for raster in self.ms:
            for value in raster.nodata:
                if value is not None:
                    return value
        if np.dtype(self.dtype).kind == "f":
            return float("nan")
        return 0.0 if any(raster.masked for raster in (self.pan, *self.ms)) else None

    @property
    def dtype(self) -> str:
        """Data type of the MS, and so of the result."""
        return str(np.result_type(*(raster.dtype for raster in self.ms)))

    def read(self, window: Window) -> Patch:
        """Read a window of the PAN grid, which may reach beyond the images, with the MS pixels under it."""
        pan, pan_mask = self.pan.read(window)
        ms_window = self.grid.ms_window(window, _MS_MARGIN)
        parts = [raster.read(ms_window) for raster in self.ms]
        ms_mask = np.logical_and.reduce([mask for _, mask in parts])
        ms = np.concatenate([data for data, _ in parts])
        if not ms_mask.all():
            ms[:, ~ms_mask] = 0.0
        return Patch(pan, pan_mask, ms, ms_mask, self.grid.local_offset(window, ms_window))

    def valid(self, patch: Patch) -> NDArray[np.bool_]:
        """PAN pixels of a patch that are valid themselves and lie on a valid MS pixel: (H, W)."""
        ratio = self.grid.ratio
        index = [
            np.floor((np.arange(size) + 0.5 - patch.offset[axis]) / ratio[axis]).astype(np.int64)
            for axis, size in enumerate(patch.pan_mask.shape)
        ]
        rows, cols = (np.clip(i, 0, n - 1) for i, n in zip(index, patch.ms_mask.shape, strict=True))
        valid: NDArray[np.bool_] = patch.pan_mask & patch.ms_mask.take(cols, axis=1).take(rows, axis=0)
        return valid

    def close(self) -> None:
        """Close all files."""
        for raster in (self.pan, *self.ms):
            raster.close()
        self.inputs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _note(self, text: str) -> None:
        self.notes.append(text)
        _log.warning(text)

    def _check_ms_files(self) -> None:
        first = self.ms[0]
        for raster in self.ms[1:]:
            moved = [abs(a - b) for a, b in zip(~first.transform @ raster.transform, Affine.identity(), strict=True)]
            if raster.shape != first.shape or max(moved) > 1e-2 or raster.crs != first.crs:
                raise SceneError(
                    f"the MS bands {first.path} ({first.shape[1]} x {first.shape[0]}) and {raster.path} "
                    f"({raster.shape[1]} x {raster.shape[0]}) lie on different grids; bring them to one grid first"
                )

    def _relate(self) -> Grid:
        pan, ms = self.pan, self.ms[0]
        if not (pan.georeferenced and ms.georeferenced):
            return self._relate_unrectified()
        if pan.crs and ms.crs and pan.crs != ms.crs:
            return self._warp("the MS is warped from " + f"{_name(ms.crs)} to the PAN's {_name(pan.crs)}")
        if bool(pan.crs) != bool(ms.crs):
            self._note(f"{(ms if pan.crs else pan).path} has no CRS: the other image's is taken for both")
        grid = relate(pan.transform, ms.transform, ms.shape)
        return grid or self._warp("the MS is rotated or mirrored against the PAN and warped to its grid")

    def _relate_unrectified(self) -> Grid:
        """By the RPCs where both images have them, else the same ground is assumed."""
        pan, ms = self.pan, self.ms[0]
        by_rpcs = pan.rpcs is not None and ms.rpcs is not None
        for raster in (pan, ms):
            if raster.gcps and not (raster.georeferenced or by_rpcs):
                raise SceneError(
                    f"{raster.path} is placed by ground control points alone: rectify PAN and MS first (gdalwarp -tps "
                    "-r cubic), or take the points away where both show the same ground (gdal_translate -nogcp)"
                )
        if pan.georeferenced or ms.georeferenced:
            which = ms.path if pan.georeferenced else pan.path
            self._note(f"{which} has no georeference: PAN and MS are taken to cover the same ground exactly")
        elif pan.rpcs is not None and ms.rpcs is not None:
            if grid := relate_rpcs(pan.rpcs, ms.rpcs, pan.shape, (pan.path, ms.path)):
                self._note(
                    "the images are not rectified: PAN and MS are related by their RPCs (in x and y ratio "
                    f"{grid.ratio[1]:.6g} and {grid.ratio[0]:.6g}, offset {grid.offset[1]:.2f} and "
                    f"{grid.offset[0]:.2f} PAN pixels)"
                )
                return grid
            self._note("the RPCs do not relate PAN and MS: they are taken to cover the same ground exactly")
        elif pan.rpcs is not None or ms.rpcs is not None:
            self._note("the images are not rectified: PAN and MS are taken to cover the same ground exactly")
        assumed = same_bounds(pan.shape, ms.shape)
        if abs(assumed.ratio[0] / assumed.ratio[1] - 1) > 0.02:
            raise SceneError(
                f"{pan.path} ({pan.shape[1]} x {pan.shape[0]}) and {ms.path} ({ms.shape[1]} x {ms.shape[0]}) "
                f"have no georeference and different proportions: do they show the same ground?"
            )
        return assumed

    def _warp(self, why: str) -> Grid:
        grid = warp_to(self.pan, self.ms)
        self._note(f"{why} (cubic)")
        return grid

    def _check_ratio(self) -> None:
        rows, cols = self.grid.ratio
        pan, ms = self.pan.path, self.ms[0].path
        if self.ratio < 1 / _MIN_RATIO:
            raise SceneError(
                f"{pan} is coarser than {ms} (a PAN pixel is {1 / self.ratio:.3g} MS pixels): are PAN and MS swapped?"
            )
        if self.ratio < _MIN_RATIO:
            raise SceneError(
                f"{pan} and {ms} have the same pixel size (ratio {self.ratio:.3g}): there is nothing to sharpen; the "
                "MS is pansharpened already, or both were resampled to one pixel size"
            )
        if self.ratio > _MAX_RATIO:
            raise SceneError(
                f"an MS pixel of {ms} is {self.ratio:.3g} pixels of {pan}; the ratio may be {_MAX_RATIO:.0f} at most"
            )
        if abs(rows / cols - 1) > 0.1:
            raise SceneError(f"{pan} and {ms} differ in proportions: ratio {cols:.3g} in x and {rows:.3g} in y")

    def _assume_collar(self) -> None:
        """Find an undeclared black collar: frequent pixels that are zero in every band of an integer image."""
        if np.dtype(self.dtype).kind not in "ui" or any(raster.masked for raster in self.ms):
            return
        zero = total = 0
        for window in spread(Window(0, 0, *self.ms_shape), 256, 16):
            parts = [raster.read(window)[0] for raster in self.ms]
            zero += int((np.concatenate(parts) == 0).all(axis=0).sum())
            total += window.height * window.width
        if zero > _COLLAR_SHARE * total:
            for raster in (*self.ms, *([] if self.pan.masked else [self.pan])):
                raster.assume_nodata(0.0)
            self._note(
                f"{100 * zero / total:.1f} % of the MS is zero in every band and no nodata value is declared: "
                "0 is taken for nodata (--nodata none keeps it as data)"
            )

    def _identify(self, options: PairOptions, hints: list[Hints]) -> Detection:
        count = self.band_count
        if options.bands is not None and len(options.bands) != count:
            raise SensorError(
                f"--bands names {len(options.bands)} bands ({','.join(options.bands)}), the MS has {count}"
            )
        choice = Choice(None if options.sensor == "auto" else named_sensor(options.sensor), options.bands or ())
        told = self.inputs
        if choice.sensor is None and told.sensor is not None:
            choice = replace(choice, sensor=find_sensor(told.sensor), source="delivery")
        if not choice.bands and choice.sensor is not None and told.bands:
            choice = replace(
                choice, bands=tuple(told.bands[i - 1] for i in options.bidx) if options.bidx else told.bands
            )
        found = detect_sensor(hints[0], hints[1:], count, self.ratio, choice)
        if found.warning:
            self._note(found.warning)
        return found


def _raster(path: str, options: PairOptions, nodata: float | None, bands: Sequence[int] | None = None) -> Raster:
    """Open a file with the user's word on nodata, else the delivery's, else its own."""
    if options.nodata is not None or options.ignore_nodata:
        nodata = options.nodata
    return Raster(path, bands, nodata=nodata, ignore_nodata=options.ignore_nodata)


def _name(crs: object) -> str:
    return getattr(crs, "to_string", lambda: str(crs))()[:40]
