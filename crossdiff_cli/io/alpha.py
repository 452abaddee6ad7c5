"""Alpha bands: which band is one, and the mark of one taken away, which GDAL gives the fourth of four 8-bit bands."""

import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import rasterio
from rasterio.enums import ColorInterp
from rasterio.io import MemoryFile
from rasterio.shutil import copy as copy_raster

_SAMPLE = 512
"""Side of the reduced image by which an alpha band is told from data."""
_OPAQUE_SHARE = 0.9
"""Share of an alpha band that is opaque or transparent, at least; the rest is its feathered edge."""
_EXTRA_SAMPLES = 338
_SHORT = 3
_UNSPECIFIED = 0


def alpha_band(dataset: Any) -> int | None:
    """Return the alpha band, if it is one: GDAL takes band 4 of any uint8 image for alpha, near-infrared included.

    Alpha is opaque or transparent but for a feathered edge.
    """
    candidates = [i for i, kind in zip(dataset.indexes, dataset.colorinterp, strict=True) if kind == ColorInterp.alpha]
    if not candidates or dataset.count == 1:
        return None
    band = candidates[-1]
    height, width = min(dataset.height, _SAMPLE), min(dataset.width, _SAMPLE)
    values = dataset.read(band, out_shape=(height, width))
    opaque = np.iinfo(dataset.dtypes[band - 1]).max if np.issubdtype(dataset.dtypes[band - 1], np.integer) else 1
    share = np.isin(values, [0, opaque, 255, 1]).mean()
    return band if share == 1 or (share >= _OPAQUE_SHARE and (values >= 255).any()) else None


def without_alpha(dataset: Any) -> MemoryFile:
    """Return a virtual copy of a dataset no band of which is marked as alpha."""
    plain = MemoryFile(ext="vrt")
    copy_raster(dataset, plain.name, driver="VRT")
    with rasterio.open(plain.name, "r+") as file:
        file.colorinterp = [ColorInterp.gray if kind == ColorInterp.alpha else kind for kind in file.colorinterp]
    return plain


def unmark_alpha(path: Path) -> None:
    """Say in every directory of a TIFF that its further bands are data; nothing in the file moves.

    Source: TIFF 6.0, section 18 (ExtraSamples), and the BigTIFF layout of its offsets.
    """
    with path.open("r+b") as file:
        order = "<" if file.read(2) == b"II" else ">"
        (version,) = _read(file, f"{order}H", 2)
        big = version == 43
        number, entry, offset = ("Q", "HHQ", "Q") if big else ("H", "HHI", "I")
        size = struct.calcsize(f"{order}{entry}{offset}")
        (place,) = _read(file, order + offset, 8 if big else 4)
        while place:
            (count,) = _read(file, order + number, place)
            first = place + struct.calcsize(order + number)
            for at in range(first, first + count * size, size):
                tag, kind, values = _read(file, order + entry, at)
                if tag == _EXTRA_SAMPLES and kind == _SHORT:
                    field = at + struct.calcsize(order + entry)
                    inline = 2 * values <= struct.calcsize(order + offset)
                    file.seek(field if inline else _read(file, order + offset, field)[0])
                    file.write(struct.pack(f"{order}{values}H", *[_UNSPECIFIED] * values))
            (place,) = _read(file, order + offset, first + count * size)


def _read(file: BinaryIO, form: str, at: int) -> tuple[int, ...]:
    file.seek(at)
    return struct.unpack(form, file.read(struct.calcsize(form)))
