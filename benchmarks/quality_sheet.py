"""The picture sheet of `quality.py`: PAN, MS, the best baseline and our results, one scene a row. Needs matplotlib."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from quality_methods import Case, parse_methods
from quality_table import Row

from crossdiff_cli.geometry.window import Window, spread
from crossdiff_cli.io.open_pair import open_pair
from crossdiff_cli.io.pair import ScenePair
from crossdiff_cli.io.raster import Raster
from crossdiff_cli.quality.baselines import BASELINES
from crossdiff_cli.report.colour import Stretch, composites, stretch

_CROP = 160
"""Side of the part of a scene that is shown, in PAN pixels."""


def sheet(cases: Sequence[Case], rows: Sequence[Row], ours: Sequence[str], results: Path, path: Path) -> None:
    """Draw the full-resolution cases.

    Args:
        cases: of all scenes and scales.
        rows: figures; they choose the best baseline of a scene, by ERGAS against the reference.
        ours: names of the methods shown beside it.
        results: folder with `SCENE.full.METHOD.tif`.
        path: PNG to write.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    full = [case for case in cases if case.scale == "full"]
    columns = 3 + len(ours)
    figure, axes = pyplot.subplots(
        len(full), columns, figsize=(2.6 * columns, 2.75 * len(full)), squeeze=False, layout="constrained"
    )
    for line, case in zip(axes, full, strict=True):
        pictures = _pictures(case, _best(rows, case.scene), ours, results)
        for axis, (title, picture) in zip(line, pictures.items(), strict=False):
            axis.imshow(picture, interpolation="nearest")
            axis.set_title(title, fontsize=8)
        for axis in line:
            axis.set_axis_off()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _best(rows: Sequence[Row], scene: str) -> str:
    """The baseline with the lowest ERGAS against the reference."""
    known = [r for r in rows if r["scene"] == scene and r["method"] in BASELINES and "ergas" in r]
    return min(known, key=lambda r: r["ergas"])["method"] if known else "MTF-GLP-FS"


def _pictures(case: Case, best: str, ours: Sequence[str], results: Path) -> dict[str, np.ndarray]:
    pictures = {}
    with open_pair(case.pan, [case.ms], case.options) as pair:
        window = _liveliest(pair)
        bands = next(iter(composites(pair.bands).values()))
        patch = pair.read(window)
        pan_stretch = stretch(patch.pan, patch.pan_mask)
        levels = stretch(*_ms(pair, window))
        grey = pan_stretch.picture(patch.pan, patch.pan_mask)
        pictures[f"{case.scene}\nPAN"] = np.repeat(grey, 3, axis=0).transpose(1, 2, 0)
        pictures["MS"] = levels.picture(*_ms(pair, window), bands).transpose(1, 2, 0)
        for name in (best, *ours):
            result = results / f"{case.scene}.full.{name.replace('/', '_')}.tif"
            if not result.is_file() and name in BASELINES:
                parse_methods([name])[0][name](case, result)
            if result.is_file():
                pictures[name] = _result(result, pair, window, levels, bands)
    return pictures


def _ms(pair: ScenePair, window: Window) -> tuple[np.ndarray, np.ndarray]:
    return pair.ms[0].read(pair.grid.ms_window(window, 0))


def _result(path: Path, pair: ScenePair, window: Window, levels: Stretch, bands: Sequence[int]) -> np.ndarray:
    with Raster(str(path)) as raster:
        col, row = ~raster.transform @ pair.pan.transform @ (window.col, window.row)
        there = Window(round(row), round(col), *window.shape)
        return levels.picture(*raster.read(there), bands).transpose(1, 2, 0)


def _liveliest(pair: ScenePair) -> Window:
    """The window with the most detail in PAN, fully valid if there is such a one."""
    best, score = pair.footprint, -1.0
    for window in spread(pair.footprint, _CROP, 400):
        patch = pair.read(window)
        valid = patch.valid
        detail = float(np.abs(np.diff(patch.pan[0], axis=1)).mean()) * float(valid.mean()) ** 4
        if detail > score and min(window.shape) == _CROP:
            best, score = window, detail
    return best
