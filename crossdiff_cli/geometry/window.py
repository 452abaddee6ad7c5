"""Windows and tiles: rectangles of pixels, without the pixels."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

STRIDE = 8
"""Height and width of every window that the network sees are multiples of this, and so are the edges of its parts."""


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of pixels, which may reach beyond the image."""

    row: int
    """First row."""
    col: int
    """First column."""
    height: int
    """Rows, at least one."""
    width: int
    """Columns, at least one."""

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ValueError(f"a window has at least one pixel, not {self.height} x {self.width}")

    @property
    def stop(self) -> tuple[int, int]:
        """Row and column after the last."""
        return self.row + self.height, self.col + self.width

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.height, self.width

    def intersection(self, other: "Window") -> "Window | None":
        """The pixels in both, or None."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        height, width = min(self.stop[0], other.stop[0]) - row, min(self.stop[1], other.stop[1]) - col
        return Window(row, col, height, width) if height > 0 and width > 0 else None

    def relative_to(self, outer: "Window") -> "Window":
        """Return the same pixels, counted from the corner of `outer`."""
        return replace(self, row=self.row - outer.row, col=self.col - outer.col)

    def slices(self, scale: int = 1) -> tuple[slice, slice]:
        """Return these rows and columns of an image at 1 / `scale` of the grid; the edges are multiples of `scale`."""
        return (
            slice(self.row // scale, (self.row + self.height) // scale),
            slice(self.col // scale, (self.col + self.width) // scale),
        )

    def halved(self) -> "Window":
        """Return the same pixels on the grid of half of the resolution; all edges are even."""
        return Window(self.row // 2, self.col // 2, self.height // 2, self.width // 2)

    def within(self, outer: "Window") -> tuple[slice, slice]:
        """Return the slices of this window in an array that holds `outer`."""
        return self.relative_to(outer).slices()

    def crop(self, image: Any, scale: int = 1) -> Any:
        """Return these pixels of an image (..., H / scale, W / scale), a view."""
        return image[(..., *self.slices(scale))]

    def grown_within(self, margin: int, outer: "Window") -> "Window":
        """Return this window widened by `margin`, then to the stride of the network, as far as `outer` goes."""
        grown = self.grown(margin, STRIDE).intersection(outer)
        assert grown is not None
        return grown

    def strips(self, rows: int) -> "Iterator[Window]":
        """Cut into the fewest strips of at most `rows` rows, a multiple of the stride, as equal as they can be."""
        count = -(-self.height // rows)
        rows = -(-self.height // (count * STRIDE)) * STRIDE
        for row in range(self.row, self.row + self.height, rows):
            yield replace(self, row=row, height=min(rows, self.row + self.height - row))

    def grown(self, margin: int, stride: int = 1) -> "Window":
        """Widened by `margin` on all sides, then outwards until origin and size are multiples of `stride`."""
        row, col = ((v - margin) // stride * stride for v in (self.row, self.col))
        end_row, end_col = (math.ceil((v + margin) / stride) * stride for v in self.stop)
        return Window(row, col, end_row - row, end_col - col)

    def halves(self, axis: int) -> "tuple[Window, Window]":
        """Cut across `axis`, 0 for the rows; the side is at least two pixels long."""
        if axis:
            middle = self.width // 2
            return replace(self, width=middle), replace(self, col=self.col + middle, width=self.width - middle)
        middle = self.height // 2
        return replace(self, height=middle), replace(self, row=self.row + middle, height=self.height - middle)


@dataclass(frozen=True, slots=True)
class Tile:
    """What is written (`core`) and what must be read for it (`window`), both on the PAN grid."""

    core: Window
    window: Window


def tiles(extent: Window, size: int | tuple[int, int], halo: int, stride: int) -> Iterator[Tile]:
    """Cut `extent` into cores of `size` pixels (rows, columns), row by row; each window is its core grown by `halo`."""
    rows, cols = (size, size) if isinstance(size, int) else size
    for row in range(extent.row, extent.stop[0], rows):
        for col in range(extent.col, extent.stop[1], cols):
            core = Window(row, col, min(rows, extent.stop[0] - row), min(cols, extent.stop[1] - col))
            yield Tile(core, core.grown(halo, stride))


def spread(extent: Window, size: int, count: int) -> list[Window]:
    """At most `count` windows of up to `size` pixels, evenly spread over `extent`; all of it when it is small."""
    rows, cols = (max(1, math.ceil(n / size)) for n in extent.shape)
    keep_rows, keep_cols = rows, cols
    while keep_rows * keep_cols > count:
        if keep_rows >= keep_cols:
            keep_rows -= 1
        else:
            keep_cols -= 1
    windows = []
    for r in range(keep_rows):
        for c in range(keep_cols):
            row, col = int((r + 0.5) * rows / keep_rows) * size, int((c + 0.5) * cols / keep_cols) * size
            height, width = min(size, extent.height - row), min(size, extent.width - col)
            windows.append(Window(extent.row + row, extent.col + col, height, width))
    return windows
