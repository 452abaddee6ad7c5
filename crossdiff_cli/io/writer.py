"""The result on disk: a tiled GeoTIFF written beside its target and moved there only when complete."""

import errno
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from glob import escape
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.rpc import RPC
from rasterio.shutil import copy as copy_raster
from rasterio.transform import Affine
from rasterio.windows import Window as RasterioWindow

from crossdiff_cli.errors import OutputError
from crossdiff_cli.geometry.window import Window, tiles
from crossdiff_cli.io.alpha import unmark_alpha
from crossdiff_cli.io.target import check_target
from crossdiff_cli.sensors.table import Band
from crossdiff_cli.system.atomic import (
    follow_links,
    hidden_beside,
    move_into_place,
    remove_abandoned,
    remove_leftovers,
)
from crossdiff_cli.system.signals import undone_by

_log = logging.getLogger(__name__)

BLOCK = 256
"""Block size of the file; cores of tiles are multiples of it, so that every block is compressed once."""

_COLOURS = {
    "B": "blue", "G": "green", "R": "red", "Y": "yellow", "CA": "coastal", "DB": "coastal", "RE": "rededge",
    "RE1": "rededge", "RE2": "rededge", "RE3": "rededge", "NIR": "nir", "N1": "nir", "N2": "nir", "CIRRUS": "swir",
    "SWIR1": "swir", "SWIR2": "swir", "TIR": "tir", "TIR1": "tir", "TIR2": "tir",
}  # fmt: skip
_SIDECARS = (".aux.xml", ".ovr", ".msk")
"""Sidecar files of GDAL and QGIS; those of an earlier file would take precedence over what the new file says."""
_OVERVIEW_SIZE = 256
_YES = ("TRUE", "YES", "ON", "1")
_PREDICTED = ("DEFLATE", "LZW", "ZSTD")
"""Compressions that work on differences of neighbouring pixels when they are told to."""


@dataclass(frozen=True, slots=True)
class OutputProfile:
    """What the file is, besides its pixels."""

    shape: tuple[int, int]
    dtype: str
    crs: CRS | None
    transform: Affine | None
    """None for a scene without georeference."""
    nodata: float | None
    bands: Sequence[Band]
    scales: Sequence[float]
    offsets: Sequence[float]
    units: Sequence[str | None] = ()
    """Unit of each band; empty where none is known."""
    band_tags: Sequence[Mapping[str, str]] = ()
    """Tags of each band; empty where there are none."""
    rpcs: RPC | None = None
    control_points: tuple[Sequence[GroundControlPoint], CRS | None] = ((), None)
    """Ground control points and their CRS, for a scene without geotransform."""
    tags: Mapping[str, str] = field(default_factory=dict)
    imagery: Mapping[str, str] = field(default_factory=dict)
    driver: str = "GTiff"
    """GTiff or COG."""
    creation: Mapping[str, str] = field(default_factory=dict)
    """Creation options of the driver."""


class Writer:
    """Writes windows of DN to a hidden file beside `path`; leaving the context without error moves it there."""

    def __init__(
        self, path: Path, profile: OutputProfile, *, overwrite: bool = False, threads: str = "ALL_CPUS"
    ) -> None:
        """Check that `path` can be written; `threads` encode.

        Raises:
            OutputError: it exists and `overwrite` is not set, or its folder is missing or not writable.
        """
        check_target(path, overwrite=overwrite)
        self.path = path
        self.profile = profile
        self._threads = threads
        self._temporary = hidden_beside(path, ".tif")
        self._begun = ExitStack()
        self._dataset: Any = None
        creation = {name.upper(): value.upper() for name, value in profile.creation.items()}
        self._sparse = creation.get("SPARSE_OK") in _YES
        self._filled: list[Window] = []
        """Blocks of a sparse file in which something was written."""

    def __enter__(self) -> Self:
        remove_abandoned(self.path)
        self._look_for_room()
        self._begun.enter_context(undone_by(self._remove))
        profile = self.profile
        creation = {"num_threads": self._threads} | (dict(profile.creation) if profile.driver == "GTiff" else {})
        try:
            if profile.creation and max(profile.shape) > BLOCK:
                self._rehearse()
            self._dataset = rasterio.open(
                self._temporary, "w", **(_options(profile) | {k.lower(): v for k, v in creation.items()})
            )
            self._describe()
        except BaseException as error:
            self._discard()
            if isinstance(error, RasterioError | CPLE_BaseError | OSError | ValueError | TypeError):
                raise self._failed(error) from error
            raise
        return self

    def write(self, data: NDArray[Any], window: Window) -> None:
        """Write (bands, rows, cols) at a window of the output grid.

        Raises:
            OutputError: the disk is full or the file cannot be written.
        """
        if self._sparse:
            self._filled += _filled_blocks(data, window, self.profile.nodata or 0.0)
        try:
            self._dataset.write(data, window=RasterioWindow(window.col, window.row, window.width, window.height))
        except (RasterioError, CPLE_BaseError, OSError) as error:
            raise self._failed(error) from error

    def tag(self, **tags: str) -> None:
        """Add tags known only once the pixels are written."""
        self._dataset.update_tags(**tags)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._finish()
        except (RasterioError, CPLE_BaseError, OSError) as failure:
            raise self._failed(failure) from failure
        finally:
            self._discard()

    def _look_for_room(self) -> None:
        profile = self.profile
        pixels = profile.shape[0] * profile.shape[1] * len(profile.bands) * 4 / 3  # with overviews
        needed = pixels * np.dtype(profile.dtype).itemsize * (2 if profile.driver == "COG" else 1)
        free = shutil.disk_usage(self._temporary.parent).free
        if free < needed:
            _log.warning(
                "the disk may not suffice: %.1f GB are free beside %s, of up to %.1f GB that writing it takes "
                "(less where the pixels compress well)", free / 1e9, self.path, needed / 1e9,
            )  # fmt: skip

    def _rehearse(self) -> None:
        """Write one block as asked for: what the format or the data type does not allow fails now, not after hours.

        One thread does it, as GDAL keeps the reason to itself when another one fails.
        """
        folder = hidden_beside(self.path, ".trial")
        folder.mkdir()
        block = replace(self.profile, shape=(BLOCK, BLOCK))
        try:
            with Writer(folder / "block.tif", block, threads="1") as trial:
                trial.write(np.zeros((len(block.bands), BLOCK, BLOCK), block.dtype), Window(0, 0, BLOCK, BLOCK))
        except OutputError as error:
            asked = ", ".join(f"{name}={value}" for name, value in block.creation.items())
            raise OutputError(
                f"it cannot be written with {asked}", path=self.path, found=_reason(error.__cause__)
            ) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _describe(self) -> None:
        profile, dataset = self.profile, self._dataset
        dataset.colorinterp = [_colour(band) for band in profile.bands]
        dataset.scales, dataset.offsets = tuple(profile.scales), tuple(profile.offsets)
        if any(profile.units):
            dataset.units = tuple(unit or "" for unit in profile.units)
        for index, tags in enumerate(profile.band_tags, start=1):
            dataset.update_tags(index, **tags)
        for index, band in enumerate(profile.bands, start=1):
            dataset.set_band_description(index, band.name)
            wavelength = {"CENTRAL_WAVELENGTH_UM": f"{band.center_nm / 1000:g}", "FWHM_UM": f"{band.width_nm / 1000:g}"}
            dataset.update_tags(index, ns="IMAGERY", **wavelength)
            # The same as ENVI and the tools around it call it.
            nanometres = {"wavelength": f"{band.center_nm:g}", "fwhm": f"{band.width_nm:g}"}
            dataset.update_tags(index, **nanometres, wavelength_units="Nanometers")
        dataset.update_tags(**profile.tags)
        if profile.imagery:
            dataset.update_tags(ns="IMAGERY", **profile.imagery)
        if profile.rpcs is not None:
            dataset.rpcs = profile.rpcs
        if profile.control_points[0]:
            dataset.gcps = profile.control_points

    def _finish(self) -> None:
        self._dataset.close()
        factors: list[int] = []
        size = max(self.profile.shape)
        while size > _OVERVIEW_SIZE:
            factors.append(2 ** (len(factors) + 1))
            size = -(-size // 2)
        with (
            rasterio.Env(COMPRESS_OVERVIEW="DEFLATE", ZLEVEL_OVERVIEW="1", GDAL_NUM_THREADS="ALL_CPUS"),
            rasterio.open(self._temporary, "r+") as file,
        ):
            if factors:
                file.build_overviews(factors, Resampling.average)
        self._verify(self._temporary)
        done = self._temporary
        if self.profile.driver == "COG":
            done = self._temporary.with_suffix(".cog.tif")
            options = {
                "compress": "DEFLATE",
                "bigtiff": "IF_SAFER",
                **{k.lower(): v for k, v in self.profile.creation.items()},
            }
            if options["compress"].upper() in _PREDICTED:
                options.setdefault("predictor", "YES")
            copy = partial(copy_raster, str(self._temporary), str(done), driver="COG", num_threads=self._threads)
            # A thread of its own leaves this one to signals, which could only wait for GDAL.
            with ThreadPoolExecutor(1, "copy") as aside:
                aside.submit(copy, **options).result()
            unmark_alpha(done)
            self._verify(done)
        move_raster(done, self.path)

    def _verify(self, path: Path) -> None:
        """Check that every block lies inside the file: on a full disk GDAL may complain in its log alone.

        A sparse file leaves out blocks in which nothing was written but nodata.
        """
        size = path.stat().st_size
        with rasterio.open(path) as file:
            height, width = file.block_shapes[0]
            for row in range(-(-file.height // height)):
                for col in range(-(-file.width // width)):
                    start = file.get_tag_item(f"BLOCK_OFFSET_{col}_{row}", "TIFF", bidx=1)
                    length = file.get_tag_item(f"BLOCK_SIZE_{col}_{row}", "TIFF", bidx=1)
                    area = Window(row * height, col * width, height, width)
                    if start is None and self._sparse and not any(area.intersection(w) for w in self._filled):
                        continue
                    if start is None or int(start) + int(length) > size:
                        raise OSError(errno.ENOSPC, f"block {row}, {col} did not reach the disk")

    def _discard(self) -> None:
        try:
            if self._dataset is not None and not self._dataset.closed:
                with suppress(RasterioError, CPLE_BaseError, OSError):
                    self._dataset.close()
        finally:
            self._remove()
            self._begun.close()

    def _remove(self) -> None:
        remove_leftovers(self.path, os.getpid())

    def _failed(self, error: BaseException) -> OutputError:
        free = shutil.disk_usage(self._temporary.parent).free / 2**20
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        hint = "the disk is full" if full or free < 1 else f"{free:.0f} MiB free"
        return OutputError(f"cannot write {self.path} ({hint}): {_reason(error)}")


def move_raster(done: Path, path: Path) -> None:
    """Move a raster to `path`, with what GDAL was asked to write beside it (TFW=YES) and nothing older.

    Where `path` is a symbolic link, all of it goes to where that points.

    Raises:
        OSError: it cannot be moved there.
    """
    target = follow_links(path)
    stale = {target.with_name(target.name + suffix) for suffix in _SIDECARS}
    for sidecar in done.parent.glob(f"{escape(done.stem)}.*"):
        rest = sidecar.name.removeprefix(done.stem)
        if rest != done.suffix:
            named = target.name if rest.startswith(done.suffix) else target.stem
            place = target.with_name(named + rest.removeprefix(done.suffix))
            move_into_place(sidecar, place)
            stale.discard(place)
    move_into_place(done, target)
    for sidecar in stale:
        with suppress(OSError):  # no such file, mostly
            sidecar.unlink()


def _filled_blocks(data: NDArray[Any], window: Window, empty: float) -> Iterator[Window]:
    """Yield the blocks of `data` (bands, rows, cols), which is written at `window`, that hold more than `empty`."""
    blank = np.isnan(data) if np.isnan(empty) else data == empty
    for tile in tiles(window, BLOCK, 0, 1):
        if not blank[:, *tile.core.within(window)].all():
            yield tile.core


def _reason(error: BaseException | None) -> str:
    """In the words of GDAL, without the name of the hidden file."""
    cause = getattr(error, "__cause__", None) or error
    lines = str(cause).strip().splitlines()
    return lines[0].rpartition(".tif: ")[2] if lines else type(cause).__name__


def _options(profile: OutputProfile) -> dict[str, Any]:
    """Creation options of the GTiff; `photometric` keeps a fourth band from being marked as alpha."""
    predictor = 2 if np.dtype(profile.dtype).kind in "ui" else 3
    if any(name.lower() == "nbits" for name in profile.creation):
        predictor = 1  # GDAL differences whole bytes only
    georeference = {} if profile.transform is None else {"crs": profile.crs, "transform": profile.transform}
    return {
        "driver": "GTiff",
        "height": profile.shape[0],
        "width": profile.shape[1],
        "count": len(profile.bands),
        "dtype": profile.dtype,
        "nodata": profile.nodata,
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "interleave": "pixel",
        "compress": "deflate",
        "zlevel": 1,
        "predictor": predictor,
        "bigtiff": "IF_SAFER",
        "photometric": "MINISBLACK",
        **georeference,
    }


def _colour(band: Band) -> ColorInterp:
    return ColorInterp[_COLOURS.get(band.name, "undefined")]
