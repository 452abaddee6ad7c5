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
            "the PAN does not have the size of the result",
            found=f"{pan.shape[0]} band(s) of {pan.shape[1]} x {pan.shape[2]}",
            expected=f"1 of {rows} x {columns}",
            cure="give the PAN that it was sharpened with",
        )
    if len(fused) != len(ms):
        raise SceneError(
            "the result does not have the bands of the MS",
            found=len(fused),
            expected=len(ms),
            cure="give the MS that it was made from",
        )
    if len(gains) not in (1, len(ms)):
        raise SceneError(
            "the number of Nyquist gains is not that of the MS bands", found=len(gains), expected=f"{len(ms)} or 1"
        )
    if mask is not None and tuple(mask.shape) != (rows, columns):
        raise SceneError(
            "the mask does not have the size of the result", found=tuple(mask.shape), expected=(rows, columns)
        )
    if reference is not None and reference.shape != fused.shape:
        raise SceneError(
            "the reference does not have the bands and the size of the result",
            found=f"{len(reference)} x {reference.shape[1]} x {reference.shape[2]}",
            expected=f"{len(fused)} x {rows} x {columns}",
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
