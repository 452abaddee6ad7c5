"""DN in float32 to the data type of a file: rounded, clipped, with nodata that no valid pixel takes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def to_dtype(data: NDArray[np.float32], mask: NDArray[np.bool_], dtype: str, nodata: float | None) -> NDArray[Any]:
    """Round to the nearest DN of `dtype`; masked pixels become nodata, and no valid pixel does (it moves by one).

    Args:
        data: (bands, rows, cols), DN.
        mask: (rows, cols), True where valid.
        dtype: name of the output type.
        nodata: value of masked pixels, None for 0.
    """
    kind = np.dtype(dtype)
    fill = 0.0 if nodata is None else nodata
    if kind.kind in "ui":
        info = np.iinfo(kind)
        # float32 holds every integer of two bytes, and one in between.
        whole = np.rint(data, dtype=np.float32 if kind.itemsize <= 2 and data.dtype == np.float32 else np.float64)
        np.clip(whole, info.min, info.max, out=whole)
        if nodata is not None:
            beside = nodata + 1 if nodata < info.max else nodata - 1
            whole[whole == nodata] = beside
        out = whole.astype(kind)
    else:
        out = data.astype(kind)
        if nodata is not None and not np.isnan(nodata):
            out[out == kind.type(nodata)] = np.nextafter(kind.type(nodata), kind.type(np.inf))
    out[:, ~mask] = fill
    return out


def count_clipped(data: NDArray[np.float32], mask: NDArray[np.bool_], dtype: str) -> int:
    """Return how many values of valid pixels `to_dtype` clips; arguments as there."""
    kind = np.dtype(dtype)
    if kind.kind not in "ui":
        return 0
    info = np.iinfo(kind)
    return int(np.count_nonzero(((data < info.min - 0.5) | (data > info.max + 0.5)) & mask))
