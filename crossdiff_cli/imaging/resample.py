"""Sensor MTF: Nyquist gains to kernels, `degrade` to the MS grid by them, `expand` to the PAN grid.

Both grids are described by continuous coordinates, so any ratio and any sub-pixel offset is exact. Pixel `j` of the PAN
grid covers [j, j + 1); pixel `k` of the MS grid covers [offset + k * ratio, offset + (k + 1) * ratio) of it. Operators
are separable and local, as banded matrices per axis; beyond the border the edge pixel is repeated. The matrices of one
geometry are a plan, which is made once.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Pixels = tuple[float, float]
"""Rows and columns."""

_Kind = tuple[torch.device, torch.dtype, int]
"""Device, type and CUDA stream (0 on the CPU) of the images that a plan is applied to. A plan belongs to the stream
that it was made on: another stream might still read it when its memory is handed on."""

EXPAND_RADIUS = 3
"""Half-width of `expand`, in MS pixels: six-point Lagrange interpolation, exact for polynomials to degree five."""

_SIGMAS = 4.0
_ROWS = 64
"""Rows of a banded matrix that are multiplied at once, with the columns that they reach."""


@dataclass(frozen=True, slots=True)
class AxisPlan:
    """A banded matrix (size, n) for each band or one for all, along one axis: blocks of rows, where they are not zero.

    All blocks reach as many columns, so that they can be one product.
    """

    size: int
    first: tuple[int, ...]
    """First column that each block reaches."""
    index: Tensor
    """(blocks, span), the columns."""
    weight: Tensor
    """(bands or 1, blocks, rows, span); the rows beyond `size` are zero."""

    def down(self, x: Tensor) -> Tensor:
        """Multiply the columns of (B, C, n, W): (B, C, size, W)."""
        if not _in_blocks(x):
            blocks = self.weight @ x[:, :, self.index]  # (B, C, blocks, rows, W)
            return blocks.flatten(2, 3)[:, :, : self.size]
        span = self.index.shape[1]
        return self._collected(
            2, (self.weight[:, k, : self._rows(k)] @ x[:, :, f : f + span] for k, f in enumerate(self.first)), x
        )

    def across(self, x: Tensor) -> Tensor:
        """Multiply the rows of (B, C, H, n): (B, C, H, size)."""
        if not _in_blocks(x):
            blocks = x[..., self.index].transpose(2, 3) @ self.weight.transpose(2, 3)  # (B, C, blocks, H, rows)
            return blocks.transpose(2, 3).flatten(3)[..., : self.size]
        span, same = self.index.shape[1], len(self.weight) == 1
        weights = self.weight[0] if same else self.weight  # a matrix for all bands is one product
        parts = (
            x[..., f : f + span] @ weights[..., k, : self._rows(k), :].transpose(-1, -2)
            for k, f in enumerate(self.first)
        )
        return self._collected(3, parts, x)

    def _rows(self, block: int) -> int:
        return min(self.weight.shape[2], self.size - block * self.weight.shape[2])

    def _collected(self, axis: int, parts: Iterator[Tensor], x: Tensor) -> Tensor:
        """Put the products of all blocks together; each while it is still in the cache, unless gradients pass."""
        if x.requires_grad:
            return torch.cat(list(parts), dim=axis)
        shape, start = [*x.shape], 0
        shape[axis] = self.size
        out = x.new_empty(shape)
        for part in parts:
            out.narrow(axis, start, part.shape[axis]).copy_(part)
            start += part.shape[axis]
        return out


def mtf_sigma(nyquist_gain: float, ratio: float) -> float:
    """Standard deviation, in PAN pixels, of the Gaussian with that gain at the MS Nyquist frequency.

    The transfer function exp(-2 pi^2 sigma^2 f^2) equals the gain, in (0, 1), at f = 1 / (2 ratio) per PAN pixel.
    """
    if not 0.0 < nyquist_gain < 1.0:
        raise ValueError(f"a Nyquist gain lies between 0 and 1, not {nyquist_gain}")
    return ratio * math.sqrt(-2.0 * math.log(nyquist_gain)) / math.pi


def mtf_radius(nyquist_gain: float, ratio: float) -> int:
    """Half-width of the MTF kernel in PAN pixels."""
    return math.ceil(_SIGMAS * mtf_sigma(nyquist_gain, ratio))


def mtf_kernel(nyquist_gain: float, ratio: float) -> Tensor:
    """Return the 1-D MTF kernel on PAN pixels, odd length, sum one, float64; the 2-D kernel is its outer product."""
    radius = mtf_radius(nyquist_gain, ratio)
    x = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (x / mtf_sigma(nyquist_gain, ratio)) ** 2)
    return kernel / kernel.sum()


def low_pass(image: Tensor, gains: Sequence[float], ratio: Pixels) -> Tensor:
    """Blur each band of `image` (B, C, H, W) by its MTF, without decimation; one Nyquist gain per band."""
    out = torch.empty_like(image)
    for gain, bands in _by_gain(gains).items():
        part = image[:, bands]
        for axis in (2, 3):
            kernel = mtf_kernel(gain, ratio[axis - 2]).to(image)
            radius = len(kernel) // 2
            pad = (0, 0, radius, radius) if axis == 2 else (radius, radius, 0, 0)
            shape = (1, 1, -1, 1) if axis == 2 else (1, 1, 1, -1)
            weight = kernel.view(shape).expand(len(bands), 1, *shape[2:])
            part = F.conv2d(F.pad(part, pad, mode="replicate"), weight, groups=len(bands))
        out[:, bands] = part
    return out


def degrade(
    image: Tensor,
    shape: tuple[int, int],
    ratio: Pixels,
    offset: Pixels | Sequence[Pixels],
    gains: Sequence[float],
) -> Tensor:
    """Bring an image on the PAN grid to the MS grid by the MTF of each band.

    Args:
        image: (B, C, H, W) on the PAN grid.
        shape: rows and columns of the MS grid to fill.
        ratio: PAN pixels per MS pixel, (rows, columns).
        offset: PAN coordinates (row, column) of the outer corner of MS pixel (0, 0); of each band, or one for all.
        gains: Nyquist gain of each of the C bands, or one for all.

    Returns:
        (B, C, *shape). A flat image stays flat; a ramp is sampled at the MS pixel centres, unshifted.
    """
    distinct = tuple(map(float, gains))
    distinct = distinct[:1] if len(set(distinct)) == 1 else distinct
    rows, columns = (
        _degrade_plan(image.shape[2 + axis], shape[axis], ratio[axis], _along(offset, axis), distinct, _kind(image))
        for axis in (0, 1)
    )
    return columns.across(rows.down(image))


def expand(ms: Tensor, shape: tuple[int, int], ratio: Pixels, offset: Pixels | Sequence[Pixels]) -> Tensor:
    """Interpolate `ms` (B, C, h, w) to the PAN grid: (B, C, *shape). `ratio` and `offset` as in `degrade`."""
    return expand_rows(expand_columns(ms, shape[1], ratio, offset), shape[0], ratio, offset)


def expand_columns(ms: Tensor, width: int, ratio: Pixels, offset: Pixels | Sequence[Pixels]) -> Tensor:
    """Interpolate along the rows alone: (B, C, h, w) to (B, C, h, width). Arguments as in `expand`."""
    return _expand_plan(ms.shape[3], width, ratio[1], _along(offset, 1), _kind(ms)).across(ms)


def expand_rows(ms: Tensor, height: int, ratio: Pixels, offset: Pixels | Sequence[Pixels]) -> Tensor:
    """Interpolate along the columns alone: (B, C, h, W) to (B, C, height, W). Arguments as in `expand`."""
    return _expand_plan(ms.shape[2], height, ratio[0], _along(offset, 0), _kind(ms)).down(ms)


def span(bands: list[int]) -> slice | list[int]:
    """`bands` as an index: a slice where they follow each other, which takes a view and copies nothing."""
    return slice(bands[0], bands[-1] + 1) if bands == list(range(bands[0], bands[-1] + 1)) else bands


def _by_gain(gains: Sequence[float]) -> dict[float, list[int]]:
    groups: dict[float, list[int]] = {}
    for band, gain in enumerate(gains):
        groups.setdefault(float(gain), []).append(band)
    return groups


def _kind(image: Tensor) -> _Kind:
    stream = torch.cuda.current_stream(image.device).cuda_stream if image.device.type == "cuda" else 0
    return image.device, image.dtype, stream


def _in_blocks(x: Tensor) -> bool:
    """Return whether blocks are multiplied one after the other, so that they stay in the cache; a GPU takes all."""
    return x.device.type == "cpu"


def _along(offset: Pixels | Sequence[Pixels], axis: int) -> tuple[float, ...]:
    """Return the offsets of the bands along an axis, or the one that all have."""
    first = offset[axis] if len(offset) == 2 else None
    pairs = cast("Sequence[Pixels]", [offset] if isinstance(first, float | int) else offset)
    along = tuple(float(pair[axis]) for pair in pairs)
    return along[:1] if len(set(along)) == 1 else along


def _banded(first: NDArray[np.int64], weight: NDArray[np.float64], n_in: int, kind: _Kind) -> AxisPlan:
    """Make a plan from taps: `weight` (bands, n_out, taps) on pixels `first` (bands, n_out) and after them.

    Taps beyond the border fall on the edge pixel.
    """
    bands, n_out, taps = weight.shape
    index = np.clip(first[:, :, None] + np.arange(taps), 0, n_in - 1)
    blocks = -(-n_out // _ROWS)
    starts = np.arange(0, n_out, _ROWS)
    lowest = np.minimum.reduceat(index.min(axis=(0, 2)), starts)
    highest = np.maximum.reduceat(index.max(axis=(0, 2)), starts)
    reach = int((highest - lowest).max()) + 1
    lowest = np.minimum(lowest, n_in - reach)
    rows = min(_ROWS, n_out)
    matrix = np.zeros((bands, blocks, rows, reach), np.float32)
    band, row = np.arange(bands)[:, None, None], np.arange(n_out)[None, :, None]
    place = index - lowest.repeat(rows)[:n_out, None]
    np.add.at(matrix, (band, row // _ROWS, row % _ROWS, place), weight.astype(np.float32))
    # Kept for later calls, which may need gradients.
    with torch.inference_mode(mode=False):
        spread = torch.from_numpy(lowest[:, None] + np.arange(reach)).to(kind[0])
        return AxisPlan(n_out, tuple(map(int, lowest)), spread, torch.from_numpy(matrix).to(*kind[:2]))


@lru_cache(maxsize=256)
def _degrade_plan(
    n_in: int, n_out: int, ratio: float, offsets: tuple[float, ...], gains: tuple[float, ...], kind: _Kind
) -> AxisPlan:
    sigma = np.array([mtf_sigma(gain, ratio) for gain in gains])[:, None, None]
    radius = max(mtf_radius(gain, ratio) for gain in gains)
    centre = np.array(offsets)[:, None] + (np.arange(n_out) + 0.5) * ratio - 0.5
    first = np.floor(centre).astype(np.int64)
    tap = np.arange(-radius, radius + 2)
    distance = first[:, :, None] + tap - centre[:, :, None]
    own = np.array([mtf_radius(gain, ratio) for gain in gains])[:, None, None]
    weight = np.exp(-0.5 * (distance / sigma) ** 2) * ((tap >= -own) & (tap <= own + 1))
    # A sampled Gaussian off the pixel centres has a small first moment: a ramp would move. Take it out.
    moment = (weight * distance).sum(2) / (weight * distance**2).sum(2)
    weight = weight * (1.0 - moment[:, :, None] * distance)
    weight /= weight.sum(2, keepdims=True)
    return _banded(np.broadcast_to(first - radius, weight.shape[:2]), weight, n_in, kind)


@lru_cache(maxsize=256)
def _expand_plan(n_in: int, n_out: int, ratio: float, offsets: tuple[float, ...], kind: _Kind) -> AxisPlan:
    position = (np.arange(n_out) + 0.5 - np.array(offsets)[:, None]) / ratio - 0.5
    first = np.floor(position).astype(np.int64) - EXPAND_RADIUS + 1
    taps = np.arange(2 * EXPAND_RADIUS)
    x = position - first
    weight = np.ones((*x.shape, len(taps)))
    for tap in taps:
        for other in taps[taps != tap]:
            weight[..., tap] *= (x - other) / (tap - other)
    return _banded(first, weight, n_in, kind)
