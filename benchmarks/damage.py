"""Damage of files, for `fuzz.py`: bits, bytes, structure; every result follows from the random generator."""

import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_TIFF_TYPES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a value by TIFF field type."""
_SIZES = (256, 257, 277, 278, 322, 323)
"""Width, length, samples per pixel, rows per strip, tile width and length."""
_PLACES = (273, 279, 324, 325)
"""Offsets and byte counts of strips and tiles."""
_INTEGERS = (0, 1, 2, 3, 7, 8, 16, 255, 256, 4096, 65535, 65536, 2**20, 2**24, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)
_DOUBLES = (0.0, -0.0, 1.0, -1.0, 1e-300, 1e300, 1e-9, 1e9, float("nan"), float("inf"), -float("inf"), 0.37, 4.0)
_TEXTS = (
    b"", b"nan", b"inf", b"-1", b"0", b"1e999", b"99999999999999999999", b"2147483648", b"\x00", b"\xff\xfe", b"<",
    b"&a;", b"\\u0000",
    b"{", b"[", b"null", b"true", b"\"", b"../../../etc/passwd", b"/vsimem/none", b"B", b"GE01", b"A" * 5000,
    "é".encode(),
)  # fmt: skip


@dataclass(frozen=True)
class _Field:
    """One entry of a TIFF directory."""

    position: int
    """Of the entry in the file."""
    tag: int
    type: int
    count: int
    values: int
    """Position of the values."""


def flip_bits(data: bytes, rng: np.random.Generator) -> bytes:
    """Turn over one to 64 bits, half of the time near the start, where headers are."""
    out = bytearray(data)
    reach = min(len(out), 1024) if rng.random() < 0.5 else len(out)
    for _ in range(int(rng.integers(1, 65)) if rng.random() < 0.5 else 1):
        if out:
            out[int(rng.integers(reach))] ^= 1 << int(rng.integers(8))
    return bytes(out)


def truncate(data: bytes, rng: np.random.Generator) -> bytes:
    """Keep the first part."""
    return data[: int(len(data) * rng.random() ** 2)]


def overwrite(data: bytes, rng: np.random.Generator) -> bytes:
    """Put zeros, ones or noise over a stretch."""
    start = int(rng.integers(max(len(data), 1)))
    length = int(min(len(data) - start, rng.integers(1, 4096)))
    kind = rng.integers(3)
    patch = (b"\0" * length, b"\xff" * length, rng.bytes(length))[kind]
    return data[:start] + patch + data[start + length :]


def splice(data: bytes, rng: np.random.Generator) -> bytes:
    """Cut a stretch out, or repeat it, so that all behind it moves."""
    start = int(rng.integers(max(len(data), 1)))
    length = int(rng.integers(1, 300))
    piece = data[start : start + length]
    return data[:start] + (piece * int(rng.integers(2, 40)) if rng.random() < 0.5 else b"") + data[start + length :]


def edit_tiff(data: bytes, rng: np.random.Generator) -> bytes:
    """Change one to three fields of the directories: values, counts, types, tags; often sizes, offsets, byte counts."""
    out = bytearray(data)
    fields = _fields(data)
    for _ in range(int(rng.integers(1, 4))):
        if not fields:
            break
        wanted = (_SIZES, _PLACES, None)[int(rng.integers(3))]
        chosen = [f for f in fields if wanted is None or f.tag in wanted] or fields
        _edit_field(out, chosen[int(rng.integers(len(chosen)))], rng)
    return bytes(out)


def _edit_field(out: bytearray, entry: _Field, rng: np.random.Generator) -> None:
    if rng.random() < 0.25:
        what = int(rng.integers(3))
        number = _INTEGERS[int(rng.integers(len(_INTEGERS)))]
        if what == 0:
            struct.pack_into("<I", out, entry.position + 4, number & 0xFFFFFFFF)
        elif what == 1:
            struct.pack_into("<H", out, entry.position + 2, int(rng.integers(0, 20)))
        else:
            struct.pack_into("<H", out, entry.position, int(rng.choice([256, 258, 259, 262, 277, 339, 33922, 42113])))
        return
    size = _TIFF_TYPES.get(entry.type, 1)
    at = entry.values + size * int(rng.integers(min(entry.count, 64)))
    if entry.type == 12:
        value = struct.pack("<d", _DOUBLES[int(rng.integers(len(_DOUBLES)))])
    else:
        value = (_INTEGERS[int(rng.integers(len(_INTEGERS)))] & (256**size - 1)).to_bytes(size, "little")
    if at + size <= len(out):
        out[at : at + size] = value


def _fields(data: bytes) -> list[_Field]:
    """Entries of all directories of a little-endian classic TIFF."""
    found: list[_Field] = []
    if data[:4] != b"II*\0":
        return found
    seen, position = set(), struct.unpack_from("<I", data, 4)[0]
    while position and position not in seen and position + 2 <= len(data):
        seen.add(position)
        count = struct.unpack_from("<H", data, position)[0]
        end = position + 2 + 12 * count
        if end + 4 > len(data):
            break
        for entry in range(position + 2, end, 12):
            tag, kind, number = struct.unpack_from("<HHI", data, entry)
            inline = number * _TIFF_TYPES.get(kind, 1) <= 4
            values = entry + 8 if inline else struct.unpack_from("<I", data, entry + 8)[0]
            if number and values < len(data):
                found.append(_Field(entry, tag, kind, number, values))
        position = struct.unpack_from("<I", data, end)[0]
    return found


def edit_text(data: bytes, rng: np.random.Generator) -> bytes:
    """Replace one to four words of a text by odd ones."""
    for _ in range(int(rng.integers(1, 5))):
        words = [i for i in range(len(data)) if data[i : i + 1].isalnum() and not data[i - 1 : i].isalnum()]
        if not words:
            break
        start = words[int(rng.integers(len(words)))]
        end = start
        while end < len(data) and data[end : end + 1].isalnum():
            end += 1
        data = data[:start] + _TEXTS[int(rng.integers(len(_TEXTS)))] + data[end:]
    return data


def nest(data: bytes, rng: np.random.Generator) -> bytes:
    """Put thousands of opening brackets or tags into a text."""
    at = int(rng.integers(max(len(data), 1)))
    opening = (b"[", b'{"a":', b"<x>", b"BEGIN_GROUP = X\n")[int(rng.integers(4))]
    return data[:at] + opening * int(10 ** rng.uniform(1, 5)) + data[at:]


def declare_entities(data: bytes, rng: np.random.Generator) -> bytes:
    """Put a DOCTYPE with entities that grow without end, or that name a file, before an XML document."""
    if rng.random() < 0.5:
        laughs = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10 if i else "ha"}">' for i in range(12))
        doctype, use = f"<!DOCTYPE x [{laughs}]>", b"&a11;"
    else:
        doctype, use = '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>', b"&e;"
    head, mark, rest = data.partition(b"?>")
    body = rest if mark else data
    first = body.find(b">") + 1
    return (head + mark if mark else b"") + doctype.encode() + body[:first] + use + body[first:]


def edit_safetensors(data: bytes, rng: np.random.Generator) -> bytes:
    """Change the header length, or words of the header while its length stays right."""
    length = int.from_bytes(data[:8], "little")
    if rng.random() < 0.3:
        lie = (length * 2, length - 1, 0, 2**63, 2**32, 10**8, len(data))[int(rng.integers(7))]
        return lie.to_bytes(8, "little") + data[8:]
    header = edit_text(data[8 : 8 + length], rng)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


Damage = Callable[[bytes, np.random.Generator], bytes]
ANY: tuple[Damage, ...] = (flip_bits, truncate, overwrite, splice)
TIFF: tuple[Damage, ...] = (*ANY, edit_tiff, edit_tiff, edit_tiff, edit_tiff)
TEXT: tuple[Damage, ...] = (*ANY, edit_text, edit_text, edit_text, nest)
XML: tuple[Damage, ...] = (*TEXT, declare_entities)
SAFETENSORS: tuple[Damage, ...] = (*ANY, edit_safetensors, edit_safetensors, edit_safetensors)
