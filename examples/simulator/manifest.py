"""The list of simulated scenes: what `crossdiff pretrain` reads, and the truth that only a simulator knows."""

import json
from pathlib import Path
from typing import Any

from crossdiff_cli.errors import ManifestError

NAME = "manifest.json"


def read(folder: Path) -> list[dict[str, Any]]:
    """Return the scenes that a folder lists; none without a manifest.

    Raises:
        ManifestError: the manifest is no JSON list of scenes with files.
    """
    path = folder / NAME
    if not path.exists():
        return []
    try:
        items = json.loads(path.read_text(encoding="utf-8"))
        listed = isinstance(items, list) and all(isinstance(item["files"], dict) for item in items)
    except (ValueError, TypeError, KeyError):
        listed = False
    if not listed:
        raise ManifestError(f"{path} is no list of scenes, and is not overwritten: move it, or choose another -o")
    return items


def append(folder: Path, item: dict[str, Any]) -> None:
    """Add a scene to the list of a folder; the file is whole at any time."""
    items = [*read(folder), item]
    fresh = folder / f"{NAME}.part"
    fresh.write_text(json.dumps(items, indent=1), encoding="utf-8")
    fresh.replace(folder / NAME)
