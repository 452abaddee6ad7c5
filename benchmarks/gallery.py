"""Crops of every scene of a manifest for the eye: one PNG a scene; columns PAN, MS, MTF-GLP-FS and the methods named.

    python benchmarks/gallery.py index.json -o out -m crossdiff=weights.safetensors --zoom 2

Each row is the window of one kind, found by its content: the brightest, the darkest, the busiest, the smoothest, that
with the strongest change of vegetation, and that where PAN and MS disagree most, as at moving cars. All columns of a
scene have the contrast of its MS; a pixel of the PAN is one pixel, or `--zoom` of them.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from quality import parser_of, validation_cases
from quality_methods import Case, parse_methods

from crossdiff_cli.estimate.survey import SceneEstimates, survey
from crossdiff_cli.geometry.patch import Patch
from crossdiff_cli.geometry.window import Window, spread
from crossdiff_cli.imaging.injection import local_gain
from crossdiff_cli.imaging.sensor_model import pan_on_ms_grid
from crossdiff_cli.io.open_pair import open_pair
from crossdiff_cli.io.pair import ScenePair
from crossdiff_cli.io.png import png
from crossdiff_cli.io.raster import Raster
from crossdiff_cli.report.colour import composites, stretch

BASELINE = "MTF-GLP-FS"
_SIDE = 192
_CANDIDATES = 400
_GAP = 4
"""Pixels between the crops."""


def scores(pair: ScenePair, found: SceneEstimates) -> dict[str, Callable[[Patch], float]]:
    """What tells the windows of each kind; the largest is shown."""

    def detail(patch: Patch) -> float:
        return float(np.abs(np.diff(patch.pan[0], axis=1)).mean())

    def vegetation(patch: Patch) -> float:
        centres = np.array([band.center_nm for band in pair.bands])
        red, infrared = (int(np.abs(centres - nm).argmin()) for nm in (660, 835))
        index = (patch.ms[infrared] - patch.ms[red]) / (patch.ms[infrared] + patch.ms[red] + 1)
        return float(index[patch.ms_mask].std())

    def disagreement(patch: Patch) -> float:
        normal = found.normalisation
        pan = normal.normalise_pan(torch.from_numpy(patch.pan))[None]
        ms = normal.normalise_ms(torch.from_numpy(patch.ms))[None]
        pan_ms = pan_on_ms_grid(pan, patch.ms_mask.shape, found.sensor_model(patch))
        gain = local_gain(ms, pan_ms)
        residual = (ms - ms.mean(dim=(2, 3), keepdim=True)) - gain * (pan_ms - pan_ms.mean(dim=(2, 3), keepdim=True))
        return float(residual[0, :, patch.ms_mask].square().mean())

    return {
        "bright": lambda patch: float(np.percentile(patch.pan, 99)),
        "dark": lambda patch: -float(np.percentile(patch.pan, 50)),
        "busy": detail,
        "smooth": lambda patch: -detail(patch) / (float(patch.pan.mean()) + 1),
        "vegetation": vegetation,
        "disagreement": disagreement,
    }


def windows_of(pair: ScenePair, found: SceneEstimates) -> list[Window]:
    """One window of each kind, all different; fully valid where there are such ones."""
    side = min(_SIDE, min(pair.footprint.shape) // 3)
    places = spread(pair.footprint, side, _CANDIDATES)
    patches = [pair.read(window) for window in places if window.shape == (side, side)]
    full = [patch for patch in patches if patch.valid.mean() > 0.98] or [p for p in patches if p.valid.any()]
    chosen: list[Window] = []
    for score in scores(pair, found).values():
        ranked = sorted(full, key=score, reverse=True)
        fresh = [p.window for p in ranked if not any(p.window.intersection(window) for window in chosen)]
        chosen += fresh[:1]
    return chosen


def panel(case: Case, results: Sequence[Path]) -> np.ndarray:
    """All crops of a scene: (3, rows, columns), grey levels."""
    lines = []
    with open_pair(case.pan, [case.ms], case.options) as pair:
        found = survey(pair.sample_windows(), pair.grid, pair.bands)
        bands = next(iter(composites(pair.bands).values()))
        whole = stretch(*pair.ms[0].read(Window(0, 0, *pair.ms_shape)))
        for window in windows_of(pair, found):
            patch = pair.read(window)
            grey = np.repeat(stretch(patch.pan, patch.pan_mask).picture(patch.pan, patch.pan_mask), 3, axis=0)
            row, col = patch.offset
            at = [
                np.clip(((np.arange(size) + 0.5 - start) / step).astype(int), 0, count - 1)
                for size, start, step, count in zip(
                    window.shape, (row, col), pair.grid.ratio, patch.ms_mask.shape, strict=True
                )
            ]
            ms = patch.ms[:, at[0]][:, :, at[1]]
            crops = [grey, whole.picture(ms, np.ones(ms.shape[1:], bool), bands)]
            for path in results:
                with Raster(str(path)) as raster:
                    first_col, first_row = ~raster.transform @ pair.pan.transform @ (window.col, window.row)
                    there = Window(round(first_row), round(first_col), *window.shape)
                    crops.append(whole.picture(*raster.read(there), bands))
            lines.append(np.concatenate([np.pad(crop, ((0, 0), (0, _GAP), (0, _GAP))) for crop in crops], axis=2))
    return np.concatenate(lines, axis=1)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--zoom", type=int, default=1, help="pixels of the picture per pixel of the PAN")
    options = parser.parse_args(arguments)
    logging.disable(logging.WARNING)
    methods, _ = parse_methods([BASELINE, *options.method])
    options.output.mkdir(parents=True, exist_ok=True)
    for scene, folder in validation_cases(options.manifest, options.aside):
        full = next(case for case in scene if case.scale == "full")
        results = []
        for name, method in methods.items():
            results.append(folder / f"{name}.tif")
            method(full, results[-1])
        picture = panel(full, results).repeat(options.zoom, axis=1).repeat(options.zoom, axis=2)
        (options.output / f"{full.scene}.png").write_bytes(png(picture))
        print(options.output / f"{full.scene}.png")


if __name__ == "__main__":
    main()
