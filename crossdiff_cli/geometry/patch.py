"""Patch: the pixels of one window of a pair, with their masks."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossdiff_cli.geometry.grid import Pixels
from crossdiff_cli.geometry.window import Window


@dataclass(frozen=True, slots=True)
class Patch:
    """One window of a pair: raw DN, zero where invalid."""

    pan: NDArray[np.float32]
    """(1, H, W)."""
    pan_mask: NDArray[np.bool_]
    """(H, W), True where valid."""
    ms: NDArray[np.float32]
    """(C, h, w)."""
    ms_mask: NDArray[np.bool_]
    """(h, w), True where all bands are valid."""
    offset: Pixels
    """PAN coordinates, within the window, of the outer corner of MS pixel (0, 0) of the window."""
    ratio: Pixels
    """PAN pixels per MS pixel (rows, columns), nominally."""
    window: Window
    """Of the PAN; it may reach beyond the image."""

    @property
    def valid(self) -> NDArray[np.bool_]:
        """PAN pixels that are valid themselves and lie on a valid MS pixel, (H, W)."""
        index = [
            np.floor((np.arange(size) + 0.5 - self.offset[axis]) / self.ratio[axis]).astype(np.int64)
            for axis, size in enumerate(self.pan_mask.shape)
        ]
        rows, cols = (np.clip(i, 0, n - 1) for i, n in zip(index, self.ms_mask.shape, strict=True))
        valid: NDArray[np.bool_] = self.pan_mask & self.ms_mask.take(cols, axis=1).take(rows, axis=0)
        return valid
