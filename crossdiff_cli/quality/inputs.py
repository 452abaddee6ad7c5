"""What is judged: a result, its PAN and MS, perhaps a reference, each behind a reader of windows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from crossdiff_cli.errors import SceneError
from crossdiff_cli.geometry.grid import GridMapping
from crossdiff_cli.geometry.window import Window
from crossdiff_cli.quality.windows import all_valid, zero_masked

Reader = Callable[[Window], tuple[Tensor, Tensor]]
"""Reads a window of an image: (bands, rows, columns), any float type, and a bool mask (rows, columns), True = valid."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A result and what it is judged by.

    Attributes:
        fused: reader of the result, on the PAN grid.
        pan: reader of PAN, one band.
        ms: reader of the MS, on the MS grid.
        shape: rows and columns of the PAN grid.
        ms_shape: rows and columns of the MS grid.
        grid: how the MS grid lies on the PAN grid; nominally, unless the judge was asked to register.
        gains: Nyquist gain of the MTF of each MS band.
        reference: reader of the true result, on the PAN grid; None if there is none.
        data_range: highest minus lowest value, for PSNR and SSIM; None takes that of the reference.
        table_gains: those of the sensor table, where `gains` are others: what goes by the MTF is then judged by both.
    """

    fused: Reader
    pan: Reader
    ms: Reader
    shape: tuple[int, int]
    ms_shape: tuple[int, int]
    grid: GridMapping
    gains: tuple[float, ...]
    reference: Reader | None = None
    data_range: float | None = None
    table_gains: tuple[float, ...] | None = None


def read(reader: Reader, window: Window) -> tuple[Tensor, Tensor]:
    """Read in float64, what is masked or not finite set to zero and masked."""
    image, mask = reader(window)
    mask = mask & image.isfinite().all(0)
    return zero_masked(image, mask), mask


def judged_arrays(
    fused: Tensor,
    pan: Tensor,
    ms: Tensor,
    grid: GridMapping,
    gains: Sequence[float],
    mask: Tensor | None,
    reference: Tensor | None,
) -> Judged:
    """Put arrays in memory behind readers; arguments as in `assess_arrays`.

    Raises:
        SceneError: shapes that do not fit together.
    """
    _check_shapes(fused, pan, ms, gains, mask, reference)
    shape, ms_shape = (fused.shape[1], fused.shape[2]), (ms.shape[1], ms.shape[2])
    valid = torch.ones(shape, dtype=torch.bool) if mask is None else mask
    return Judged(
        fused=_array_reader(fused, valid),
        pan=_array_reader(pan, valid),
        ms=_array_reader(ms, ms_mask(valid, ms_shape, grid)),
        shape=shape,
        ms_shape=ms_shape,
        grid=grid,
        gains=tuple(gains) * len(ms) if len(gains) == 1 else tuple(gains),
        reference=None if reference is None else _array_reader(reference, valid),
    )


def _check_shapes(
    fused: Tensor, pan: Tensor, ms: Tensor, gains: Sequence[float], mask: Tensor | None, reference: Tensor | None
) -> None:
    rows, columns = fused.shape[1:]
    if tuple(pan.shape) != (1, rows, columns):
        raise SceneError(
            f"the result has {rows} x {columns} pixels, PAN {pan.shape[0]} band(s) of {pan.shape[1]} x {pan.shape[2]}: "
            "give the PAN that it was sharpened with"
        )
    if len(fused) != len(ms):
        raise SceneError(f"the result has {len(fused)} bands, the MS {len(ms)}: give the MS that it was made from")
    if len(gains) not in (1, len(ms)):
        raise SceneError(f"{len(gains)} Nyquist gains for {len(ms)} MS bands: give one each, or one for all")
    if mask is not None and tuple(mask.shape) != (rows, columns):
        raise SceneError(f"the mask has {tuple(mask.shape)} pixels, the result {rows} x {columns}: they must agree")
    if reference is not None and reference.shape != fused.shape:
        raise SceneError(
            f"the reference has {len(reference)} bands of {reference.shape[1]} x {reference.shape[2]} pixels, "
            f"the result {len(fused)} of {rows} x {columns}: give one with the same bands on the same grid"
        )


def _array_reader(image: Tensor, mask: Tensor) -> Reader:
    whole = Window(0, 0, *mask.shape)

    def read_part(window: Window) -> tuple[Tensor, Tensor]:
        part = window.within(whole)
        return image[:, *part], mask[part]

    return read_part


def ms_mask(mask: Tensor, ms_shape: tuple[int, int], grid: GridMapping) -> Tensor:
    """MS pixels under which no PAN pixel is masked: bool `ms_shape`."""
    edges = []
    for axis in (0, 1):
        corner = grid.offset[axis] + torch.arange(ms_shape[axis] + 1, dtype=torch.float64) * grid.ratio[axis]
        edges.append((corner[:-1].floor().long(), corner[1:].ceil().long()))
    return all_valid(mask, edges[0], edges[1])
