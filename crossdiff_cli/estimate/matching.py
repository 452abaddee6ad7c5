"""How one window of MS lies on the PAN: found where the MS bands explain the PAN best."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from crossdiff_cli.imaging.filters import box_sum
from crossdiff_cli.imaging.resample import Pixels, degrade

_MAX_SHIFT_MS_PX = 3.0
_COARSE = 2
"""Whole MS pixels, to every side, that are tried first."""
_ITERATIONS = 10
_CONVERGED_PX = 0.01
_STEEPEST = 2
"""Iterations that take the gradient of the PAN anew."""
_HIGHPASS = 9
"""Width in MS pixels of the mean taken out before registration."""
_MIN_CORRELATION = 0.5
"""Multiple correlation of PAN and MS under which no match is believed."""
_BLOCK = 12
"""Side, in MS pixels, of the blocks whose errors are taken to be independent: wider than the high-pass."""


@dataclass(frozen=True, slots=True)
class View:
    """A window of a scene; normalised where it is registered."""

    pan: Tensor
    """(1, 1, H, W)."""
    ms: Tensor
    """(C, h, w)."""
    mask: Tensor
    """(h, w): MS pixels whose PAN footprint is valid too."""
    offset: Pixels
    """Where the outer corner of MS pixel (0, 0) nominally lies in the window, in PAN pixels."""
    origin: Pixels
    """Where the window begins on the PAN."""

    @property
    def middle(self) -> Pixels:
        """Of the window, on the PAN."""
        return self.origin[0] + self.pan.shape[2] / 2, self.origin[1] + self.pan.shape[3] / 2

    @property
    def usable(self) -> Tensor:
        """Valid MS pixels at least three pixels from an invalid one or the border: (h, w)."""
        outside = 1.0 - self.mask.float()[None, None]
        return F.max_pool2d(F.pad(outside, [3] * 4, value=1.0), 7, stride=1)[0, 0] == 0


@dataclass(frozen=True, slots=True)
class Optics:
    """How PAN pixels become MS pixels."""

    ratio: Pixels
    """PAN pixels per MS pixel."""
    nyquist_gain: float
    """Of the MTF by which the PAN is degraded."""

    @property
    def step(self) -> float:
        """A quarter of an MS pixel, in PAN pixels."""
        return 0.25 * math.sqrt(self.ratio[0] * self.ratio[1])

    def seen(self, view: View, shift: Pixels, margin: int = 0) -> Tensor:
        """The PAN on the MS grid moved by `shift` PAN pixels, `margin` MS pixels larger to every side: (h, w)."""
        rows, cols = view.mask.shape
        row, col = (view.offset[axis] + shift[axis] - margin * self.ratio[axis] for axis in (0, 1))
        shape = (rows + 2 * margin, cols + 2 * margin)
        return degrade(view.pan, shape, self.ratio, (row, col), [self.nyquist_gain])[0, 0]


@dataclass(frozen=True, slots=True)
class Match:
    """Where the MS of one window lies."""

    middle: Pixels
    shift: Pixels
    correlation: float
    variance: Pixels
    """Of the shift, in PAN pixels squared."""


def match(view: View, optics: Optics) -> Match | None:
    """Whole MS pixels first, then Gauss-Newton; None where PAN and MS have too little in common."""
    usable = view.usable
    bands = high_pass(view.ms, view.mask)[:, usable].T

    def pan_at(*shifts: Pixels) -> Tensor:
        return high_pass(torch.stack([optics.seen(view, shift) for shift in shifts]), view.mask)[:, usable].T

    shift = _coarse(view, optics, bands)
    step, gradient, residual = optics.step, bands, bands
    for iteration in range(_ITERATIONS):
        row, col = shift
        if iteration < _STEEPEST:
            around = pan_at((row + step, col), (row - step, col), (row, col + step), (row, col - step))
            gradient = (around[:, 0::2] - around[:, 1::2]) / (2 * step)
        # pan(shift) + gradient . delta = bands . weights, solved for weights and delta together.
        system, pan = torch.cat([bands, -gradient], dim=1), pan_at(shift)
        solution = least_squares(system, pan)
        residual = pan - system @ solution
        delta = solution[-2:, 0].clamp(-2 * step, 2 * step)
        shift = (row + float(delta[0]), col + float(delta[1]))
        if float(delta.abs().max()) < _CONVERGED_PX:
            break
    correlation = float(_explained(bands, pan_at(shift)).clamp_min(0.0).sqrt())
    limit = [_MAX_SHIFT_MS_PX * ratio for ratio in optics.ratio]
    if any(abs(s) > most for s, most in zip(shift, limit, strict=True)) or correlation < _MIN_CORRELATION:
        return None
    variance = _variance(torch.cat([bands, -gradient], dim=1), residual[:, 0], usable)
    return Match(view.middle, shift, correlation, variance)


def _coarse(view: View, optics: Optics, bands: Tensor) -> Pixels:
    """The shift by whole MS pixels at which the PAN is explained best."""
    (rows, cols), margin = view.mask.shape, _COARSE
    wide = optics.seen(view, (0.0, 0.0), margin)
    places = [(row, col) for row in range(2 * margin + 1) for col in range(2 * margin + 1)]
    moved = torch.stack([wide[row : row + rows, col : col + cols] for row, col in places])
    fits = _explained(bands, high_pass(moved, view.mask)[:, view.usable].T)
    row, col = places[int(fits.argmax())]
    return (row - margin) * optics.ratio[0], (col - margin) * optics.ratio[1]


def _explained(columns: Tensor, targets: Tensor) -> Tensor:
    """Share of the energy of every target (n, k) that the columns (n, c) explain: (k,)."""
    residual = targets - columns @ least_squares(columns, targets)
    return 1.0 - residual.square().sum(dim=0) / targets.square().sum(dim=0).clamp_min(1e-12)


def _variance(system: Tensor, residual: Tensor, usable: Tensor) -> Pixels:
    """Variances of the last two unknowns, with errors that are alike within blocks (Liang and Zeger 1986)."""
    rows, cols = usable.nonzero().T
    block = (rows // _BLOCK) * (usable.shape[1] // _BLOCK + 1) + cols // _BLOCK
    names, block = block.unique(return_inverse=True)
    system = system.double()
    scores = system.new_zeros(len(names), system.shape[1]).index_add_(0, block, system * residual.double()[:, None])
    bread = torch.linalg.pinv(system.T @ system)
    covariance = bread @ (scores.T @ scores) @ bread
    row, col = (covariance.diagonal()[-2:] * len(names) / max(len(names) - 1, 1)).tolist()
    return row, col


def least_squares(columns: Tensor, targets: Tensor) -> Tensor:
    """Solve (n, c) @ (c, k) = (n, k) by slightly damped normal equations, in float64."""
    columns, targets = columns.double(), targets.double()
    gram = columns.T @ columns
    damping = 1e-9 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    solution: Tensor = torch.linalg.solve(gram + damping + 1e-30 * torch.eye(len(gram)), columns.T @ targets)
    return solution.float()


def high_pass(images: Tensor, mask: Tensor) -> Tensor:
    """Take out the local mean of valid pixels: (C, h, w)."""
    known = mask.to(images.dtype)[None]
    count, total = (box_sum(x[None], _HIGHPASS // 2)[0] for x in (known, images * known))
    return images - total / count.clamp_min(1.0)
