"""Memory of the largest images, kept from tile to tile: otherwise the system clears all of it for each tile."""

import math
import threading

import torch
from torch import Tensor


class Workspace:
    """Named buffers of each thread; asking for one again gives the same memory and overwrites what it held."""

    def __init__(self) -> None:
        """Hold no buffer yet; each is allocated when it is first asked for."""
        self._buffers = threading.local()

    def empty(self, name: str, shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return a buffer for a channels-last image, with whatever it holds.

        Args:
            name: of the buffer.
            shape: (B, C, H, W).
            dtype: of the image.
            device: of the image; a thread works on one alone.
        """
        batch, channels, height, width = shape
        return self.flat(name, math.prod(shape), dtype, device).view(batch, height, width, channels).permute(0, 3, 1, 2)

    def flat(self, name: str, count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return a buffer of `count` numbers, (count,), with whatever it holds."""
        held: Tensor | None = getattr(self._buffers, name, None)
        if held is None or held.numel() < count * dtype.itemsize or held.device != device:
            held = torch.empty(count * dtype.itemsize, dtype=torch.uint8, device=device)
            setattr(self._buffers, name, held)
        return held[: count * dtype.itemsize].view(dtype)
