"""Which scenes to train on: manifests, folders and pairs; what cannot be read is named and left out."""

import logging
from collections.abc import Sequence
from pathlib import Path

from crossdiff_cli.errors import CrossDiffError, TrainingError
from crossdiff_cli.scene.pairing import find_pairs
from crossdiff_cli.training.manifest import Entry, read_manifest
from crossdiff_cli.training.patches import TrainingScene, load_scene

_log = logging.getLogger(__name__)


def resolve(sources: Sequence[Path], pairs: Sequence[tuple[str, str]], split: str) -> list[Entry]:
    """List the scenes of manifests (`*.json`, those of `split`), folders (pairs by their names) and explicit pairs.

    Folders and pairs belong to the split `train`.

    Raises:
        TrainingError: nothing is there, or a manifest is malformed.
    """
    entries: list[Entry] = []
    for source in sources:
        if source.is_dir():
            found, remarks = find_pairs(source)
            for remark in remarks:
                _log.warning("%s", remark)
            if not found:
                raise TrainingError(
                    f"{source} holds no PAN and MS whose names differ in one word (a_pan.tif, a_ms.tif): "
                    "name the files with --pair PAN MS"
                )
            if split == "train":
                entries += [
                    Entry(p.name, str(p.pan), str(p.ms), None if p.reference is None else str(p.reference), None, None,
                          split)
                    for p in found
                ]  # fmt: skip
        else:
            entries += read_manifest(source, split, required=split == "train")
    if split == "train":
        entries += [Entry(ms, pan, ms, None, None, None, split) for pan, ms in pairs]
        if not entries:
            raise TrainingError("no scene to train on: name manifests, folders, or files with --pair PAN MS")
    return entries


def load_scenes(entries: Sequence[Entry], *, strict: bool = False) -> list[TrainingScene]:
    """Read the scenes; one that cannot be read is warned of and left out, unless `strict`.

    Raises:
        TrainingError: none is left.
        CrossDiffError: `strict`, and one cannot be read.
    """
    scenes = []
    for entry in entries:
        try:
            scenes.append(load_scene(entry))
        except CrossDiffError as error:
            if strict:
                raise
            _log.warning("%s is left out: %s", entry.name, error)
    if not scenes:
        raise TrainingError(f"none of the {len(entries)} scenes can be read: the warnings above say why")
    return scenes
