"""One image of a delivery, as its metadata describes it; no raster is opened here."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path, PurePosixPath

from crossdiff_cli.errors import SceneError, SensorError
from crossdiff_cli.sensors.table import find_sensor

RASTERS = frozenset({".tif", ".tiff", ".ntf", ".nitf", ".jp2", ".img", ".vrt"})


class Kind(Enum):
    """What an image is to pansharpening."""

    PAN = "PAN"
    MS = "MS"
    SHARPENED = "pansharpened"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Tile:
    """A file of a tiled image and the place of its first pixel (row, column); None where only its georeference says."""

    path: Path
    place: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Product:
    """One image of a delivery.

    Attributes:
        vendor: whose layout it is.
        kind: PAN, MS, ...
        document: the file it goes by: its metadata file, or the image where there is none.
        rasters: what GDAL opens, one file or one per band.
        files: all files that belong to it.
        tiles: where several files make up the image.
        facts: the metadata.
        sensor: key of the sensor; None leaves it to `detect`, which reads the same metadata through GDAL.
        bands: band names in the order of `rasters`; empty leaves them to `detect`.
        acquired: when.
        identity: the vendor's name of the acquisition; PAN and MS of one acquisition have the same.
        part: which part of an order; PAN and MS of one area have the same.
        nodata: value of missing pixels, if the metadata states one.
        stack: where the bands of one acquisition come in several images: these, in band order.
        fault: why it cannot be used, if so.
        remark: what a user should know when it is used.
    """

    vendor: str
    kind: Kind
    document: Path
    rasters: tuple[Path, ...]
    files: frozenset[Path]
    tiles: tuple[Tile, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    sensor: str | None = None
    bands: tuple[str, ...] = ()
    acquired: datetime | None = None
    identity: str = ""
    part: str = ""
    nodata: float | None = None
    stack: tuple["Product", ...] = ()
    fault: str = ""
    remark: str = ""

    @property
    def has_name(self) -> bool:
        """Whether the document alone stands for the whole image."""
        return len(self.rasters) == 1 or self.document not in self.rasters

    def __str__(self) -> str:
        """The document's name, with the time where it is known."""
        return self.document.name + (f" of {self.acquired:%Y-%m-%d %H:%M:%S}" if self.acquired else "")


def parse_time(date: str | None, time: str | None = None) -> datetime | None:
    """Read a date, or a date and a time, in the forms the vendors write; UTC; None for anything else."""
    text = " ".join(part for part in (date, time) if part)
    match = re.search(r"(\d{4})-(\d\d)-(\d\d)(?:[T ]+(\d\d):(\d\d)(?::(\d\d))?)?", text)
    if match is None:
        return None
    try:
        return datetime(*(int(part or 0) for part in match.groups()), tzinfo=UTC)  # type: ignore[arg-type, misc]
    except ValueError:
        return None


def sensor_key(*names: str | None) -> str | None:
    """The key of the first of these names that is a sensor's."""
    for name in names:
        try:
            if name:
                return find_sensor(name).key
        except SensorError:
            continue
    return None


def child(folder: Path, name: str) -> Path:
    """The file that a metadata document names, which must lie in the document's own folder or below it.

    Raises:
        SceneError: the name leads out of the folder, to another machine or into one of GDAL's virtual file systems.
    """
    parts = PurePosixPath(name.replace("\\", "/")).parts
    outside = not parts or ".." in parts or parts[0] == "/" or ":" in name or parts[0].lower().startswith("vsi")
    if outside or any(ord(letter) < 32 for letter in name):
        raise SceneError(
            "its metadata names a file outside the delivery, which is not opened", path=folder, found=repr(name[:100])
        )
    return folder.joinpath(*parts)


def damaged(vendor: str, document: Path, error: SceneError) -> Product:
    """What stands for an image whose metadata cannot be used."""
    return Product(vendor, Kind.OTHER, document, (), frozenset({document}), fault=str(error))


def absent(paths: Iterable[Path], total: int, document: Path) -> str:
    """The fault of a product of which files are missing; empty when none is."""
    names = [path.name for path in paths]
    if not names:
        return ""
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} of the {total} image files that {document} lists are missing: {shown}"
