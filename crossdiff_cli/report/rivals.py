"""The classical baselines on a part of the same scene: their figures, and pictures to compare with."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from crossdiff_cli.geometry.window import Window, spread
from crossdiff_cli.imaging.resample import EXPAND_RADIUS
from crossdiff_cli.quality.assess import assess_arrays
from crossdiff_cli.quality.baselines import BASELINES
from crossdiff_cli.quality.inputs import Judged, read
from crossdiff_cli.quality.report import QualityReport
from crossdiff_cli.quality.windows import grow

SIDE = 1024
"""Side of the part that baselines are scored on, in PAN pixels; a scene that is little larger is taken whole."""
_WHOLE = 1_300_000
_CONTEXT = 256
"""PAN pixels around a picture from which a baseline takes its statistics."""


@dataclass(frozen=True, slots=True)
class Rivals:
    """Figures on one part of the scene.

    Attributes:
        window: that part.
        ours: of the result there.
        baselines: by name.
        best: name of the baseline with the highest HQNR among those that sharpen.
    """

    window: Window
    ours: QualityReport
    baselines: Mapping[str, QualityReport]
    best: str


@dataclass(frozen=True, slots=True)
class _Part:
    fused: Tensor
    pan: Tensor
    ms: Tensor
    offset: tuple[float, float]
    mask: Tensor
    reference: Tensor | None


def score_rivals(judged: Judged) -> Rivals:
    """Run and score the baselines on the part with the most valid pixels.

    Raises:
        SceneError: nothing valid to judge there.
    """
    window = _most_valid(judged)
    part = _read(judged, window)
    ratio, gains = judged.grid.ratio, judged.gains

    def score(fused: Tensor) -> QualityReport:
        return assess_arrays(
            fused, part.pan, part.ms, ratio, part.offset, gains, mask=part.mask, reference=part.reference
        )

    scores = {
        name: score(method(part.pan, part.ms, ratio, part.offset, gains, part.mask))
        for name, method in BASELINES.items()
    }
    sharpening = [name for name in scores if name != "EXP"]
    best = max(sharpening, key=lambda name: scores[name].hqnr or 0.0)
    return Rivals(window, score(part.fused), scores, best)


def rival_picture(judged: Judged, window: Window, name: str) -> Tensor:
    """What a baseline makes of a window, with statistics of the window and its surroundings: (bands, h, w)."""
    outer = grow(window, (_CONTEXT, _CONTEXT), (_CONTEXT, _CONTEXT), judged.shape)
    part = _read(judged, outer)
    fused = BASELINES[name](part.pan, part.ms, judged.grid.ratio, part.offset, judged.gains, part.mask)
    return fused[:, *window.within(outer)]


def _most_valid(judged: Judged) -> Window:
    whole = Window(0, 0, *judged.shape)
    if whole.height * whole.width <= _WHOLE:
        return whole
    return max(spread(whole, SIDE, 9), key=lambda window: int(_both_valid(judged, window).sum()))


def _both_valid(judged: Judged, window: Window) -> Tensor:
    return read(judged.fused, window)[1] & read(judged.pan, window)[1]


def _read(judged: Judged, window: Window) -> _Part:
    fused, fused_mask = read(judged.fused, window)
    pan, pan_mask = read(judged.pan, window)
    around = judged.grid.ms_window(window, EXPAND_RADIUS + 1).intersection(Window(0, 0, *judged.ms_shape))
    if around is None:
        around, fused_mask = Window(0, 0, 1, 1), torch.zeros_like(fused_mask)
    ms, ms_mask = read(judged.ms, around)
    offset = judged.grid.local_offset(window, around)
    below = [
        ((torch.arange(n) + 0.5 - start) / step).floor().long().clamp(0, size - 1)
        for n, start, step, size in zip(window.shape, offset, judged.grid.ratio, around.shape, strict=True)
    ]
    mask = fused_mask & pan_mask & ms_mask[below[0]][:, below[1]]
    reference = None
    if judged.reference is not None:
        reference, truth_mask = read(judged.reference, window)
        mask = mask & truth_mask
    return _Part(fused, pan, ms, offset, mask, reference)
