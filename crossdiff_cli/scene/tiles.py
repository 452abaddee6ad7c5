"""Windows and tiles: integers only, no pixels."""

import math
from collections.abc import Iterator
from dataclasses import dataclass


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

    def within(self, outer: "Window") -> tuple[slice, slice]:
        """Slices of this window in an array that holds `outer`."""
        row, col = self.row - outer.row, self.col - outer.col
        return slice(row, row + self.height), slice(col, col + self.width)

    def grown(self, margin: int, stride: int = 1) -> "Window":
        """Widened by `margin` on all sides, then outwards until origin and size are multiples of `stride`."""
        row, col = ((v - margin) // stride * stride for v in (self.row, self.col))
        end_row, end_col = (math.ceil((v + margin) / stride) * stride for v in self.stop)
        return Window(row, col, end_row - row, end_col - col)


@dataclass(frozen=True, slots=True)
class Tile:
    """What is written (`core`) and what must be read for it (`window`), both on the PAN grid."""

    core: Window
    window: Window


def tiles(extent: Window, size: int, halo: int, stride: int) -> Iterator[Tile]:
    """Cut `extent` into cores of `size` pixels, row by row; each window is its core grown by at least `halo`."""
    for row in range(extent.row, extent.stop[0], size):
        for col in range(extent.col, extent.stop[1], size):
            core = Window(row, col, min(size, extent.stop[0] - row), min(size, extent.stop[1] - col))
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
