"""How one window of MS lies on the PAN: found where the MS bands explain the PAN best."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from crossdiff_cli.imaging.filters import box_sum
from crossdiff_cli.imaging.masking import eroded
from crossdiff_cli.imaging.regression import least_squares
from crossdiff_cli.imaging.resample import Pixels, degrade

_COARSE = 3
"""Whole MS pixels, to every side, that are tried first; a best match at the border of that range is no match."""
_TIE = 0.005
"""Explained share by which a farther shift has to be better than a nearer one."""
_LEAST_ENERGY = 1e-6
"""Mean square of the high-passed PAN, normalised, below which it shows nothing that could be matched."""
_LEAST_ANISOTROPY = 1e-3
"""Smaller over larger eigenvalue of the structure tensor below which the window shows one direction only."""
_LEAST_AGREEMENT = 0.25
"""Share of the PAN's gradient along a direction that the gradients of the bands must explain."""
_LEAST_SPREAD = 3.0
"""Effective number of blocks over which the gradient of the PAN must be spread: one bright dot is no evidence."""
_ITERATIONS = 10
_CONVERGED_PX = 0.01
_STEEPEST = 2
"""Iterations that take the gradient of the PAN anew."""
_HIGHPASS = 9
"""Width in MS pixels of the mean taken out before registration."""
_MIN_CORRELATION = 0.5
"""Multiple correlation of PAN and MS below which a match is rejected."""
_BLOCK = 12
"""Side, in MS pixels, of the blocks whose errors are taken to be independent: wider than the high-pass."""


@dataclass(frozen=True, slots=True)
class SampleWindow:
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
        return eroded(self.mask, 3)

    def pan_mask(self, ratio: Pixels) -> Tensor:
        """Return which PAN pixels lie in MS pixels whose whole area is valid: (H, W)."""
        rows, cols = (
            ((torch.arange(size) + 0.5 - start) / step).floor().long()
            for size, start, step in zip(self.pan.shape[2:], self.offset, ratio, strict=True)
        )
        height, width = self.mask.shape
        inside = ((rows >= 0) & (rows < height))[:, None] & ((cols >= 0) & (cols < width))
        return self.mask[rows.clamp(0, height - 1)][:, cols.clamp(0, width - 1)] & inside


@dataclass(frozen=True, slots=True)
class PanDegradation:
    """How PAN pixels become MS pixels."""

    ratio: Pixels
    """PAN pixels per MS pixel."""
    nyquist_gain: float
    """Of the MTF by which the PAN is degraded."""

    @property
    def step(self) -> float:
        """A quarter of an MS pixel, in PAN pixels."""
        return 0.25 * math.sqrt(self.ratio[0] * self.ratio[1])

    def pan_on_ms_grid(self, view: SampleWindow, shift: Pixels, margin: int = 0) -> Tensor:
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
    """In PAN pixels; 0 along a direction in which the window shows no change."""
    correlation: float
    variance: Pixels
    """Of the shift, in PAN pixels squared."""
    directions: Tensor
    """(2, k), k = 1 or 2: orthonormal directions (row, column) along which the shift is known."""


def match(view: SampleWindow, degradation: PanDegradation) -> Match | None:
    """Find the shift of one window: whole MS pixels first, then Gauss-Newton.

    Along a direction in which nothing changes that PAN and MS have in common (the aperture problem) the shift is 0.

    Returns:
        None where PAN and MS have too little in common, or match best at the border of the search range.
    """
    usable = view.usable
    bands = high_pass(view.ms, view.mask)[:, usable].T

    def pan_at(*shifts: Pixels) -> Tensor:
        return high_pass(torch.stack([degradation.pan_on_ms_grid(view, shift) for shift in shifts]), view.mask)[
            :, usable
        ].T

    def gradient_at(row: float, col: float) -> Tensor:
        around = pan_at((row + step, col), (row - step, col), (row, col + step), (row, col - step))
        return (around[:, 0::2] - around[:, 1::2]) / (2 * step)

    step = degradation.step
    directions = _directions(view, pan_at((0.0, 0.0)), gradient_at(0.0, 0.0))
    shift = None if directions is None else _coarse(view, degradation, bands, directions)
    if shift is None or directions is None:
        return None
    slopes = gradient_at(*shift)
    directions = _agreeing(view, slopes, directions)
    if directions.shape[1] == 0:
        return None
    shift = _along(directions, torch.tensor(shift))
    gradient, residual = slopes @ directions, bands
    for iteration in range(_ITERATIONS):
        if 0 < iteration < _STEEPEST:
            gradient = gradient_at(*shift) @ directions
        # pan(shift) + gradient . delta = bands . weights, solved for weights and delta together.
        system, pan = torch.cat([bands, -gradient], dim=1), pan_at(shift)
        solution = least_squares(system, pan)
        residual = pan - system @ solution
        delta = directions @ solution[bands.shape[1] :, 0].clamp(-2 * step, 2 * step)
        shift = (shift[0] + float(delta[0]), shift[1] + float(delta[1]))
        if float(delta.abs().max()) < _CONVERGED_PX:
            break
    correlation = float(_explained(bands, pan_at(shift)).clamp_min(0.0).sqrt())
    limit = [(_COARSE - 0.5) * ratio for ratio in degradation.ratio]
    if any(abs(s) > most for s, most in zip(shift, limit, strict=True)) or correlation < _MIN_CORRELATION:
        return None
    variance = _variance(torch.cat([bands, -gradient], dim=1), residual[:, 0], usable, directions)
    return Match(view.middle, shift, correlation, variance, directions)


def _directions(view: SampleWindow, pan: Tensor, gradient: Tensor) -> Tensor | None:
    """Return the directions (2, k) along which the PAN changes, k = 1 or 2; None if there is none.

    They are eigenvectors of the structure tensor of the PAN on the MS grid (Lucas and Kanade 1981).

    Args:
        view: the window.
        pan: (n, 1), high-passed PAN at the usable MS pixels.
        gradient: (n, 2), its derivatives along rows and columns, per PAN pixel.
    """
    if float(pan.square().mean()) < _LEAST_ENERGY:
        return None
    energy = _by_block(view.usable, gradient.square().sum(dim=1, keepdim=True))[:, 0]
    least = min(_LEAST_SPREAD, 0.3 * len(energy))
    if float(energy.sum().square() / energy.square().sum().clamp_min(1e-30)) < least:
        return None
    values, vectors = torch.linalg.eigh(gradient.double().T @ gradient.double())
    return vectors[:, values > _LEAST_ANISOTROPY * values[-1]].float()


def _agreeing(view: SampleWindow, gradient: Tensor, directions: Tensor) -> Tensor:
    """Keep those directions (2, k) along which the bands explain the PAN's gradient (n, 2): no noise of the PAN."""
    changes = torch.stack(torch.gradient(high_pass(view.ms, view.mask), dim=(1, 2)), dim=1)[:, :, view.usable]
    along = [torch.einsum("bdn,d->nb", changes, direction) for direction in directions.T]
    shares = [_explained(c, (gradient @ d)[:, None]) for c, d in zip(along, directions.T, strict=True)]
    return directions[:, torch.cat(shares) > _LEAST_AGREEMENT]


def _along(directions: Tensor, shift: Tensor) -> Pixels:
    """Return the part of a shift (2,) that lies along orthonormal directions (2, k)."""
    row, col = (directions @ (directions.T @ shift.float())).tolist()
    return row, col


def _coarse(view: SampleWindow, degradation: PanDegradation, bands: Tensor, directions: Tensor) -> Pixels | None:
    """Return the shift by whole MS pixels at which the PAN is explained best, the nearest of equal ones.

    Only its part along `directions` counts. None where the best match lies at the border of the range.
    """
    (rows, cols), margin = view.mask.shape, _COARSE
    wide = degradation.pan_on_ms_grid(view, (0.0, 0.0), margin)
    places = [(row, col) for row in range(2 * margin + 1) for col in range(2 * margin + 1)]
    moved = torch.stack([wide[row : row + rows, col : col + cols] for row, col in places])
    fits = _explained(bands, high_pass(moved, view.mask)[:, view.usable].T)
    away = torch.tensor(places, dtype=torch.float32) - margin
    near = torch.where(fits >= fits.max() - _TIE, away.square().sum(dim=1), torch.inf)
    best = away[int(near.argmin())]
    if float(best.abs().max()) == margin:
        return None
    return _along(directions, best * torch.tensor(degradation.ratio))


def _explained(columns: Tensor, targets: Tensor) -> Tensor:
    """Return the share of the energy of every target (n, k) that the columns (n, c) explain: (k,); 0 of no energy."""
    residual = targets - columns @ least_squares(columns, targets)
    energy = targets.square().sum(dim=0)
    share = 1.0 - residual.square().sum(dim=0) / energy.clamp_min(1e-30)
    return torch.where(energy > _LEAST_ENERGY * len(targets), share, 0.0)


def _by_block(usable: Tensor, values: Tensor) -> Tensor:
    """Sum values (n, k) of the usable pixels over blocks of `_BLOCK` MS pixels: (blocks, k)."""
    rows, cols = usable.nonzero().T
    block = (rows // _BLOCK) * (usable.shape[1] // _BLOCK + 1) + cols // _BLOCK
    names, block = block.unique(return_inverse=True)
    return values.new_zeros(len(names), values.shape[1]).index_add_(0, block, values)


def cluster_covariance(system: Tensor, residual: Tensor, usable: Tensor) -> Tensor:
    """Return the covariance (c, c) of a least-squares solution whose errors are alike within blocks.

    Source: Liang and Zeger (1986).

    Args:
        system: (n, c), of the usable pixels.
        residual: (n,), of the solution.
        usable: (h, w), the pixels that the rows stand for.
    """
    system = system.double()
    scores = _by_block(usable, system * residual.double()[:, None])
    bread = torch.linalg.pinv(system.T @ system)
    return bread @ (scores.T @ scores) @ bread * (len(scores) / max(len(scores) - 1, 1))


def _variance(system: Tensor, residual: Tensor, usable: Tensor, directions: Tensor) -> Pixels:
    """Return the variances along rows and columns of a shift whose parts along `directions` are the last unknowns."""
    count = directions.shape[1]
    covariance = cluster_covariance(system, residual, usable)[-count:, -count:]
    row, col = (directions.double() @ covariance @ directions.double().T).diagonal().tolist()
    return row, col


def high_pass(images: Tensor, mask: Tensor) -> Tensor:
    """Take out the local mean of valid pixels: (C, h, w)."""
    known = mask.to(images.dtype)[None]
    count, total = (box_sum(x[None], _HIGHPASS // 2)[0] for x in (known, images * known))
    return images - total / count.clamp_min(1.0)
