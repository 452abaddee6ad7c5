"""The metrics that need no reference, fed one window of the PAN grid at a time: D_lambda, D_s, D_rho, inter-band."""

import math

import torch
from torch import Tensor

from crossdiff_cli.geometry.window import Window
from crossdiff_cli.imaging.resample import EXPAND_RADIUS, expand, low_pass, mtf_radius
from crossdiff_cli.quality.bicubic import RADIUS, reduce_bicubic
from crossdiff_cli.quality.d_lambda import DLambda
from crossdiff_cli.quality.d_rho import DRho
from crossdiff_cli.quality.d_s import DS
from crossdiff_cli.quality.inputs import Judged, read
from crossdiff_cli.quality.qnr import InterBand
from crossdiff_cli.quality.windows import grow, inner_blocks, shrink


class FullResolution:
    """Reads each window with the halo its filters need and feeds the metrics what is valid of it."""

    def __init__(self, judged: Judged) -> None:
        """Start empty."""
        self._judged = judged
        ratio = judged.grid.ratio
        side = (max(2, round(ratio[0])), max(2, round(ratio[1])))
        self._tail = (side[0] - 1, side[1] - 1)
        self._blur_radius = (_blur_radius(judged, 0), _blur_radius(judged, 1))
        self._coarse_radius = (_coarse_radius(ratio[0]), _coarse_radius(ratio[1]))
        self.d_lambda, self.d_s, self.d_rho, self.inter_band = DLambda(), DS(), DRho(side), InterBand()
        self.d_lambda_table = DLambda()

    def update(self, core: Window) -> int:
        """Judge one window; return how many of its pixels are valid."""
        judged, shape = self._judged, self._judged.shape
        halo = [max(radii) for radii in zip(self._blur_radius, self._coarse_radius, self._tail, strict=True)]
        outer = grow(core, (halo[0], halo[1]), (halo[0], halo[1]), shape)
        inside = core.within(outer)
        fused, fused_mask = read(judged.fused, outer)
        pan, pan_mask = read(judged.pan, outer)
        both = fused_mask & pan_mask
        valid = int(both[inside].sum())
        if not valid:
            return 0
        overlap = grow(core, (0, 0), self._tail, shape).within(outer)
        self.d_rho.update(fused[:, *overlap], pan[:, *overlap], both[overlap])
        ms_up, pan_low, known = self._coarse(core, outer, pan)
        inner = inner_blocks(core, shape)
        blurred = known & shrink(fused_mask, self._blur_radius)[inside]
        for d_lambda, gains in ((self.d_lambda, judged.gains), (self.d_lambda_table, judged.table_gains)):
            if gains is not None:
                # float32: ten times faster, and its rounding is far below what any block can show.
                fused_low = low_pass(fused.float()[None], gains, judged.grid.ratio)[0][:, *inside]
                d_lambda.update(fused_low, ms_up, blurred, inner)
        fused, pan, both = fused[:, *inside], pan[:, *inside], both[inside] & known
        self.inter_band.update(fused, ms_up, both, inner)
        self.d_s.update(fused, pan, ms_up, pan_low, both & shrink(pan_mask, self._coarse_radius)[inside], inner)
        return valid

    def _coarse(self, core: Window, outer: Window, pan: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """ms_up and PAN', reduced and brought back up, on `core`, and where ms_up is valid; `pan` covers `outer`."""
        judged, grid = self._judged, self._judged.grid
        whole = Window(0, 0, *judged.ms_shape)
        around = grid.ms_window(core, EXPAND_RADIUS + 1).intersection(whole)
        if around is None:
            nothing = pan.new_zeros(len(judged.gains) + 1, *core.shape)
            return nothing[:-1], nothing[-1:], torch.zeros(core.shape, dtype=torch.bool)
        ms, ms_mask = read(judged.ms, around)
        pan_reduced = reduce_bicubic(pan, around.shape, grid.ratio, grid.local_offset(outer, around))
        offset = grid.local_offset(core, around)
        up = expand(torch.cat([ms, pan_reduced])[None], core.shape, grid.ratio, offset)[0]
        known = shrink(ms_mask, (EXPAND_RADIUS, EXPAND_RADIUS))
        rows, columns = (
            ((torch.arange(n) + 0.5 - start) / ratio).floor().long().clamp(0, size - 1)
            for n, start, ratio, size in zip(core.shape, offset, grid.ratio, around.shape, strict=True)
        )
        return up[:-1], up[-1:], known[rows][:, columns]


def _blur_radius(judged: Judged, axis: int) -> int:
    return max(mtf_radius(gain, judged.grid.ratio[axis]) for gain in (*judged.gains, *(judged.table_gains or ())))


def _coarse_radius(ratio: float) -> int:
    """How far PAN' looks: through the interpolation and, from its ends, through the cubic reduction."""
    return math.ceil((EXPAND_RADIUS + RADIUS + 1) * ratio) + 2
