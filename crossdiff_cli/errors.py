"""Every error a user can meet: one clear line that names what, which file, the numbers and the cure."""

import re

_LONG_WORD = re.compile(r"\S{500,}")


class CrossDiffError(Exception):
    """Base of all errors that end a command with one line and exit code 1."""

    def __str__(self) -> str:
        """The line; of a name that is longer than any path, the two ends."""
        return _LONG_WORD.sub(lambda word: f"{word[0][:200]}...{word[0][-100:]}", super().__str__())


class PathError(CrossDiffError):
    """A path that may not be looked at: no permission, links in a circle, a network drive that is gone."""


class SceneError(CrossDiffError):
    """A raster, or a pair of rasters, that cannot be sharpened or read."""


class SensorError(CrossDiffError):
    """An unknown sensor, or bands that do not fit it."""


class WeightsError(CrossDiffError):
    """A weight file that is missing, damaged, foreign or of another architecture."""


class OutputError(CrossDiffError):
    """A result that cannot be written: it exists, its folder does not, the disk is full."""


class TrainingError(CrossDiffError):
    """A training run that cannot start or go on: no usable scene, a damaged checkpoint, a diverged loss."""


class ManifestError(CrossDiffError):
    """A list of scenes that cannot be understood, or whose results would overwrite each other."""
