"""What may stand where a result is to be written, and what its name may be."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import rasterio
from rasterio.drivers import raster_driver_extensions

from crossdiff_cli.errors import OutputError, OutputExistsError
from crossdiff_cli.io.raster import Raster
from crossdiff_cli.system.atomic import follow_links
from crossdiff_cli.system.paths import exists, is_folder, is_stream

_LONGEST_NAME = 210
"""Bytes of a file name; file systems take 255, and the hidden file beside it has a longer one."""
_REGRIDDING = {
    "TILING_SCHEME", "TARGET_SRS", "RES", "EXTENT", "ZOOM_LEVEL", "ZOOM_LEVEL_STRATEGY", "ALIGNED_LEVELS",
    "ADD_ALPHA",
}  # fmt: skip
"""Creation options of GDAL's COG driver that warp the image or add a band."""
_HARMLESS = {("TILING_SCHEME", "CUSTOM"), ("ADD_ALPHA", "NO")}
_ELSEWHERE = re.compile(r"^(/vsi|[a-z0-9]{2,}:/)", re.IGNORECASE)


def check_target(path: Path, *, overwrite: bool, kinds: Sequence[str] = ()) -> None:
    """Fail early when a result could not be stored.

    Args:
        path: of the result.
        overwrite: whether a file that is there may be replaced.
        kinds: endings of files that may be; none are any.

    Raises:
        OutputError: `path` exists without `overwrite` or is of another kind, is a folder, pipe or device, or its
            folder is missing or not writable.
    """
    if is_folder(path):
        raise OutputError("the output is a folder", path=path, cure="name a file")
    if is_stream(path):
        raise OutputError("the output is a pipe or a device", path=path, cure="name a file")
    if exists(path) and not overwrite:
        raise OutputExistsError(path=path)
    if kinds and exists(path) and path.suffix.lower() not in kinds:
        expected = " or ".join(kinds)
        raise OutputError("a file of another kind is there", path=path, expected=expected, cure="name another")
    target = follow_links(path)
    if not is_folder(target.parent):
        raise OutputError("the folder does not exist", path=target.parent, cure="make it first")
    length = len(os.fsencode(target.name))
    if length > _LONGEST_NAME:
        raise OutputError(
            "the name of the output is too long", path=path, found=f"{length} bytes",
            expected=f"at most {_LONGEST_NAME}", cure="shorten it",
        )  # fmt: skip
    if not os.access(target.parent, os.W_OK):
        raise OutputError("the folder is not writable", path=target.parent)


def check_raster_target(path: Path, *, overwrite: bool) -> None:
    """As `check_target`, for a GeoTIFF or COG.

    Raises:
        OutputError: also where the name promises another format, or is not that of a local file.
    """
    if str(path) == "-":
        raise OutputError("a GeoTIFF cannot be written to the standard output", cure="name a file")
    if _ELSEWHERE.match(str(path)):
        raise OutputError("the output is no local file", path=path, cure="write to one and copy it there")
    driver = raster_driver_extensions().get(path.suffix.lower().removeprefix("."), "GTiff")
    if driver not in ("GTiff", "COG"):
        raise OutputError(
            "the output is a GeoTIFF and has the name of another format", path=path, found=driver,
            cure=f"name it {path.stem}.tif",
        )  # fmt: skip
    check_target(path, overwrite=overwrite)


def check_creation(driver: str, creation: Mapping[str, str]) -> None:
    """See that no creation option of a COG changes its grid, which mask, band names and STAC item would not follow.

    Raises:
        OutputError: one does.
    """
    for name, value in creation.items():
        if driver == "COG" and name.upper() in _REGRIDDING and (name.upper(), value.upper()) not in _HARMLESS:
            raise OutputError(
                "a creation option would bring the result to another grid", found=f"{name}={value}",
                cure="leave it out and warp the result (gdalwarp, or gdal_translate -of COG with that option)",
            )  # fmt: skip


def refuse_target(target: Path, sources: Iterable[Raster]) -> None:
    """See that a result does not take the place of what it is made from.

    Raises:
        OutputError: `target` is a file that is read for one of the `sources`, by whatever name.
    """
    if not exists(target):
        return
    for path in {source.path for source in sources}:
        with rasterio.open(path) as file:
            names = {path, *file.files}  # those that a virtual file stands for, and sidecars
        for name in names:
            with suppress(OSError, ValueError):  # a URI, or text that stands for a file
                if target.samefile(name):
                    raise OutputError("the output is also an input", path=target, cure="choose another output path")
