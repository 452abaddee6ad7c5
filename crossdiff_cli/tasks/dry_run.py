"""What sharpening a scene would take: tiles, memory, size of the output, and time, by fusing a few tiles of it."""

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crossdiff_cli.geometry.window import Tile
from crossdiff_cli.inference.plan import window_bytes
from crossdiff_cli.inference.run import run_tiles
from crossdiff_cli.options import SharpenOptions
from crossdiff_cli.tasks.prepare import PreparedScene, prepared
from crossdiff_cli.tasks.sharpen import check_targets


@dataclass(frozen=True, slots=True)
class SharpenForecast:
    """What a run would read, write and need."""

    output: str
    facts: dict[str, Any]
    """Sensor, bands, ratio, registration and MTF, as in `SharpenResult`."""
    shape: tuple[int, int]
    """(rows, columns) of the output."""
    dtype: str
    tiles: int
    tile: tuple[int, int]
    """(rows, columns) of the largest tile, without its halo."""
    halo: int
    """Pixels that a tile is read beyond its border."""
    workers: int
    tile_bytes: int
    """Memory of the tiles in work, beside about 0.4 GB for the libraries and the network."""
    output_bytes: int
    """Size of the output before compression."""
    seconds: float
    """Estimated time of the run, from the time of the tiles that were fused."""
    seconds_before: float
    """Part of `seconds` that passes before the first tile, whatever the size of the scene."""

    def as_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        own = {name: getattr(self, name) for name in self.__slots__ if name != "facts"}
        return {**own, **self.facts, "seconds": round(self.seconds, 1), "seconds_before": round(self.seconds_before, 1)}

    def __str__(self) -> str:
        """Five lines for a human reader."""
        rows, columns = self.shape
        pixels = rows * columns
        count = len(self.facts["bands"])
        return "\n".join(
            [
                f"{self.output}: {columns} x {rows} px, {count} bands, {self.dtype} (not written)",
                f"tiles: {self.tiles} of up to {self.tile[1]} x {self.tile[0]} px, halo {self.halo} px, "
                f"{self.workers} at a time",
                f"memory of the tiles: {self.tile_bytes / 1e9:.2f} GB",
                f"output before compression: {self.output_bytes / 1e9:.3g} GB",
                f"estimated time: {self.seconds:.0f} s ({pixels / 1e6 / self.seconds:.2f} Mpx/s)",
            ]
        )


def dry_run(pan: str, ms: Sequence[str], target: Path, options: SharpenOptions | None = None) -> SharpenForecast:
    """Do all that `sharpen` does but write: check, survey, plan, and fuse as many tiles as there are workers.

    Fine-tuning is left out. Arguments and errors as `tasks.sharpen.sharpen`.
    """
    options = options or SharpenOptions()
    check_targets(target, options.output)
    return forecast_scene(pan, ms, target, options)


def forecast_scene(pan: str, ms: Sequence[str], target: Path, options: SharpenOptions) -> SharpenForecast:
    """As `dry_run`, wherever the result would go."""
    started = time.monotonic()
    with prepared(pan, ms, options) as scene:
        before = time.monotonic() - started
        profile, plan = scene.profile, scene.plan
        rows, columns = profile.shape
        largest = max(plan, key=lambda tile: tile.core.height * tile.core.width)
        together, bands = sorted(plan, key=_window_pixels)[-len(scene.workers) :], len(scene.pair.bands)
        return SharpenForecast(
            output=str(target),
            facts=scene.facts(),
            shape=(rows, columns),
            dtype=profile.dtype,
            tiles=len(plan),
            tile=largest.core.shape,
            halo=largest.core.row - largest.window.row if len(plan) > 1 else 0,
            workers=len(scene.workers),
            tile_bytes=sum(window_bytes(scene.workers, bands, _window_pixels(tile)) for tile in together),
            output_bytes=rows * columns * len(profile.bands) * np.dtype(profile.dtype).itemsize,
            seconds=before + _time_of_tiles(scene, options.runtime.readers),
            seconds_before=before,
        )


def _time_of_tiles(scene: PreparedScene, readers: int) -> float:
    """Time of all tiles in seconds, from that of the ones in the middle, by the pixels of their windows."""
    plan, count = scene.plan, len(scene.workers)
    first = max(0, (len(plan) - count) // 2)
    trial = plan[first : first + count]
    started = time.monotonic()
    with closing(run_tiles(trial, scene.pair.read, scene.workers, readers)) as fused:
        for _ in fused:
            pass
    return (time.monotonic() - started) * _pixels(plan) / _pixels(trial)


def _pixels(plan: Sequence[Tile]) -> int:
    return sum(map(_window_pixels, plan))


def _window_pixels(tile: Tile) -> int:
    return tile.window.height * tile.window.width
