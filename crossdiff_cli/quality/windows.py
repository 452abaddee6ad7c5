"""Windows over a scene, halos around them, the 32 x 32 blocks in them, and masks shrunk to where a filter may look."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from crossdiff_cli.geometry.window import Window

BLOCK = 32
"""Side of the non-overlapping blocks of Q2n, D_lambda and D_s, in pixels."""

BLOCK_VALID = 0.5
"""Share of its pixels that must be valid for a block to count."""


def grow(window: Window, near: tuple[int, int], far: tuple[int, int], shape: tuple[int, int]) -> Window:
    """Extend by (rows, columns) pixels before and behind, clipped to the grid of `shape`."""
    row, col = max(window.row - near[0], 0), max(window.col - near[1], 0)
    return Window(row, col, min(window.stop[0] + far[0], shape[0]) - row, min(window.stop[1] + far[1], shape[1]) - col)


def inner_blocks(window: Window, shape: tuple[int, int]) -> Tensor:
    """Which blocks of a window lie off the border of the grid of `shape`: bool (block rows, block columns)."""
    off_border = []
    for first, n, size in ((window.row, window.height, shape[0]), (window.col, window.width, shape[1])):
        index = first // BLOCK + torch.arange(math.ceil(n / BLOCK))
        off_border.append((index > 0) & (index < math.ceil(size / BLOCK) - 1))
    return off_border[0][:, None] & off_border[1]


def windows(shape: tuple[int, int], size: int) -> Iterator[Window]:
    """Yield the windows that cover a grid once, row by row; those at the far edges are cut.

    Args:
        shape: rows and columns of the grid.
        size: side of a window, a multiple of `BLOCK` so that no block is split.
    """
    if size <= 0 or size % BLOCK:
        raise ValueError(f"a window measures a multiple of {BLOCK} pixels, not {size}")
    for row in range(0, shape[0], size):
        for column in range(0, shape[1], size):
            yield Window(row, column, min(size, shape[0] - row), min(size, shape[1] - column))


def block_pixels(image: Tensor) -> Tensor:
    """Cut (bands, rows, columns) into blocks: (blocks, bands, BLOCK * BLOCK), the far edges filled with zeros."""
    bands, rows, columns = image.shape
    down, across = math.ceil(rows / BLOCK), math.ceil(columns / BLOCK)
    padded = image.new_zeros(bands, down * BLOCK, across * BLOCK)
    padded[:, :rows, :columns] = image
    cut = padded.view(bands, down, BLOCK, across, BLOCK).permute(1, 3, 0, 2, 4)
    return cut.reshape(down * across, bands, BLOCK * BLOCK)


def zero_masked(image: Tensor, mask: Tensor) -> Tensor:
    """The image (bands, rows, columns) in float64 with zeros where `mask` (rows, columns) is False."""
    return image.double() if mask.all() else image.double().masked_fill(~mask, 0.0)


def all_valid(mask: Tensor, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor]) -> Tensor:
    """Tell for each box of a grid of boxes whether all its pixels are valid; what lies off the grid does not count.

    Args:
        mask: bool (height, width), True where valid.
        rows: first and one-past-last pixel row of each row of boxes, integers.
        columns: the same for the columns.

    Returns:
        bool (len(rows[0]), len(columns[0])).
    """
    if mask.all():
        return torch.ones(len(rows[0]), len(columns[0]), dtype=torch.bool)
    invalid = torch.zeros(mask.shape[0] + 1, mask.shape[1] + 1, dtype=torch.int64)
    invalid[1:, 1:] = (~mask).long().cumsum(0).cumsum(1)
    top, bottom = (edge.clamp(0, mask.shape[0]) for edge in rows)
    left, right = (edge.clamp(0, mask.shape[1]) for edge in columns)
    by_row = invalid[bottom] - invalid[top]
    return (by_row[:, right] - by_row[:, left]) == 0


def shrink(mask: Tensor, radius: tuple[int, int]) -> Tensor:
    """Keep the valid pixels of `mask` (height, width) whose neighbourhood of `radius` (rows, columns) is all valid."""
    edges = [torch.arange(n) for n in mask.shape]
    rows, columns = ((edge - r, edge + r + 1) for edge, r in zip(edges, radius, strict=True))
    return all_valid(mask, rows, columns)
