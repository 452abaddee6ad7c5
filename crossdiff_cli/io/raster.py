"""One raster opened by GDAL: its bands, mask and metadata, read by window from any thread."""

import logging
import re
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile
from rasterio.rpc import RPC
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RasterioWindow

from crossdiff_cli.errors import SceneError
from crossdiff_cli.geometry.window import Window
from crossdiff_cli.io.alpha import alpha_band, without_alpha
from crossdiff_cli.io.read_errors import cause_of, one_error, refuse_odd_names
from crossdiff_cli.io.warped import TOLERANCE_PX, warped_by_points

_log = logging.getLogger(__name__)

_BAND_SUFFIX = re.compile(r"^(?P<path>.+?),band=(?P<band>\d+)$")
_LARGEST_EXACT = 2**24
"""Largest integer up to which float32 holds every one."""
_FLOAT_MAX = 1e38
"""Nodata values beyond this are written in few digits, for the largest float32."""
_MAX_BANDS = 1024
"""More than any instrument has; a damaged header may say 65535."""
_FARTHEST, _SMALLEST_PIXEL = 1e15, 1e-10
"""Coordinates and pixel sizes beyond these are no place on Earth, in metres or degrees."""


class Raster:
    """A raster file, or some bands of one, as float32 data and a validity mask.

    Invalid is: the nodata value in any band, not a number, alpha or mask band 0. Every thread has a handle of its own.
    """

    def __init__(
        self, path: str, bands: Sequence[int] | None = None, *, nodata: float | None = None, ignore_nodata: bool = False
    ) -> None:
        """Open `path` (anything GDAL opens, `,band=N` for one band).

        Args:
            path: file name, URI or GDAL virtual path.
            bands: 1-based bands to read; default all that are not alpha.
            nodata: replaces the declared nodata value.
            ignore_nodata: no value is nodata; mask and alpha bands still count.

        Raises:
            SceneError: the file is missing, not a raster, complex, or has no such band.
        """
        match = _BAND_SUFFIX.match(path)
        self.path: str = match["path"] if match else path
        selected = [int(match["band"])] if match else None
        self._lock = threading.Lock()
        self._local = threading.local()
        self._open: list[Any] = []
        self._warp: dict[str, Any] | None = None
        self._generation = 0
        self._complained = False
        self._virtual: list[MemoryFile] = []
        """Virtual images, each of the one before; the last is read instead of the file."""
        self.exact = False
        """Refuse integers that float32 does not hold."""
        refuse_odd_names(self.path)
        try:
            dataset = self._handle()
            if not dataset.count:
                raise SceneError("the file has no raster bands", path=self.path, cure="name the image inside it")
            if dataset.count > _MAX_BANDS:
                raise SceneError(
                    "the file has more bands than any instrument", path=self.path, found=dataset.count,
                    expected=f"at most {_MAX_BANDS}", cure="is its header damaged?",
                )  # fmt: skip
            chosen = [nodata] if nodata is not None or ignore_nodata else None
            with one_error("the header cannot be read", self.path):
                self._choose_bands(dataset, bands or selected, chosen)
                self._describe(dataset)
        except BaseException:
            self.close()
            raise

    def _choose_bands(self, dataset: Any, chosen: Sequence[int] | None, nodata: list[float | None] | None) -> None:
        """`nodata` None: as declared; else the one value for all bands."""
        alpha = alpha_band(dataset)
        every = [index for index in dataset.indexes if index != alpha]
        self.indexes: list[int] = list(chosen or every)
        missing = [index for index in self.indexes if index not in dataset.indexes]
        if missing:
            raise SceneError(f"the file has no band {missing[0]}", path=self.path, found=f"{dataset.count} bands")
        self._alpha = alpha
        known = dataset.dtypes
        dtypes = {known[index - 1] for index in self.indexes}
        if any("complex" in dtype for dtype in dtypes):
            raise SceneError(
                "the file holds complex numbers", path=self.path, found=", ".join(sorted(dtypes)),
                cure="give an intensity image",
            )  # fmt: skip
        self.dtype = str(np.result_type(*dtypes))
        self._mixed = len({known[index - 1] for index in (*self.indexes, *([] if alpha is None else [alpha]))}) > 1
        declared = dataset.nodatavals
        self.nodata: list[float | None] = (
            [declared[index - 1] for index in self.indexes] if nodata is None else nodata * len(self.indexes)
        )
        flags = dataset.mask_flag_enums[self.indexes[0] - 1]
        self._mask_band = alpha is None and MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags

    def _describe(self, dataset: Any) -> None:
        self.shape: tuple[int, int] = (dataset.height, dataset.width)
        self.transform: Affine = dataset.transform
        pixel = abs(self.transform.determinant) ** 0.5
        if not all(abs(v) < _FARTHEST for v in self.transform) or not pixel > _SMALLEST_PIXEL:
            raise SceneError(
                "the geotransform places no pixels on Earth", path=self.path,
                found=", ".join(f"{v:g}" for v in self.transform.to_gdal()),
                cure="repair it, or take it away (gdal_edit.py -unsetgt) where PAN and MS cover the same ground",
            )  # fmt: skip
        self.crs: CRS | None = dataset.crs
        self.descriptions = [dataset.descriptions[index - 1] for index in self.indexes]
        self.scales = [dataset.scales[index - 1] for index in self.indexes]
        self.offsets = [dataset.offsets[index - 1] for index in self.indexes]
        self.units = [dataset.units[index - 1] for index in self.indexes]
        self.band_tags: list[dict[str, str]] = [dataset.tags(index) for index in self.indexes]
        self.rpcs = self._read_rpcs(dataset)
        self.tags: dict[str, str] = dataset.tags()
        self.imagery: dict[str, str] = dataset.tags(ns="IMAGERY")
        self.control_points: list[GroundControlPoint]
        self.control_points, points_crs = dataset.gcps
        self.ground_crs: CRS | None = self.crs or points_crs
        """CRS of the geotransform, or else of the control points."""
        across = all(width >= dataset.width for _, width in dataset.block_shapes)
        self.strip_bytes: int = dataset.width * dataset.count * np.dtype(self.dtype).itemsize if across else 0
        """Bytes of a row that any window in it has GDAL decode as a whole; 0 where the file is tiled."""

    def _read_rpcs(self, dataset: Any) -> RPC | None:
        try:
            return dataset.rpcs
        except (ValueError, LookupError) as error:
            _log.warning("%s: its rational polynomials cannot be read and are left out (%r)", self.path, error)
            return None

    @property
    def count(self) -> int:
        """Number of bands read."""
        return len(self.indexes)

    @property
    def georeferenced(self) -> bool:
        """Whether a geotransform says where the pixels are."""
        return not self.transform.is_identity

    @property
    def masked(self) -> bool:
        """Whether the file itself says which pixels are valid."""
        return self._alpha is not None or self._mask_band or any(value is not None for value in self.nodata)

    def dataset(self) -> Any:
        """This thread's rasterio dataset, for metadata."""
        return self._handle()

    def assume_nodata(self, value: float) -> None:
        """Treat `value` as nodata in every band from now on."""
        self.nodata = [value] * self.count

    def warp(self, crs: CRS, transform: Affine, shape: tuple[int, int]) -> None:
        """From now on read through a WarpedVRT on the given grid (cubic)."""
        known = next((value for value in self.nodata if value is not None), None)
        grid = {"crs": crs, "transform": transform, "height": shape[0], "width": shape[1]}
        # Without a nodata value only an alpha band tells the pixels outside the source from dark ones.
        outside = {"src_nodata": known, "nodata": known, "add_alpha": known is None and self._alpha is None}
        if outside["add_alpha"] and ColorInterp.alpha in self.dataset().colorinterp:
            self._virtual.append(without_alpha(self.dataset()))
        with self._lock:
            self._warp = {**grid, **outside, "resampling": Resampling.cubic, "tolerance": TOLERANCE_PX}
            self._generation += 1
        if outside["add_alpha"]:
            self._alpha = self.dataset().count
            self._mask_band = False
        self.shape, self.transform, self.crs = shape, transform, crs

    def warp_by_points(
        self, points: Sequence[GroundControlPoint], grid: Affine, shape: tuple[int, int], pan: "Raster"
    ) -> None:
        """From now on read through a thin-plate spline on a grid in the frame of `pan` (cubic).

        Args:
            points: places in this image (row, col) and in the PAN, in pixels (x, y).
            grid: geotransform of the grid in PAN pixels.
            shape: rows and columns of the grid.
            pan: the image whose frame it is.
        """
        known = next((value for value in self.nodata if value is not None), None)
        source = without_alpha(self.dataset())
        warped = warped_by_points(self.dataset(), source.name, points, grid, shape, known, self._alpha)
        with self._lock:
            self._virtual += [source, MemoryFile(warped, ext="vrt")]
            self._generation += 1
        if self._alpha is None:
            self._alpha = self.dataset().count
            self._mask_band = False
        self.shape, self.transform, self.crs = shape, pan.transform @ grid, pan.crs

    def read(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read a window, which may reach beyond the image.

        Returns:
            data (bands, rows, cols), zero where invalid, and mask (rows, cols), True where every band is valid.

        Raises:
            SceneError: the file is truncated or damaged there.
        """
        data = np.zeros((self.count, *window.shape), np.float32)
        mask = np.zeros(window.shape, np.bool_)
        inside = window.intersection(Window(0, 0, *self.shape))
        if inside is None:
            return data, mask
        where = inside.within(window)
        data[:, *where], mask[where] = self._read_inside(inside)
        return data, mask

    def read_reduced(self, window: Window, shape: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read a window of the image, brought to a smaller `shape` by GDAL (overviews where there are any).

        Returns:
            data (bands, *shape), zero where invalid, and mask `shape`: a picture to look at, nothing to measure on.

        Raises:
            SceneError: the file is truncated or damaged there.
        """
        # Averages would mix masked pixels in: GDAL does not know every kind of mask that this class knows.
        how = Resampling.nearest if self.masked else Resampling.average
        return self._read_inside(window, {"out_shape": shape, "resampling": how})

    def _read_inside(
        self, window: Window, reduced: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        area = RasterioWindow(window.col, window.row, window.width, window.height)
        extra = [] if self._alpha is None else [self._alpha]
        how = reduced or {}
        where = f"the file is damaged or truncated at row {window.row}, column {window.col}"
        with one_error(where, self.path):
            raw = self._read_bands([*self.indexes, *extra], {"window": area, **how})
            mask = np.ones(raw.shape[1:], np.bool_)
            if self._mask_band:
                mask &= self._handle().read_masks(self.indexes[0], window=area, **how) > 0
        if extra:
            mask &= raw[-1] > 0
            raw = raw[:-1]
        for band, value in zip(raw, self.nodata, strict=True):
            if value is not None and not np.isnan(value):
                mask &= ~_equal(band, value)
        if raw.dtype.kind == "f":
            mask &= np.isfinite(raw).all(axis=0) & (np.abs(raw) <= np.finfo(np.float32).max).all(axis=0)
        elif self.exact and raw.dtype.itemsize >= 4:
            self._check_exact(raw[:, mask], window)
        if not mask.all():
            raw = np.where(mask, raw, raw.dtype.type(0))
        return raw.astype(np.float32), mask

    def _check_exact(self, values: NDArray[Any], window: Window) -> None:
        largest = max(abs(int(values.max(initial=0))), abs(int(values.min(initial=0))))
        if largest > _LARGEST_EXACT:
            raise SceneError(
                f"float32, in which pixels are processed, does not hold the integers near row {window.row}, "
                f"column {window.col}", path=self.path, found=f"{self.dtype} values to {largest}",
                expected=f"at most {_LARGEST_EXACT}", cure="subtract an offset or divide them first (gdal_calc)",
            )  # fmt: skip

    def _read_bands(self, indexes: list[int], how: dict[str, Any]) -> NDArray[Any]:
        """Read bands (n, rows, cols); rasterio takes bands of different types one by one only."""
        handle = self._handle()
        if self._mixed:
            return np.stack([handle.read(index, **how) for index in indexes])
        if "out_shape" in how:
            how = {**how, "out_shape": (len(indexes), *how["out_shape"])}
        return handle.read(indexes, **how)

    def _handle(self) -> Any:
        handle = getattr(self._local, "handle", None)
        if handle is None or self._local.generation != self._generation:
            with one_error("the file cannot be opened", self.path):
                handle = self._keep(rasterio.open(self._virtual[-1].name if self._virtual else self.path))
                self._settle(handle)
                if self._warp is not None:
                    handle = self._keep(WarpedVRT(handle, **self._warp))
            self._local.handle, self._local.generation = handle, self._generation
        return handle

    def _keep(self, handle: Any) -> Any:
        """Remember a handle, so that `close` closes it."""
        with self._lock:
            self._open.append(handle)
        return handle

    def _settle(self, dataset: Any) -> None:
        """Take the error that GDAL raises once per handle when a sidecar is damaged; the pixels are not affected."""
        try:
            _ = dataset.colorinterp, dataset.mask_flag_enums
        except (RasterioError, CPLE_BaseError) as error:
            if not self._complained:
                _log.warning("%s: a part of its metadata is damaged and left out (%s)", self.path, cause_of(error))
            self._complained = True

    def close(self) -> None:
        """Close the handles of all threads."""
        with self._lock:
            for handle in reversed(self._open):  # a warped one before what it reads
                handle.close()
            self._open.clear()
            self._generation += 1
            for virtual in reversed(self._virtual):
                virtual.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _equal(band: NDArray[Any], value: float) -> NDArray[np.bool_]:
    """Return which pixels have a nodata value, as GDAL compares: floats in their own precision, by two units of it."""
    if band.dtype.kind != "f":
        return np.asarray(band == value)
    tolerance = 1e-5 if abs(value) > _FLOAT_MAX else 4 * float(np.finfo(band.dtype).eps)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(np.abs(band / band.dtype.type(value) - 1) <= tolerance) if value else np.asarray(band == 0)
