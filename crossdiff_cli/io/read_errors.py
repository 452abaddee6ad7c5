"""What GDAL and rasterio say of a file that cannot be read, as one error."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.errors import CRSError, RasterioError

from crossdiff_cli.errors import SceneError, UnreadableError
from crossdiff_cli.system.paths import is_stream


def refuse_odd_names(path: str) -> None:
    """Refuse a name that no file can have, and a file that cannot be read at any place.

    Raises:
        SceneError: it is one.
    """
    if "\0" in path or path != path.encode(errors="replace").decode():
        raise SceneError("the name holds a zero byte or half a letter", path=repr(path))
    if is_stream(Path(path)):
        raise SceneError("a pipe or a device cannot be read at any place", path=path, cure="write it to a file first")


def no_sidecars() -> rasterio.Env:
    """Keep GDAL from writing a `.properties` beside a compressed archive that it reads."""
    return rasterio.Env(CPL_VSIL_GZIP_WRITE_PROPERTIES="NO")


@contextmanager
def one_error(what: str, path: str) -> Iterator[None]:
    """Turn whatever GDAL and rasterio say of a damaged file into one line; a message in another encoding is one too."""
    try:
        with no_sidecars():
            yield
    except (RasterioError, CRSError, CPLE_BaseError, OSError, UnicodeDecodeError) as error:
        raise UnreadableError(f"{what}: {cause_of(error)}", path=path) from error


def cause_of(error: BaseException) -> str:
    """Return the first line of what was said."""
    error = error.__cause__ or error
    said = error.object.decode(errors="replace") if isinstance(error, UnicodeDecodeError) else str(error)
    text = said.strip().splitlines()
    return text[0] if text else type(error).__name__
