"""Every error a user can meet: one clear line that names what, which file, the numbers and the cure."""


class CrossDiffError(Exception):
    """Base of all errors that end a command with one line and exit code 1."""


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
