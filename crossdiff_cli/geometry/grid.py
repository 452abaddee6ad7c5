"""How the MS grid lies on the PAN grid: ratio, offset and common footprint. Geometry only, no pixels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from affine import Affine

from crossdiff_cli.geometry.window import Window

Pixels = tuple[float, float]
"""Rows and columns."""

_ROTATION_PX = 0.05
"""A rotation or shear that moves no MS pixel by more than this many PAN pixels is none."""
_NOISE_PX = 1e-4
"""Offsets that differ by less are the same, in PAN pixels."""
_DRIFT_PX = 1e-3
"""What rounding the ratio may move the far end of the MS by, in PAN pixels."""


@dataclass(frozen=True, slots=True)
class GridMapping:
    """The MS grid in PAN pixel coordinates: MS pixel (0, 0) has its outer corner at `offset`."""

    ratio: Pixels
    """PAN pixels per MS pixel (rows, columns)."""
    offset: Pixels
    """PAN coordinates (row, column) of the outer corner of MS pixel (0, 0)."""
    band_shifts: tuple[Pixels, ...] = ()
    """How far each band lies from `offset`, in PAN pixels (row, column); empty where all lie alike."""

    def crop(self, part: Window) -> "GridMapping":
        """Return the mapping of a part of the PAN."""
        return replace(self, offset=(self.offset[0] - part.row, self.offset[1] - part.col))

    def at_half_resolution(self) -> "GridMapping":
        """Return the mapping for an image at half the PAN grid."""

        def half(pair: Pixels) -> Pixels:
            return pair[0] / 2, pair[1] / 2

        return GridMapping(half(self.ratio), half(self.offset), tuple(half(shift) for shift in self.band_shifts))

    def select_bands(self, bands: Sequence[int]) -> "GridMapping":
        """Return the mapping of some of the bands."""
        return replace(self, band_shifts=tuple(self.band_shifts[i] for i in bands) if self.band_shifts else ())

    @property
    def offsets(self) -> tuple[Pixels, ...]:
        """Where each band lies, as `offset`; one for all where they lie alike."""
        row, col = self.offset
        return tuple((row + down, col + right) for down, right in self.band_shifts) or (self.offset,)

    def bands_by_offset(self, count: int) -> list[tuple[Pixels, list[int]]]:
        """Group the indices of `count` bands by their offset on the PAN grid."""
        groups: dict[Pixels, list[int]] = {}
        for band, (row, col) in enumerate(self.band_shifts or ((0.0, 0.0),) * count):
            groups.setdefault((self.offset[0] + row, self.offset[1] + col), []).append(band)
        return list(groups.items())

    @property
    def transform(self) -> Affine:
        """From MS pixels (column, row) to PAN pixels."""
        return Affine.translation(*self.offset[::-1]) @ Affine.scale(*self.ratio[::-1])

    def footprint(self, pan_shape: tuple[int, int], ms_shape: tuple[int, int]) -> Window | None:
        """PAN pixels whose centres lie on the MS, or None when there are none."""
        bounds = []
        for axis in (0, 1):
            first = math.ceil(self.offset[axis] - 0.5 - 1e-6)
            end = math.ceil(self.offset[axis] + ms_shape[axis] * self.ratio[axis] - 0.5 - 1e-6)
            bounds.append((max(first, 0), min(end, pan_shape[axis])))
        (row, end_row), (col, end_col) = bounds
        return Window(row, col, end_row - row, end_col - col) if end_row > row and end_col > col else None

    def ms_window(self, window: Window, margin: int) -> Window:
        """MS pixels that touch a PAN window, grown by `margin`; may reach beyond the image."""
        starts, sizes = [], []
        for axis, (start, stop) in enumerate(zip((window.row, window.col), window.stop, strict=True)):
            first = math.floor((start - self.offset[axis]) / self.ratio[axis]) - margin
            last = math.ceil((stop - self.offset[axis]) / self.ratio[axis]) + margin
            starts.append(first)
            sizes.append(last - first)
        return Window(starts[0], starts[1], sizes[0], sizes[1])

    def local_offset(self, pan_window: Window, ms_window: Window) -> tuple[float, float]:
        """`offset` of an MS window on a PAN window: what `mtf.expand` and `mtf.degrade` take."""
        return (
            self.offset[0] + ms_window.row * self.ratio[0] - pan_window.row,
            self.offset[1] + ms_window.col * self.ratio[1] - pan_window.col,
        )


def map_grids(pan: Affine, ms: Affine, ms_shape: tuple[int, int]) -> GridMapping | None:
    """Relate two geotransforms of one CRS; None when they are rotated, sheared or mirrored against each other."""
    to_pan = ~pan @ ms
    shear = max(abs(to_pan.b) * ms_shape[0], abs(to_pan.d) * ms_shape[1])
    if shear > _ROTATION_PX or to_pan.a <= 0 or to_pan.e <= 0:
        return None
    # What is rounded off a ratio adds up over the image; and one of nearly nothing, in a damaged header, stays one.
    ratio = [
        _tidy(value, _DRIFT_PX / size) or value for value, size in zip((to_pan.e, to_pan.a), ms_shape, strict=True)
    ]
    return GridMapping((ratio[0], ratio[1]), (_tidy(to_pan.f, _NOISE_PX), _tidy(to_pan.c, _NOISE_PX)))


def grid_over(
    pan_shape: tuple[int, int], rows: Pixels, cols: Pixels, ratio: float
) -> tuple[GridMapping, tuple[int, int]]:
    """Coarsen the PAN grid by the integer nearest to `ratio`, where it covers `rows` and `cols` (first, last).

    Returns:
        The grid that an MS is warped to, and its shape.
    """
    whole = max(1, round(ratio))
    starts = [max(0, math.floor(first / whole)) for first, _ in (rows, cols)]
    stops = [min(-(-n // whole), math.ceil(last / whole)) for n, (_, last) in zip(pan_shape, (rows, cols), strict=True)]
    offset = (float(starts[0] * whole), float(starts[1] * whole))
    return GridMapping((float(whole),) * 2, offset), (stops[0] - starts[0], stops[1] - starts[1])


def locate_on_grid(pan: Affine, image: Affine, shape: tuple[int, int]) -> Window | None:
    """Where an image of `shape` (rows, columns) lies on the PAN grid; None unless their pixels coincide."""
    grid = map_grids(pan, image, shape)
    if grid is None:
        return None
    drift = max(abs(ratio - 1) * size for ratio, size in zip(grid.ratio, shape, strict=True))
    row, col = (round(offset) for offset in grid.offset)
    apart = max(abs(grid.offset[0] - row), abs(grid.offset[1] - col))
    return Window(row, col, *shape) if max(drift, apart) <= _ROTATION_PX else None


def same_bounds(pan_shape: tuple[int, int], ms_shape: tuple[int, int]) -> GridMapping:
    """The grid of a pair without georeference, taken to cover the same ground exactly."""
    return GridMapping((pan_shape[0] / ms_shape[0], pan_shape[1] / ms_shape[1]), (0.0, 0.0))


def _tidy(value: float, noise: float) -> float:
    """Round away the noise of geotransform arithmetic, so that ratio 4 is 4."""
    nearest = round(value * 8) / 8
    return nearest if abs(value - nearest) < noise else value
