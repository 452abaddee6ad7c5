"""Metadata documents as flat facts: XML, IMD/TIL/MTL text, `Key: value` text and JSON, all of bounded size.

A document comes from anywhere: nothing in it is resolved, included or evaluated; what is beyond all measure is refused.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from xml.parsers import expat

from crossdiff_cli.errors import SceneError
from crossdiff_cli.system.paths import is_file

MAX_BYTES = 8 << 20
_DEPTH = 24
_NAME = 64
_LEAVES = 20_000


def read_facts(path: Path) -> dict[str, str]:
    """Read a metadata file into dotted keys, by its kind: XML, JSON, `Key: value` text, else `key = value;` text.

    Raises:
        SceneError: it cannot be read, is damaged, or is too large for metadata.
    """
    try:
        if not is_file(path):
            raise ValueError("it is no file")
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{path.stat().st_size >> 20} MiB are too large for metadata")
        data = path.read_bytes()
        suffix = path.suffix.lower()
        if suffix in (".xml", ".dim"):
            return flatten_xml(data)
        text = data.decode("utf-8", errors="replace")
        if suffix == ".json":
            return flatten_json(text)
        return flatten_lines(text) if path.name.lower().endswith("_metadata.txt") else flatten_groups(text)
    except (OSError, ValueError) as error:
        raise SceneError("the metadata cannot be read", path=path, found=str(error)) from error


def leaf(facts: Mapping[str, str] | Iterable[tuple[str, str]], *names: str) -> str | None:
    """Return the first value whose key ends in one of `names`, the first name first, whatever case and parents."""
    pairs = list(facts.items() if isinstance(facts, Mapping) else facts)
    for name in names:
        for key, value in pairs:
            if key.lower().rsplit(".", 1)[-1] == name.lower():
                return value
    return None


def flatten_xml(data: bytes) -> dict[str, str]:
    """Turn a metadata document into dotted keys, `Root.Child.Leaf` and `Root.Child.attribute`, in document order.

    A repeated sibling is numbered from the second on (`Leaf_2`); namespace prefixes are dropped.

    Raises:
        ValueError: it is no well-formed XML, declares a DOCTYPE (and so entities), or is beyond all measure.
    """
    flat: dict[str, str] = {}
    stack: list[tuple[str, Counter[str]]] = [("", Counter())]
    text: list[str] = []

    def refuse(*_: object) -> None:
        raise ValueError("a DOCTYPE has no place in a metadata document")

    def start(name: str, attributes: dict[str, str]) -> None:
        parent, seen = stack[-1]
        local = name.rsplit(":", 1)[-1]
        seen[local] += 1
        if len(stack) > _DEPTH or len(name) > _NAME or len(flat) > _LEAVES:
            raise ValueError("the document is too deep or too large for metadata")
        path = f"{parent}.{local}".lstrip(".") + (f"_{seen[local]}" if seen[local] > 1 else "")
        stack.append((path, Counter()))
        text.clear()
        flat.update({f"{path}.{key.rsplit(':', 1)[-1][:_NAME]}": value for key, value in attributes.items()})

    def end(_: str) -> None:
        path, _children = stack.pop()
        if value := "".join(text).strip():
            flat[path] = value
        text.clear()

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text.append
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, LookupError) as error:
        raise ValueError(f"damaged XML: {error}") from error
    return flat


_ASSIGNMENT = re.compile(r"^\s*([A-Za-z][A-Za-z0-9_]{0,63})\s*=\s*(.*?)[\s;]*$")


def flatten_groups(text: str) -> dict[str, str]:
    """Turn `BEGIN_GROUP = A`, `key = "value";`, `END_GROUP = A` (IMD, TIL, RPB; MTL writes GROUP) into `A.key: value`.

    Lists over several lines are passed over; so is any line that is no assignment.

    Raises:
        ValueError: it is beyond all measure.
    """
    flat: dict[str, str] = {}
    groups: list[str] = []
    for line in text.splitlines():
        if not (match := _ASSIGNMENT.match(line[:4096])):
            continue
        key, value = match[1], match[2].strip('"')
        match key.upper():
            case "BEGIN_GROUP" | "GROUP":
                groups.append(value[:_NAME])
            case "END_GROUP":
                del groups[-1:]
            case _:
                flat[".".join((*groups, key))] = value
        if len(groups) > _DEPTH or len(flat) > _LEAVES:
            raise ValueError("the document is too deep or too large for metadata")
    return flat


def flatten_lines(text: str) -> dict[str, str]:
    """Turn `Key: value` lines into facts; a repeated key is numbered from the second on (`Key_2`).

    Raises:
        ValueError: it is beyond all measure.
    """
    flat: dict[str, str] = {}
    seen: Counter[str] = Counter()
    for line in text.splitlines():
        key, colon, value = line[:4096].strip().partition(":")
        if colon and value.strip():
            key = key.strip()[:_NAME].replace(".", " ")
            seen[key] += 1
            flat[key + (f"_{seen[key]}" if seen[key] > 1 else "")] = value.strip()
        if len(flat) > _LEAVES:
            raise ValueError("the document is too large for metadata")
    return flat


def flatten_json(text: str) -> dict[str, str]:
    """Turn a JSON object into dotted keys; items of lists are numbered from the second on, as in XML.

    Raises:
        ValueError: it is no JSON object, or beyond all measure.
    """
    flat: dict[str, str] = {}

    def walk(node: object, path: str, depth: int) -> None:
        if depth > _DEPTH or len(flat) > _LEAVES:
            raise ValueError("the document is too deep or too large for metadata")
        if isinstance(node, dict):
            for key, value in node.items():
                walk(value, f"{path}.{key[:_NAME]}".lstrip("."), depth + 1)
        elif isinstance(node, list):
            for number, value in enumerate(node, start=1):
                walk(value, path + (f"_{number}" if number > 1 else ""), depth + 1)
        elif node is not None:
            flat[path] = str(node)

    try:
        root = json.loads(text)
    except RecursionError as error:
        raise ValueError("the document is too deep for metadata") from error
    if not isinstance(root, dict):
        raise ValueError("it is no JSON object")
    walk(root, "", 0)
    return flat
