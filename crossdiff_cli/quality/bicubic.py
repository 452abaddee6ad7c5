"""PAN reduced to the MS grid by antialiased bicubic: kernel stretched by the ratio, mirrored borders."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

RADIUS = 2
"""Half-width of the cubic kernel, in MS pixels."""


def reduce_bicubic(
    image: Tensor, shape: tuple[int, int], ratio: tuple[float, float], offset: tuple[float, float]
) -> Tensor:
    """Bring `image` (bands, rows, columns) on the PAN grid to the MS grid: (bands, *shape).

    Args:
        image: on the PAN grid.
        shape: rows and columns of the MS grid to fill.
        ratio: PAN pixels per MS pixel, (rows, columns).
        offset: PAN coordinates (row, column) of the outer corner of MS pixel (0, 0).
    """
    rows = _matrix(image.shape[1], shape[0], ratio[0], offset[0]).to(image)
    columns = _matrix(image.shape[2], shape[1], ratio[1], offset[1]).to(image)
    return (rows @ image) @ columns.T


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel with a = -1/2."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x**2 + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x <= 1.0, near, np.where(x <= RADIUS, far, 0.0))


@lru_cache(maxsize=64)
def _matrix(n_in: int, n_out: int, ratio: float, offset: float) -> Tensor:
    stretch = max(ratio, 1.0)
    centre = offset + (np.arange(n_out) + 0.5) * ratio - 0.5
    reach = int(np.ceil(RADIUS * stretch))
    index = np.floor(centre)[:, None].astype(np.int64) + np.arange(-reach, reach + 2)
    weight = _cubic((index - centre[:, None]) / stretch)
    weight /= weight.sum(1, keepdims=True)
    mirrored = index % (2 * n_in)
    mirrored = np.where(mirrored < n_in, mirrored, 2 * n_in - 1 - mirrored)
    matrix = np.zeros((n_out, n_in))
    np.add.at(matrix, (np.broadcast_to(np.arange(n_out)[:, None], index.shape), mirrored), weight)
    return torch.from_numpy(matrix)
