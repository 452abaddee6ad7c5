"""One raster opened by GDAL: its bands, mask and metadata, read by window from any thread."""

import logging
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import CRSError, RasterioError
from rasterio.rpc import RPC
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RasterioWindow

from crossdiff_cli.errors import SceneError
from crossdiff_cli.geometry.window import Window
from crossdiff_cli.system.paths import is_stream

_log = logging.getLogger(__name__)

_BAND_SUFFIX = re.compile(r"^(?P<path>.+?),band=(?P<band>\d+)$")
_SAMPLE = 512
_LEAST_CACHE, _MOST_CACHE = 32 * 2**20, 192 * 2**20
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
        _refuse_odd_names(self.path)
        dataset = self._handle()
        if not dataset.count:
            raise SceneError(f"{self.path} has no raster bands; name the PAN or MS image inside it")
        if dataset.count > _MAX_BANDS:
            raise SceneError(f"{self.path} has {dataset.count} bands, {_MAX_BANDS} at most can be sharpened: damaged?")
        with _one_error(f"cannot read the header of {self.path}"):
            self._choose_bands(dataset, bands or selected, [nodata] if nodata is not None or ignore_nodata else None)
            self._describe(dataset)

    def _choose_bands(self, dataset: Any, chosen: Sequence[int] | None, nodata: list[float | None] | None) -> None:
        """`nodata` None: as declared; else the one value for all bands."""
        alpha = _alpha_band(dataset)
        every = [index for index in dataset.indexes if index != alpha]
        self.indexes: list[int] = list(chosen or every)
        missing = [index for index in self.indexes if index not in dataset.indexes]
        if missing:
            raise SceneError(f"{self.path} has {dataset.count} bands, no band {missing[0]}")
        self._alpha = alpha
        known = dataset.dtypes
        dtypes = {known[index - 1] for index in self.indexes}
        if any("complex" in dtype for dtype in dtypes):
            raise SceneError(
                f"{self.path} holds complex numbers ({', '.join(sorted(dtypes))}); give an intensity image"
            )
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
                f"the geotransform of {self.path} is none: {', '.join(f'{v:g}' for v in self.transform.to_gdal())}; "
                "repair it, or take it away (gdal_edit.py -unsetgt) where PAN and MS cover the same ground"
            )
        self.crs: CRS | None = dataset.crs
        self.descriptions = [dataset.descriptions[index - 1] for index in self.indexes]
        self.scales = [dataset.scales[index - 1] for index in self.indexes]
        self.offsets = [dataset.offsets[index - 1] for index in self.indexes]
        self.units = [dataset.units[index - 1] for index in self.indexes]
        self.band_tags: list[dict[str, str]] = [dataset.tags(index) for index in self.indexes]
        self.rpcs = self._read_rpcs(dataset)
        self.tags: dict[str, str] = dataset.tags()
        self.imagery: dict[str, str] = dataset.tags(ns="IMAGERY")
        self.gcps: bool = bool(dataset.gcps[0])
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
        outside = {"add_alpha": self._alpha is None} if known is None else {"src_nodata": known, "nodata": known}
        with self._lock:
            self._warp = {**grid, **outside, "resampling": Resampling.cubic}
            self._generation += 1
        if known is None and self._alpha is None:
            self._alpha = self.dataset().count
            self._mask_band = False
        self.shape, self.transform, self.crs = shape, transform, crs

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
        with _one_error(f"cannot read {self.path} at row {window.row}, column {window.col}, damaged or truncated"):
            raw = self._read_bands([*self.indexes, *extra], {"window": area, **how})
            mask = np.ones(raw.shape[1:], np.bool_)
            if self._mask_band:
                mask &= self._handle().read_masks(self.indexes[0], window=area, **how) > 0
        if extra:
            mask &= raw[-1] > 0
            raw = raw[:-1]
        for band, value in zip(raw, self.nodata, strict=True):
            if value is not None and not np.isnan(value):
                mask &= band != value
        if raw.dtype.kind == "f":
            mask &= np.isfinite(raw).all(axis=0)
        data = raw.astype(np.float32)
        if not mask.all():
            data[:, ~mask] = 0.0
        return data, mask

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
            with _one_error(f"cannot open {self.path}"):
                handle = rasterio.open(self.path)
                self._settle(handle)
                if self._warp is not None:
                    handle = WarpedVRT(handle, **self._warp)
            self._local.handle, self._local.generation = handle, self._generation
            with self._lock:
                self._open.append(handle)
        return handle

    def _settle(self, dataset: Any) -> None:
        """Take the error that GDAL raises once per handle when a sidecar is damaged; the pixels are not affected."""
        try:
            _ = dataset.colorinterp, dataset.mask_flag_enums
        except (RasterioError, CPLE_BaseError) as error:
            if not self._complained:
                _log.warning("%s: a part of its metadata is damaged and left out (%s)", self.path, _cause(error))
            self._complained = True

    def close(self) -> None:
        """Close the handles of all threads."""
        with self._lock:
            for handle in self._open:
                handle.close()
            self._open.clear()
            self._generation += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def bounded_cache(wanted: float = 0.0) -> rasterio.Env:
    """Keep GDAL's block cache, by default a share of the machine's memory, small: what fills it is not the tile's.

    Args:
        wanted: bytes that reads one after the other have in common; as much is given within limits.
    """
    return rasterio.Env(GDAL_CACHEMAX=int(min(max(wanted, _LEAST_CACHE), _MOST_CACHE)))


def _alpha_band(dataset: Any) -> int | None:
    """The alpha band, if it is one: GDAL takes band 4 of any uint8 image for alpha, near-infrared included."""
    candidates = [i for i, kind in zip(dataset.indexes, dataset.colorinterp, strict=True) if kind == ColorInterp.alpha]
    if not candidates or dataset.count == 1:
        return None
    band = candidates[-1]
    height, width = min(dataset.height, _SAMPLE), min(dataset.width, _SAMPLE)
    values = np.unique(dataset.read(band, out_shape=(height, width)))
    opaque = np.iinfo(dataset.dtypes[band - 1]).max if np.issubdtype(dataset.dtypes[band - 1], np.integer) else 1
    return band if set(values.tolist()) <= {0, opaque, 255, 1} else None


def _refuse_odd_names(path: str) -> None:
    if "\0" in path or path != path.encode(errors="replace").decode():
        raise SceneError(f"{path!r} cannot be the name of a file: it holds a zero byte or half a letter")
    if is_stream(Path(path)):
        raise SceneError(f"{path} is a pipe or a device, which cannot be read at any place: write it to a file first")


@contextmanager
def _one_error(what: str) -> Iterator[None]:
    """Turn whatever GDAL and rasterio say of a damaged file into one line; a message in another encoding is one too."""
    try:
        yield
    except (RasterioError, CRSError, CPLE_BaseError, OSError, UnicodeDecodeError) as error:
        raise SceneError(f"{what}: {_cause(error)}") from error


def _cause(error: BaseException) -> str:
    error = error.__cause__ or error
    said = error.object.decode(errors="replace") if isinstance(error, UnicodeDecodeError) else str(error)
    text = said.strip().splitlines()
    return text[0] if text else type(error).__name__
