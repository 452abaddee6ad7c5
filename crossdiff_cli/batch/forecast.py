"""What a batch would take: every scene opened, and the time measured on a few tiles of the largest."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from crossdiff_cli.batch.manifest import Scene
from crossdiff_cli.batch.record import TABLE_ROWS
from crossdiff_cli.errors import CrossDiffError
from crossdiff_cli.io.extent import chosen_bands, extent_of
from crossdiff_cli.io.open_pair import open_pair
from crossdiff_cli.options import BatchOptions, SharpenOptions
from crossdiff_cli.system.paths import exists
from crossdiff_cli.tasks.dry_run import SharpenForecast, forecast_scene


@dataclass(frozen=True, slots=True)
class SceneSize:
    """What a scene would write."""

    scene: Scene
    shape: tuple[int, int]
    bands: int
    output_bytes: int
    """Before compression."""

    @property
    def pixels(self) -> int:
        """Pixels of the output."""
        return self.shape[0] * self.shape[1]


@dataclass(frozen=True, slots=True)
class BatchForecast:
    """What a batch would read, write and need."""

    sizes: Sequence[SceneSize]
    failures: dict[str, str]
    """Reason by name of the scenes that cannot be sharpened."""
    skipped: int
    """Scenes whose result is there."""
    jobs: int
    measured: SharpenForecast | None
    """Of the largest scene; None where none can be sharpened."""

    def seconds(self, size: SceneSize) -> float:
        """Estimated time of a scene."""
        if self.measured is None:
            return 0.0
        rows, columns = self.measured.shape
        tiles = self.measured.seconds - self.measured.seconds_before
        return self.measured.seconds_before + tiles * size.pixels / (rows * columns)

    def __str__(self) -> str:
        """A table of up to `TABLE_ROWS` scenes, the sum, and the scenes that cannot be sharpened."""
        lines = self._table() if 0 < len(self.sizes) <= TABLE_ROWS else []
        pixels, size = (sum(getattr(s, name) for s in self.sizes) for name in ("pixels", "output_bytes"))
        lines.append(
            f"{len(self.sizes)} scenes, {self.skipped} skipped: {pixels / 1e6:.1f} Mpx, "
            f"output before compression {size / 1e9:.3g} GB"
        )
        if self.measured is not None:
            memory, seconds = self.measured.tile_bytes * self.jobs, sum(map(self.seconds, self.sizes))
            lines.append(f"memory of the tiles: {memory / 1e9:.2f} GB; estimated time: {seconds / 60:.1f} min")
        lines += [f"{name} cannot be sharpened: {reason}" for name, reason in self.failures.items()]
        return "\n".join(lines)

    def _table(self) -> list[str]:
        width = max(5, *(len(size.scene.name) for size in self.sizes))
        lines = [f"{'scene':{width}} {'columns':>8} {'rows':>8} {'bands':>5} {'GB':>8} {'s':>8}"]
        lines += [
            f"{size.scene.name:{width}} {size.shape[1]:8} {size.shape[0]:8} {size.bands:5} "
            f"{size.output_bytes / 1e9:8.3g} {self.seconds(size):8.0f}"
            for size in self.sizes
        ]
        return lines


def forecast_batch(scenes: Sequence[Scene], fusion: SharpenOptions, options: BatchOptions) -> BatchForecast:
    """Open every scene and fuse a few tiles of the largest one that can be sharpened; nothing is written."""
    waiting = [scene for scene in scenes if not (options.skip_existing and exists(scene.output))]
    sizes, failures = [], {}
    measured = None
    with _silent():
        for scene in waiting:
            try:
                sizes.append(_size(scene, scene.applied_to(fusion)))
            except CrossDiffError as error:
                failures[scene.name] = str(error)
        for size in sorted(sizes, key=lambda size: size.pixels, reverse=True):
            scene = size.scene
            try:
                measured = forecast_scene(scene.pan, scene.ms, scene.output, scene.applied_to(fusion))
                break
            except CrossDiffError as error:
                failures[scene.name] = str(error)
    sizes = [size for size in sizes if size.scene.name not in failures]
    return BatchForecast(sizes, failures, len(scenes) - len(waiting), options.jobs, measured)


def _size(scene: Scene, options: SharpenOptions) -> SceneSize:
    output = options.output
    with open_pair(scene.pan, scene.ms, options.pair) as pair:
        extent = extent_of(pair, output.extent, output.bounds, output.bounds_crs)
        bands = len(chosen_bands(pair, output.bands))
        size = extent.height * extent.width * bands * np.dtype(output.dtype or pair.dtype).itemsize
    return SceneSize(scene, extent.shape, bands, size)


@contextmanager
def _silent() -> Iterator[None]:
    """Keep the log of the scenes back: of hundreds it would hide the table."""
    logger = logging.getLogger("crossdiff_cli")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
