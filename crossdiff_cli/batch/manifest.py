"""The scenes of a batch: a CSV table, JSON lines, a JSON list, or the pairs of a folder."""

import csv
import io
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crossdiff_cli.errors import ManifestError
from crossdiff_cli.io.pairing import find_pairs, scene_name
from crossdiff_cli.options import SharpenOptions
from crossdiff_cli.system.paths import is_folder

_log = logging.getLogger(__name__)

_USED = ("name", "pan", "ms", "delivery", "sensor", "bands", "output")
_OF_TRAINING = ("split", "reference")
"""Keys of a training manifest that say nothing to a batch."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One scene of a batch; its paths are absolute, so that any process finds them."""

    name: str
    pan: str
    """Or the delivery that holds PAN and MS."""
    ms: tuple[str, ...]
    output: Path
    sensor: str | None = None
    """None for what the command says."""
    bands: tuple[str, ...] | None = None
    report: Path | None = None
    """Where the HTML page about the result goes; None for no page."""

    def applied_to(self, options: SharpenOptions) -> SharpenOptions:
        """Return the options with the sensor and bands of this scene, where it names them."""
        pair = options.pair
        return replace(options, pair=replace(pair, sensor=self.sensor or pair.sensor, bands=self.bands or pair.bands))

    def as_dict(self, folder: Path) -> dict[str, Any]:
        """A line of a manifest whose results go to `folder`."""
        inputs = {"pan": self.pan, "ms": self.ms} if self.ms else {"delivery": self.pan}
        facts = inputs | {name: getattr(self, name) for name in ("name", "sensor", "bands")}
        facts["output"] = str(self.output.relative_to(folder.absolute()))
        return {name: value for name, value in facts.items() if value is not None}


def read_manifest(path: Path, folder: Path) -> list[Scene]:
    """Read a list of scenes.

    Args:
        path: a CSV table with a header, JSON lines, or a JSON list, whatever its name. Each scene has `pan` and `ms`
            (several files separated by `;`, in JSON also a list; or both in `files`) or `delivery` (a folder or
            metadata file that holds both), and perhaps `name`, `output` (relative to `folder`, default `NAME.tif`),
            `sensor` and `bands`. Paths are relative to the manifest.
        folder: where the results go.

    Raises:
        ManifestError: the file is missing or malformed.
    """
    if is_folder(path):
        raise ManifestError(
            "it is a folder, not a manifest", path=path, cure=f"--pair-dir {path} looks for pairs in it"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError("the manifest cannot be read", path=path, found=str(error)) from error
    start = text.lstrip()[:1]
    read = {"[": _from_list, "{": _from_lines}.get(start, _from_csv)
    scenes, unused = [], set()
    for place, item in read(text, path):
        scenes.append(_scene(item, f"{path}, {place}", path.absolute().parent, folder.absolute()))
        unused |= item.keys() - {*_USED, *_OF_TRAINING, "files"}
    if not scenes:
        raise ManifestError("it lists no scene", path=path)
    if unused:
        _log.info("%s: not used here: %s", path, ", ".join(sorted(unused)))
    return scenes


def scenes_of_pairs(pairs: Path, folder: Path) -> list[Scene]:
    """The pairs in a folder and below it, by their names; what is no pair is warned of.

    Raises:
        ManifestError: there is none.
    """
    if not is_folder(pairs):
        raise ManifestError("it is not a folder", path=pairs)
    found, remarks = find_pairs(pairs.absolute())
    for remark in remarks:
        _log.warning("%s", remark)
    if not found:
        raise ManifestError(
            "it holds no PAN and MS whose names differ in one word (a_pan.tif, a_ms.tif)",
            path=pairs,
            cure="write a manifest",
        )
    names = [scene_name(pair.pan) for pair in found]
    return [
        Scene(name, str(pair.pan), (str(pair.ms),), folder.absolute() / f"{name}.tif")
        for name, pair in zip(names, found, strict=True)
    ]


def check_outputs(scenes: Sequence[Scene]) -> None:
    """Refuse results that would overwrite each other or an image that is read.

    Raises:
        ManifestError: the first two scenes, or the first image, of which that is true.
    """
    first: dict[str, int] = {}
    for number, scene in enumerate(scenes, start=1):
        place = os.path.realpath(scene.output)
        if place in first:
            other = scenes[first[place] - 1]
            raise ManifestError(
                f"scenes {first[place]} ({other.pan}) and {number} ({scene.pan}) would both be written to it",
                path=scene.output,
                cure="give them a `name` or an `output` in a manifest (--dry-run prints one)",
            )
        first[place] = number
    for scene in scenes:
        for source in (scene.pan, *scene.ms):
            if os.path.realpath(source) in first:
                raise ManifestError(
                    f"scene {scene.name} reads it, and a result would overwrite it",
                    path=source,
                    cure="choose another -o",
                )


def _from_csv(text: str, path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = [name.strip().lower() for name in next(rows, [])]
        if not {"pan", "ms"} <= set(header) and "delivery" not in header:
            raise ManifestError(
                "the first line must name the columns, pan and ms among them, separated by commas",
                path=path,
                found=repr(",".join(header)),
            )
        if len(named := [name for name in header if name]) != len(set(named)):
            raise ManifestError("two columns have the same name", path=path, found=",".join(header))
        for row in rows:
            if any(cell.strip() for cell in row):
                if len(row) > len(header):
                    raise ManifestError(
                        "the row does not have as many cells as there are columns",
                        path=f"{path}, line {rows.line_num}",
                        found=len(row),
                        expected=len(header),
                        cure="separate several MS files or bands by semicolons",
                    )
                cells = zip(header, row, strict=False)
                yield f"line {rows.line_num}", {name: cell.strip() for name, cell in cells if cell.strip()}
    except csv.Error as error:
        raise ManifestError("it is not CSV", path=f"{path}, line {rows.line_num}", found=str(error)) from error


def _from_list(text: str, path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        items = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ManifestError("it begins like a JSON list but is none", path=path, found=str(error)) from error
    for number, item in enumerate(items, start=1):
        yield f"scene {number}", _mapping(item, f"{path}, scene {number}")


def _from_lines(text: str, path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                item = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ManifestError(
                    "it is not a JSON object", path=f"{path}, line {number}", found=str(error)
                ) from error
            yield f"line {number}", _mapping(item, f"{path}, line {number}")


def _mapping(item: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(item, dict):
        raise ManifestError("it is not a JSON object with pan and ms", path=place)
    return item


def _scene(item: Mapping[str, Any], place: str, sources: Path, folder: Path) -> Scene:
    files = item.get("files") or {}
    if not isinstance(files, dict):
        raise ManifestError("`files` is not a JSON object with pan and ms", path=place)
    pan, ms, delivery = (_texts({**item, **files}, key, place, ";") for key in ("pan", "ms", "delivery"))
    if delivery:
        if len(delivery) != 1 or pan or ms:
            raise ManifestError("a delivery stands for both pan and ms", path=place, cure="leave pan and ms out")
        pan = delivery
    elif len(pan) != 1 or not ms:
        raise ManifestError(
            "it needs one pan and at least one ms file, or a delivery", path=place, found=f"{len(pan)} and {len(ms)}"
        )
    name = _text(item, "name", place) or scene_name(Path(pan[0].split(",band=")[0]))
    if not re.fullmatch(r"[^/\0\n\r]+", name) or name in (".", ".."):
        raise ManifestError("the name cannot be a file name", path=place, found=repr(name))
    relative = Path(_text(item, "output", place) or f"{name}.tif")
    if relative.is_absolute() or ".." in relative.parts or "\0" in str(relative):
        raise ManifestError("the output does not lie below the result folder", path=place, found=repr(str(relative)))
    bands = _texts(item, "bands", place, "[;, ]")
    located = [file if "://" in file or Path(file).is_absolute() else str(sources / file) for file in (*pan, *ms)]
    return Scene(
        name, located[0], tuple(located[1:]), folder / relative, _text(item, "sensor", place), tuple(bands) or None
    )


def _text(item: Mapping[str, Any], key: str, place: str) -> str | None:
    value = item.get(key)
    if value is not None and not isinstance(value, str):
        raise ManifestError(f"{key} is not a text", path=place, found=repr(value))
    return value or None


def _texts(item: Mapping[str, Any], key: str, place: str, separator: str) -> list[str]:
    value = item.get(key)
    parts = re.split(separator, value) if isinstance(value, str) else [] if value is None else value
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise ManifestError(f"{key} is neither a text nor a list of texts", path=place, found=repr(value))
    return [part.strip() for part in parts if part.strip()]
