"""What may stand where a result is to be written, and what its name may be."""

import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import rasterio
from rasterio.drivers import raster_driver_extensions

from crossdiff_cli.errors import OutputError
from crossdiff_cli.io.raster import Raster
from crossdiff_cli.system.paths import exists, is_folder, is_stream

_LONGEST_NAME = 220
"""Bytes of a file name; file systems take 255, and the hidden file beside it has a longer one."""
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
        raise OutputError(f"{path} is a folder; name a file")
    if is_stream(path):
        raise OutputError(f"{path} is a pipe or a device; name a file")
    if exists(path) and not overwrite:
        raise OutputError(f"{path} exists; --overwrite replaces it")
    if kinds and exists(path) and path.suffix.lower() not in kinds:
        raise OutputError(f"{path} exists and is no {' or '.join(kinds)} file: name another")
    if not is_folder(path.parent):
        raise OutputError(f"the folder {path.parent} does not exist; make it first")
    length = len(os.fsencode(path.name))
    if length > _LONGEST_NAME:
        raise OutputError(f"the name {path.name} has {length} bytes, {_LONGEST_NAME} at most: shorten it")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"the folder {path.parent} is not writable")


def check_raster_target(path: Path, *, overwrite: bool) -> None:
    """As `check_target`, for a GeoTIFF or COG.

    Raises:
        OutputError: also where the name promises another format, or is not that of a local file.
    """
    if str(path) == "-":
        raise OutputError("a GeoTIFF cannot be written to the standard output; name a file")
    if _ELSEWHERE.match(str(path)):
        raise OutputError(f"{path} is no local file; write to one and copy it there")
    driver = raster_driver_extensions().get(path.suffix.lower().removeprefix("."), "GTiff")
    if driver not in ("GTiff", "COG"):
        raise OutputError(f"{path} would be a GeoTIFF by the name of a {driver} file: name it {path.stem}.tif")
    check_target(path, overwrite=overwrite)


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
                    raise OutputError(f"{target} is read for this result: give the result another name")
