"""Sensor MTF: Nyquist gains to kernels, `degrade` to the MS grid by them, `expand` to the PAN grid.

Both grids are described by continuous coordinates, so any ratio and any sub-pixel offset is exact. Pixel `j` of the PAN
grid covers [j, j + 1); pixel `k` of the MS grid covers [offset + k * ratio, offset + (k + 1) * ratio) of it. Operators
are separable and local, as banded matrices per axis that are applied band by band; beyond the border the edge pixel is
repeated.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from crossdiff_cli.imaging.memory import may_overwrite

Pixels = tuple[float, float]
"""Rows and columns."""

_Kind = tuple[torch.device, torch.dtype, int]
"""Device, type and CUDA stream (0 on the CPU) of the images that a matrix is applied to. A matrix belongs to the stream
that it was made on: another stream might still read it when its memory is handed on."""

EXPAND_RADIUS = 3
"""Half-width of `expand`, in MS pixels: six-point Lagrange interpolation, exact for polynomials to degree five."""

_SIGMAS = 4.0
_ROWS = 64
"""Rows of a banded matrix that are multiplied at once, with the columns that they reach."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Some rows of a banded matrix, over the columns where they are not zero."""

    into: slice
    weight: Tensor
    """(rows, columns)."""


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
    offset: Pixels,
    gains: Sequence[float],
) -> Tensor:
    """Bring an image on the PAN grid to the MS grid by the MTF of each band.

    Args:
        image: (B, C, H, W) on the PAN grid.
        shape: rows and columns of the MS grid to fill.
        ratio: PAN pixels per MS pixel, (rows, columns).
        offset: PAN coordinates (row, column) of the outer corner of MS pixel (0, 0).
        gains: Nyquist gain of each of the C bands, or one for all.

    Returns:
        (B, C, *shape). A flat image stays flat; a ramp is sampled at the MS pixel centres, unshifted.
    """
    channels = image.shape[1]
    gains = list(gains) * channels if len(gains) == 1 else list(gains)
    out = image.new_empty(image.shape[0], channels, *shape)
    for gain, bands in _by_gain(gains).items():
        kind = _kind(image)
        rows = _degrade_matrix(image.shape[2], shape[0], ratio[0], offset[0], gain, kind)
        columns = _degrade_matrix(image.shape[3], shape[1], ratio[1], offset[1], gain, kind)
        some = span(bands)
        out[:, some] = _multiply(rows, columns, image[:, some])
    return out


def expand(ms: Tensor, shape: tuple[int, int], ratio: Pixels, offset: Pixels) -> Tensor:
    """Interpolate `ms` (B, C, h, w) to the PAN grid: (B, C, *shape). `ratio` and `offset` as in `degrade`."""
    kind = _kind(ms)
    rows = _expand_matrix(ms.shape[2], shape[0], ratio[0], offset[0], kind)
    columns = _expand_matrix(ms.shape[3], shape[1], ratio[1], offset[1], kind)
    return _multiply(rows, columns, ms)


def _multiply(rows: list[_Part], columns: list[_Part], image: Tensor) -> Tensor:
    """`rows` @ image @ `columns`^T for every band of (B, C, H, W); columns, which are gathered, where it is smaller."""
    first, last = min(part.into.start for part in rows), max(part.into.stop for part in rows)
    image = image[:, :, first:last]

    def down(x: Tensor) -> Tensor:
        pieces = (p.weight @ x[:, :, p.into.start - first : p.into.stop - first] for p in rows)
        if not may_overwrite():
            return torch.cat(list(pieces), dim=2)
        # Each is put in its place while it is still in the cache: two thirds of the time.
        out, start = x.new_empty(*x.shape[:2], sum(len(part.weight) for part in rows), x.shape[3]), 0
        for piece in pieces:
            out[:, :, start : start + piece.shape[2]] = piece
            start += piece.shape[2]
        return out

    def across(x: Tensor) -> Tensor:
        return torch.cat([x[..., p.into] @ p.weight.T for p in columns], dim=3)

    grows = sum(len(part.weight) for part in rows) > last - first
    return down(across(image)) if grows else across(down(image))


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


def _banded(index: np.ndarray, weight: np.ndarray, n_in: int, kind: _Kind) -> list[_Part]:
    """The parts of an (n_out, n_in) matrix from taps; taps beyond the border fall on the edge pixel."""
    index = np.clip(index, 0, n_in - 1)
    parts = []
    for start in range(0, len(index), _ROWS):
        taps, values = index[start : start + _ROWS], weight[start : start + _ROWS]
        first, last = int(taps.min()), int(taps.max()) + 1
        matrix = np.zeros((len(taps), last - first))
        np.add.at(matrix, (np.arange(len(taps))[:, None], taps - first), values)
        # Kept for later calls, which may need gradients.
        with torch.inference_mode(mode=False):
            part = torch.from_numpy(matrix.astype(np.float32)).to(*kind[:2])
        parts.append(_Part(slice(first, last), part))
    return parts


@lru_cache(maxsize=256)
def _degrade_matrix(n_in: int, n_out: int, ratio: float, offset: float, gain: float, kind: _Kind) -> list[_Part]:
    sigma, radius = mtf_sigma(gain, ratio), mtf_radius(gain, ratio)
    centre = offset + (np.arange(n_out) + 0.5) * ratio - 0.5
    index = np.floor(centre)[:, None].astype(np.int64) + np.arange(-radius, radius + 2)
    distance = index - centre[:, None]
    weight = np.exp(-0.5 * (distance / sigma) ** 2)
    # A sampled Gaussian off the pixel centres has a small first moment: a ramp would move. Take it out.
    moment = (weight * distance).sum(1) / (weight * distance**2).sum(1)
    weight *= 1.0 - moment[:, None] * distance
    return _banded(index, weight / weight.sum(1, keepdims=True), n_in, kind)


@lru_cache(maxsize=256)
def _expand_matrix(n_in: int, n_out: int, ratio: float, offset: float, kind: _Kind) -> list[_Part]:
    position = (np.arange(n_out) + 0.5 - offset) / ratio - 0.5
    first = np.floor(position).astype(np.int64) - EXPAND_RADIUS + 1
    taps = np.arange(2 * EXPAND_RADIUS)
    x = position - first
    weight = np.ones((n_out, len(taps)))
    for tap in taps:
        for other in taps[taps != tap]:
            weight[:, tap] *= (x - other) / (tap - other)
    return _banded(first[:, None] + taps, weight, n_in, kind)
