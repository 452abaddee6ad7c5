"""Fill values that no file declares, and numbers that float32 does not hold, found in samples of an image."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from crossdiff_cli.errors import SceneError
from crossdiff_cli.geometry.window import Window, spread
from crossdiff_cli.io.raster import Raster

_WINDOW, _WINDOWS = 256, 16
"""Side and number of the windows that are looked at."""
_EDGE, _EDGES = 8, 6
"""Depth of the strips along each border, and their number."""
_COLLAR_SHARE = 0.001
"""Share of pixels that are zero in every band above which zero is taken for a collar."""
_USUAL = (-9999.0, -99999.0, -32768.0, -32767.0, -2147483648.0)
"""Fill values by custom; so is any float beyond `_HUGE`."""
_HUGE = 1e19
_REPEATS = 8
"""Pixels of the samples that must have a fill value by custom."""
_LEAST_REST = 0.05
"""Share of the samples that must have other values: of a flat image with a few odd pixels nothing is fill."""
_RUN, _BLOCK = 16, 16
"""Length of a run along the border, and side of a block inside, in pixels, that saturated roofs do not fill."""
_LARGEST_ROUNDING = 1e-3
"""Rounding error of float32, in standard deviations of a band, above which float64 data are refused."""


def detect_undeclared_nodata(pan: Raster, ms: Sequence[Raster]) -> list[str]:
    """Take fill values for nodata in images that declare none; return a warning for each image in which one was found.

    A fill value is repeated exactly in every band, lies far outside the other values (by their 1 and 99 % quantiles)
    and is one by custom (-9999, -32768, +-1e20 and beyond), or fills a run of the border or a block inside. Zero in
    every band of the MS is the black collar, of the PAN too. Saturated pixels are neither far outside nor do they fill
    runs and blocks.
    """
    notes = []
    value, share = (None, 0.0) if any(raster.masked for raster in ms) else _fill_value(ms, zero_is_one=True)
    if value is not None:
        for raster in ms:
            raster.assume_nodata(value)
        notes.append(_note("MS", value, share))
    if not pan.masked:
        if value == 0.0:
            pan.assume_nodata(0.0)
        else:
            own, share = _fill_value([pan], zero_is_one=False)
            if own is not None:
                pan.assume_nodata(own)
                notes.append(_note("PAN", own, share))
    return notes


def check_range(rasters: Sequence[Raster]) -> None:
    """See that float32, in which pixels are processed, holds the values of 32-bit integers and float64.

    Raises:
        SceneError: sampled values are rounded too coarsely; `Raster.read` refuses larger integers elsewhere.
    """
    for raster in rasters:
        raster.exact = True
        if np.dtype(raster.dtype).itemsize < 4 or raster.dtype == "float32":
            continue
        values = [raster.read(window) for window in spread(Window(0, 0, *raster.shape), _WINDOW, _WINDOWS)]
        if np.dtype(raster.dtype).kind != "f":
            continue
        for band in range(raster.count):
            valid = np.concatenate([data[band][mask] for data, mask in values]).astype(np.float64)
            if not len(valid):
                continue
            rounding, deviation = float(np.abs(valid).max()) * 2.0**-24, float(valid.std())
            if deviation > 0 and rounding > _LARGEST_ROUNDING * deviation:
                raise SceneError(
                    "float32, in which pixels are processed, does not hold the values of this float64 image",
                    path=raster.path, found=f"values to {np.abs(valid).max():.9g} that vary by {deviation:.3g}",
                    cure="subtract an offset first",
                )  # fmt: skip


def _note(image: str, value: float, share: float) -> str:
    what = "zero in every band" if value == 0 else f"{value:.8g}, far outside its other values,"
    return (
        f"{100 * share:.1f} % of the {image} is {what} and no nodata value is declared: {value:.8g} is taken for "
        "nodata (--nodata none keeps it as data)"
    )


def _fill_value(rasters: Sequence[Raster], *, zero_is_one: bool) -> tuple[float | None, float]:
    """Return the fill value of images on one grid, or None, and the share of the sampled pixels that have it."""
    kind = np.result_type(*(raster.dtype for raster in rasters)).kind
    inside = [_read(rasters, window) for window in spread(Window(0, 0, *rasters[0].shape), _WINDOW, _WINDOWS)]
    borders = [_read(rasters, window) for window in _border(rasters[0].shape)]
    everything = np.concatenate([data.reshape(len(data), -1) for data in (*inside, *borders)], axis=1)
    pixels = everything[:, : sum(data[0].size for data in inside)]
    known = np.isfinite(everything).all(axis=0)
    finite = everything if known.all() else everything[:, known]
    if not finite.size:
        return None, 0.0
    for value in (float(finite.min()), float(finite.max())):
        same = (finite == value).all(axis=0)
        rest = np.flatnonzero(~same)
        usual = value in _USUAL or (kind == "f" and abs(value) > _HUGE)
        if value == 0.0 or len(rest) < _LEAST_REST * finite.shape[1]:
            continue
        if not _far(value, finite[:, rest[:: max(1, len(rest) // 100_000)]], 1 if usual else 3):
            continue
        if (usual and same.sum() >= _REPEATS) or any(_solid(image == value) for image in (*borders, *inside)):
            return value, float((pixels == value).all(axis=0).mean())
    share = float((pixels == 0).all(axis=0).mean())
    if zero_is_one and share > _COLLAR_SHARE and kind in "uif":
        return 0.0, share
    return None, 0.0


def _read(rasters: Sequence[Raster], window: Window) -> NDArray[np.float32]:
    """Read a window of all bands, (bands, rows, cols), NaN where it is masked."""
    parts = []
    for raster in rasters:
        data, mask = raster.read(window)
        parts.append(np.where(mask, data, np.nan))
    return np.concatenate(parts)


def _border(shape: tuple[int, int]) -> Iterator[Window]:
    """Yield strips along the four borders of an image."""
    rows, cols = shape
    for axis in (0, 1):
        length, depth = (cols, min(_EDGE, rows)) if axis == 0 else (rows, min(_EDGE, cols))
        size = min(_WINDOW, length)
        for start in {round((length - size) * n / max(_EDGES - 1, 1)) for n in range(_EDGES)}:
            for first in {0, shape[axis] - depth}:
                yield Window(first, start, depth, size) if axis == 0 else Window(start, first, size, depth)


def _far(value: float, rest: NDArray[np.float32], times: float) -> bool:
    """Return whether a value lies outside the 1 and 99 % quantiles of the rest by so many times their distance."""
    low, high = np.quantile(rest.astype(np.float64), [0.01, 0.99])
    return bool(value < low - times * (high - low) or value > high + times * (high - low))


def _solid(same: NDArray[np.bool_]) -> bool:
    """Return whether pixels (bands, rows, cols) fill a run of a strip along the border, or a block."""
    filled: NDArray[np.bool_] = np.logical_and.reduce(same, axis=0)
    rows, cols = filled.shape
    depth = min(rows, cols)
    if depth <= _EDGE:
        line = np.logical_and.reduce(filled, axis=0 if rows == depth else 1)
        return bool(len(line) >= _RUN and np.convolve(line, np.ones(_RUN), "valid").max() >= _RUN)
    if depth < _BLOCK:
        return False
    whole = filled[: rows // _BLOCK * _BLOCK, : cols // _BLOCK * _BLOCK]
    blocks = whole.reshape(rows // _BLOCK, _BLOCK, cols // _BLOCK, _BLOCK).all(axis=(1, 3))
    return bool(blocks.any() or filled.all(axis=1).any())
