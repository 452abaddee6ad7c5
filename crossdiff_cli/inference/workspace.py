"""Memory of the largest images, kept from tile to tile: the system would clear every page of it anew."""

import math
import threading

import torch
from torch import Tensor


class Workspace:
    """Room under a name, for each thread; what it held is overwritten when the thread asks for it again."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._room = threading.local()

    def empty(self, name: str, shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return room for a channels-last image.

        Args:
            name: of the room.
            shape: (B, C, H, W).
            dtype: of the image.
            device: of the image; a thread works on one alone.
        """
        batch, channels, height, width = shape
        return self.flat(name, math.prod(shape), dtype, device).view(batch, height, width, channels).permute(0, 3, 1, 2)

    def flat(self, name: str, count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return room for `count` numbers, (count,)."""
        held: Tensor | None = getattr(self._room, name, None)
        if held is None or held.numel() < count * dtype.itemsize or held.device != device:
            held = torch.empty(count * dtype.itemsize, dtype=torch.uint8, device=device)
            setattr(self._room, name, held)
        return held[: count * dtype.itemsize].view(dtype)
