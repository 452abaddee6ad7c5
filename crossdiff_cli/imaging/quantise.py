"""DN in float32 to the data type of a file: rounded, clipped, with nodata that no valid pixel takes."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_dtype(data: Tensor, mask: Tensor | None, dtype: str, nodata: float | None) -> Tensor:
    """Round to the nearest DN of `dtype`; masked pixels become nodata, and no valid pixel does (it moves by one).

    Args:
        data: (bands, rows, cols), DN, float32; it is overwritten.
        mask: (rows, cols), True where valid; None where all are.
        dtype: name of the output type.
        nodata: value of masked pixels, None for 0.
    """
    kind, target = np.dtype(dtype), getattr(torch, dtype)
    if kind.kind in "ui":
        info = np.iinfo(kind)
        # float32 holds every integer of two bytes, and one in between.
        whole = (data if kind.itemsize <= 2 else data.double()).round_().clamp_(info.min, info.max)
        beside = None if nodata is None else nodata + 1 if nodata < info.max else nodata - 1
    else:
        whole = data.to(target)
        named = nodata is not None and not np.isnan(nodata)
        beside = float(np.nextafter(kind.type(nodata), kind.type(np.inf))) if named else None
    if nodata is not None and beside is not None:
        whole.masked_fill_(whole == nodata, beside)
    if mask is not None:
        whole.masked_fill_(~mask, 0.0 if nodata is None else nodata)
    return whole.to(target)


def array_to_dtype(
    data: NDArray[np.float32], mask: NDArray[np.bool_], dtype: str, nodata: float | None
) -> NDArray[Any]:
    """Do as `to_dtype` with arrays, and leave `data` as it is."""
    found: NDArray[Any] = to_dtype(torch.from_numpy(data).clone(), torch.from_numpy(mask), dtype, nodata).numpy()
    return found


def count_clipped(data: Tensor, mask: Tensor | None, dtype: str) -> Tensor:
    """Return how many values of valid pixels `to_dtype` clips, as a tensor; arguments as there."""
    kind = np.dtype(dtype)
    if kind.kind not in "ui":
        return torch.zeros((), dtype=torch.int64, device=data.device)
    info = np.iinfo(kind)
    outside = (data < info.min - 0.5) | (data > info.max + 0.5)
    return (outside if mask is None else outside & mask).sum()
