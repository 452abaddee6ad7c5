"""The mark of an alpha band in a TIFF, taken away: GDAL's COG driver sets it on the fourth band of any uint8 image."""

import struct
from pathlib import Path
from typing import BinaryIO

_EXTRA_SAMPLES = 338
_SHORT = 3
_UNSPECIFIED = 0


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
