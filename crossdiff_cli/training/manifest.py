"""The list of scenes to train on: a JSON file with paths, sensors and splits."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossdiff_cli.errors import TrainingError
from crossdiff_cli.system.paths import exists, is_file


@dataclass(frozen=True, slots=True)
class Entry:
    """One pair of a manifest, or an image without a PAN."""

    name: str
    pan: str | None
    """None for an image whose PAN is to be simulated."""
    ms: str
    reference: str | None
    sensor: str | None
    bands: tuple[str, ...] | None
    split: str


def read_manifest(path: Path, split: str, *, required: bool = True) -> list[Entry]:
    """Read the entries of one split; `required` says that there must be some.

    The file is a JSON list; each item has `files` with `ms`, mostly `pan`, and perhaps `reference` (relative to the
    manifest), and perhaps `name`, `sensor`, `bands` and `split` (default `train`).

    Raises:
        TrainingError: the file is missing or malformed, or has no scene in that split.
    """
    if exists(path) and not is_file(path):
        raise TrainingError("it is a folder, pipe or device, not a manifest", path=path)
    try:
        items = json.loads(path.read_text(encoding="utf-8"))
        entries = [_entry(path.parent, item) for item in items]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise TrainingError(
            "it is not a manifest (a JSON list of scenes with files.ms and mostly files.pan)",
            path=path,
            found=f"{type(error).__name__} {error}",
        ) from error
    blind = next((entry for entry in entries if entry.pan is None and entry.split == "validation"), None)
    if blind is not None:
        raise TrainingError("a scene to validate on needs files.pan", path=path, found=blind.name)
    chosen = [entry for entry in entries if entry.split == split]
    if required and not chosen:
        raise TrainingError(f"it lists no scene with split {split!r}", path=path, found=f"{len(entries)} scenes")
    return chosen


def _entry(folder: Path, item: dict[str, Any]) -> Entry:
    files = item["files"]
    pan, reference = files.get("pan"), files.get("reference")
    bands = item.get("bands")
    return Entry(
        name=item.get("name") or files["ms"],
        pan=None if pan is None else str(folder / pan),
        ms=str(folder / files["ms"]),
        reference=None if reference is None else str(folder / reference),
        sensor=item.get("sensor"),
        bands=None if bands is None else tuple(bands),
        split=item.get("split", "train"),
    )
