"""Deliveries in .zip, .tar and .tar.gz archives: metadata in a folder of their own, images read where they are.

The layout of a delivery is known from the names of its files and from its metadata. `opened` makes a folder with the
names of all files of an archive, of which those that are no rasters hold what they hold in the archive. Products found
there are then given the paths by which GDAL reads the archive (`/vsizip/...`, `/vsitar/...`); no image is unpacked.
"""

import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO

from crossdiff_cli.errors import SceneError
from crossdiff_cli.io.deliveries.product import RASTERS, Product
from crossdiff_cli.system.paths import is_file, is_folder

_READABLE = {".zip": "/vsizip/", ".tar": "/vsitar/", ".tar.gz": "/vsitar/", ".tgz": "/vsitar/"}
_ARCHIVE = re.compile(r"\.(?:zip|tar|tgz|tar\.\w{2,4}|7z|rar)$|^/vsi(?:zip|tar|7z|rar)/|^(?:zip|tar)://", re.IGNORECASE)
_PATH = re.compile(
    r"(?:/vsi(?:zip|tar)/|(?:zip|tar)://)?(?P<archive>.+?(?P<suffix>\.zip|\.tar\.gz|\.tgz|\.tar))(?:!?/(?P<inner>.*))?",
    re.IGNORECASE | re.DOTALL,
)
"""An archive, perhaps with the prefix of GDAL or rasterio, and perhaps a folder in it."""
_MAX_FILES = 100_000
_MAX_DOCUMENT_BYTES = 64_000_000
"""Size of a file that is no raster above which it is no metadata."""

Opener = Callable[[], IO[bytes] | None]


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive whose names and metadata stand in a folder."""

    folder: Path
    searched: Path
    """The part of it that was named."""
    prefix: str
    """By which GDAL reads a file of the archive."""

    def real(self, path: Path) -> Path:
        """Return where GDAL finds a file of the folder."""
        return Path(self.prefix) / path.relative_to(self.folder)

    def product(self, product: Product) -> Product:
        """Return a product with the paths by which GDAL finds it."""
        return replace(
            product,
            document=self.real(product.document),
            rasters=tuple(self.real(path) for path in product.rasters),
            files=frozenset(self.real(path) for path in product.files),
            tiles=tuple(replace(tile, path=self.real(tile.path)) for tile in product.tiles),
            stack=tuple(self.product(image) for image in product.stack),
        )


def in_archive(name: str) -> bool:
    """Return whether a name is that of an archive, or of what lies in one and is no image by its name."""
    if PurePosixPath(name.partition(",band=")[0]).suffix.lower() in RASTERS:
        return False
    if (found := _PATH.fullmatch(name)) and found["inner"] and is_file(Path(found["archive"])):
        return True
    return _ARCHIVE.search(name) is not None and not is_folder(Path(name))


@contextmanager
def opened(name: str) -> Iterator[Archive]:
    """Put the names and the metadata of an archive into a folder, as long as the context lasts.

    Raises:
        SceneError: an archive that cannot be read in place, is damaged, or holds far too many files.
    """
    found = _PATH.fullmatch(name)
    if found is None or not is_file(Path(found["archive"])):
        raise SceneError(
            "deliveries are looked for in .zip, .tar and .tar.gz files alone",
            path=name,
            cure="unpack it and name the folder, or name the PAN and the MS image in it "
            "(/vsizip/ARCHIVE.zip/FOLDER/IMAGE.TIF)",
        )
    path, readable = Path(found["archive"]), _READABLE[found["suffix"].lower()]
    with TemporaryDirectory(prefix="crossdiff-") as temporary:
        folder = Path(temporary).resolve()
        try:
            for count, (inner, size, read) in enumerate(_members(path)):
                if count >= _MAX_FILES:
                    raise SceneError(f"the archive holds more than {_MAX_FILES} files", path=name)
                _place(folder, inner, size, read)
        except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, RuntimeError) as error:
            raise SceneError(
                f"the archive cannot be read ({error})", path=name,
                cure="fetch it anew, or unpack it and name the folder",
            ) from error  # fmt: skip
        searched = folder / (found["inner"] or "")
        if not searched.resolve().is_relative_to(folder) or not searched.is_dir():
            raise SceneError("the archive holds no such folder", path=name, cure="name the archive itself")
        # In braces: `Path` makes one slash of the two that an absolute path needs otherwise.
        yield Archive(folder, searched, f"{readable}{{{path.resolve()}}}")


def _members(path: Path) -> Iterator[tuple[str, int, Opener]]:
    """Name, size and contents of every file of an archive."""
    if path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path) as file:
            for info in file.infolist():
                if not info.is_dir():
                    yield info.filename, info.file_size, partial(file.open, info)
        return
    with tarfile.open(path, "r:gz" if path.suffix.lower() in (".gz", ".tgz") else "r:") as bundle:
        for member in bundle:
            if member.isfile():
                yield member.name, member.size, partial(bundle.extractfile, member)


def _place(folder: Path, inner: str, size: int, read: Opener) -> None:
    """Write a file of an archive into the folder: a raster as an empty file; not one that would lie outside of it."""
    target = (folder / inner).resolve()
    if not target.is_relative_to(folder) or target == folder:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix.lower() in RASTERS or size > _MAX_DOCUMENT_BYTES:
        target.touch()
        return
    source = read()
    if source is not None:
        with source, target.open("wb") as file:
            shutil.copyfileobj(source, file)
