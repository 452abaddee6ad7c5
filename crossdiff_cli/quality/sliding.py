"""Filters over whole sliding windows, and which of those windows hold no masked pixel."""

import torch
from torch import Tensor


def slide(image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Correlate (bands, height, width) with the outer product of two 1-D kernels, whole windows only, stride one."""
    for axis, kernel in ((1, rows), (2, columns)):
        n = image.shape[axis] - len(kernel) + 1
        total = image.narrow(axis, 0, n) * kernel[0]
        for tap in range(1, len(kernel)):
            total.add_(image.narrow(axis, tap, n), alpha=float(kernel[tap]))
        image = total
    return image


def window_sums(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Sums over all whole windows of `size` (rows, columns) of (bands, height, width); stride one."""
    return slide(image, torch.ones(size[0]), torch.ones(size[1]))


def full_windows(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Which windows lie on valid pixels only: bool (height - size + 1, width - size + 1)."""
    return window_sums((~mask)[None].double(), size)[0] == 0
