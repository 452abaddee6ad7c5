"""Which scenes to train on: manifests, folders and pairs; what cannot be read is named and left out."""

import logging
from collections.abc import Sequence
from pathlib import Path

from crossdiff_cli.errors import CrossDiffError, TrainingError
from crossdiff_cli.io.pairing import find_pairs
from crossdiff_cli.system.paths import is_folder
from crossdiff_cli.training.manifest import Entry, read_manifest
from crossdiff_cli.training.training_scene import TrainingScene, load_parts
from crossdiff_cli.training.truth import load_truth

_log = logging.getLogger(__name__)


def resolve(
    sources: Sequence[str], split: str, sensor: str | None = None, bands: tuple[str, ...] | None = None
) -> list[Entry]:
    """List the scenes that are named.

    Args:
        sources: manifests (`*.json`, of which those of `split` count), folders (deliveries, and pairs by their names),
            and pairs of rasters, PAN then MS. Folders and pairs belong to the split `train`.
        split: `train` or `validation`.
        sensor: of the scenes that do not say theirs; None detects it.
        bands: names of the MS bands in file order, likewise.

    Raises:
        TrainingError: there is nothing to train on, a PAN has no MS after it, or a manifest is malformed.
    """
    entries: list[Entry] = []
    remaining = iter(sources)
    for source in remaining:
        path = Path(source)
        if path.suffix.lower() == ".json":
            entries += read_manifest(path, split, required=split == "train")
        elif is_folder(path):
            entries += _in_folder(path, sensor, bands) if split == "train" else []
        else:
            ms = next(remaining, None)
            if ms is None:
                raise TrainingError("it is neither a manifest (.json) nor a folder, and no MS follows it", path=source)
            if split == "train":
                entries.append(Entry(ms, source, ms, None, sensor, bands, split))
    if split == "train" and not entries:
        raise TrainingError("no scene to train on", cure="name manifests, folders, or PAN and MS files in turn")
    return entries


def _in_folder(folder: Path, sensor: str | None, bands: tuple[str, ...] | None) -> list[Entry]:
    found, remarks = find_pairs(folder)
    for remark in remarks:
        _log.warning("%s", remark)
    if not found:
        raise TrainingError(
            "it holds no PAN and MS of a delivery, and none whose names differ in one word (a_pan.tif, a_ms.tif)",
            path=folder,
            cure="name the files",
        )
    return [
        Entry(p.name, str(p.pan), str(p.ms), None if p.reference is None else str(p.reference), sensor, bands, "train")
        for p in found
    ]


def load_scenes(entries: Sequence[Entry], *, strict: bool = False) -> list[TrainingScene]:
    """Read the scenes; one that cannot be read is warned of and left out, unless `strict`.

    Raises:
        TrainingError: none is left.
        CrossDiffError: `strict`, and one cannot be read.
    """
    scenes = []
    for entry in entries:
        try:
            scenes += load_parts(entry) if entry.pan is not None else [load_truth(entry)]
        except CrossDiffError as error:
            if strict:
                raise
            _log.warning("%s is left out: %s", entry.name, error)
    if not scenes:
        raise TrainingError("no scene can be read: the warnings above say why", found=f"0 of {len(entries)}")
    return scenes
