"""Every error that a user can meet: classes with fields; `CrossDiffError.__str__` alone makes the sentence."""

import re
from pathlib import Path
from typing import Self

_LONG_WORD = re.compile(r"\S{500,}")


class CrossDiffError(Exception):
    """Base of all errors that end a command with one line and exit code 1.

    The line reads "PATH: PROBLEM (found FOUND, expected EXPECTED); CURE", without the parts that are not given. A kind
    of failure is a subclass: its `problem` and `cure` stand in the class, and whoever raises it gives path and numbers.

    Attributes:
        problem: what is wrong, a clause without a full stop.
        path: the file or folder that it is about, or None.
        found: the offending value, with its unit.
        expected: what would have been right, with its unit.
        cure: what the user can do, as an imperative.
    """

    problem = ""
    cure = ""

    def __init__(
        self,
        problem: str = "",
        *,
        path: Path | str | None = None,
        found: object = None,
        expected: object = None,
        cure: str = "",
    ) -> None:
        """Keep the fields; `problem` and `cure` default to those of the class."""
        self.problem = problem or type(self).problem
        self.path = None if path is None else str(path)
        self.found = found
        self.expected = expected
        self.cure = cure or type(self).cure
        super().__init__(self.problem)

    def __str__(self) -> str:
        """Return the line; of a name that is longer than any path, the two ends."""
        values = [f"{name} {value}" for name, value in self._values().items() if value is not None]
        line = "" if self.path is None else f"{self.path}: "
        line += self.problem + (f" ({', '.join(values)})" if values else "")
        line += f"; {self.cure}" if self.cure else ""
        return _LONG_WORD.sub(lambda word: f"{word[0][:200]}...{word[0][-100:]}", line)

    def renamed(self, folder: str, name: str) -> Self:
        """Return the same error with `folder` written as `name` in every field."""
        problem, path, found, cure = (
            None if text is None else str(text).replace(folder, name)
            for text in (self.problem, self.path, self.found, self.cure)
        )
        return type(self)(problem or "", path=path, found=found, expected=self.expected, cure=cure or "")

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle all fields: batch workers send errors to the process that reports them."""
        return _restored, (type(self), self.problem, self.path, self.found, self.expected, self.cure)

    def _values(self) -> dict[str, object]:
        return {"found": self.found, "expected": self.expected}


def _restored(
    kind: type[CrossDiffError], problem: str, path: str | None, found: object, expected: object, cure: str
) -> CrossDiffError:
    return kind(problem, path=path, found=found, expected=expected, cure=cure)


# --- Paths and options


class PathError(CrossDiffError):
    """A path that may not be looked at: no permission, links in a circle, a network drive that is gone."""


class OptionError(CrossDiffError):
    """Options that contradict each other or have a value that is not allowed."""


# --- Scenes: rasters and pairs of rasters


class SceneError(CrossDiffError):
    """A raster, or a pair of rasters, that cannot be sharpened or read."""


class UnreadableError(SceneError):
    """A file that is missing, no raster, damaged or truncated."""


class NoOverlapError(SceneError):
    """PAN and MS that show different ground."""

    problem = "PAN and MS do not overlap"


class RatioError(SceneError):
    """A PAN whose pixels are not finer than those of the MS, or far too fine."""


# --- Sensors


class SensorError(CrossDiffError):
    """An unknown sensor, or bands that do not fit it."""


# --- Weights and devices


class WeightsError(CrossDiffError):
    """A weight file that is missing, damaged, foreign or of another architecture."""


class DeviceError(CrossDiffError):
    """A device that this machine does not have, that cannot do what is asked, or whose memory does not suffice."""


# --- Output


class OutputError(CrossDiffError):
    """A result that cannot be written: it exists, its folder does not, the disk is full."""


class OutputExistsError(OutputError):
    """A result that is there already and must not be replaced."""

    problem = "the output exists"
    cure = "--overwrite replaces it"


# --- Training


class TrainingError(CrossDiffError):
    """A training run that cannot start or go on: no usable scene, a damaged checkpoint, a diverged loss."""


# --- Batch


class ManifestError(CrossDiffError):
    """A list of scenes that cannot be understood, or whose results would overwrite each other."""
