"""Which parts of a scene are worth a close look: where detail and colour are hardest."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from crossdiff_cli.geometry.window import Window
from crossdiff_cli.report.maps import Maps

_SIDES = 48, 160
"""Smallest and largest side of a place in PAN pixels: a third of a small scene."""
_EACH = 3
_VALID = 0.9


@dataclass(frozen=True, slots=True)
class Place:
    """A part of the judged extent and why it was chosen."""

    window: Window
    kind: str
    """`detail` or `colour`."""
    figure: float
    """Mean local correlation with PAN there, or mean spectral error."""


def hardest(maps: Maps, shape: tuple[int, int]) -> list[Place]:
    """Choose parts that do not overlap, three where detail is lost and three where colour is off, the worst first.

    Args:
        maps: of the scene.
        shape: rows and columns of the judged part of the PAN grid.
    """
    side = min(max(min(shape) // 3, _SIDES[0]), _SIDES[1])
    size = (min(side, shape[0]), min(side, shape[1]))
    correlation, error = maps.correlation.mean(0), maps.error.square().mean(0).sqrt()
    taken: list[Place] = []
    for kind, shown, score in (
        ("detail", correlation, (1 - correlation) * maps.detail),
        ("colour", error, error),
    ):
        scores, figures = _boxes(score, maps, size), _boxes(shown, maps, size)
        found = 0
        for index in scores.flatten().argsort(descending=True).tolist():
            row, column = divmod(index, scores.shape[1])
            if found == _EACH or not scores[row, column] > 0:
                break
            window = _window(row, column, maps, size, shape)
            if not any(window.intersection(other.window) for other in taken):
                taken.append(Place(window, kind, float(figures[row, column])))
                found += 1
    return taken


def _boxes(values: Tensor, maps: Maps, size: tuple[int, int]) -> Tensor:
    """Mean of the cells under a box of `size` PAN pixels at each cell; -1 where too few are valid."""
    box = [max(1, min(round(n / cell), cells)) for n, cell, cells in zip(size, maps.cell, values.shape, strict=True)]
    known = values.isfinite()
    stacked = torch.stack([values.nan_to_num(), known.double()])
    total, valid = F.avg_pool2d(stacked[:, None], (box[0], box[1]), stride=1)[:, 0]
    return torch.where(valid >= _VALID, total / valid, -1.0)


def _window(row: int, column: int, maps: Maps, size: tuple[int, int], shape: tuple[int, int]) -> Window:
    corner = []
    for axis, cell in enumerate((row, column)):
        start = round(maps.offset[axis] + cell * maps.cell[axis])
        corner.append(min(max(start, 0), shape[axis] - size[axis]))
    return Window(corner[0], corner[1], *size)
