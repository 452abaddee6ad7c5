"""Parts of a window: what each stage has to compute for the stage after it, and no more."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

STRIDE = 8
"""Height and width of every window are multiples of this, and so are the edges of its parts."""

STRIP = 384
"""Rows of the PAN grid that the stages near its resolution compute at once, so that their images stay small."""


@dataclass(frozen=True, slots=True)
class Region:
    """Rows and columns of a window, in PAN pixels."""

    top: int
    left: int
    bottom: int
    """Row after the last."""
    right: int
    """Column after the last."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.bottom - self.top, self.right - self.left

    @classmethod
    def whole(cls, image: Tensor) -> "Region":
        """All of an image (..., H, W)."""
        return cls(0, 0, image.shape[-2], image.shape[-1])

    def grown(self, margin: int, window: "Region") -> "Region":
        """Widened by `margin` on all sides, then outwards to the stride, as far as the window goes."""
        top, left = ((edge - margin) // STRIDE * STRIDE for edge in (self.top, self.left))
        bottom, right = (-(-(edge + margin) // STRIDE) * STRIDE for edge in (self.bottom, self.right))
        return Region(
            max(top, window.top), max(left, window.left), min(bottom, window.bottom), min(right, window.right)
        )

    def within(self, outer: "Region") -> "Region":
        """The same pixels, counted from the corner of `outer`."""
        return Region(self.top - outer.top, self.left - outer.left, self.bottom - outer.top, self.right - outer.left)

    def of(self, image: Tensor, scale: int = 1) -> Tensor:
        """These pixels of an image (..., H / scale, W / scale); the edges are multiples of `scale`."""
        return image[..., self.top // scale : self.bottom // scale, self.left // scale : self.right // scale]

    def intersection(self, other: "Region") -> "Region | None":
        """The pixels in both, or None."""
        top, left = max(self.top, other.top), max(self.left, other.left)
        bottom, right = min(self.bottom, other.bottom), min(self.right, other.right)
        return Region(top, left, bottom, right) if top < bottom and left < right else None

    def strips(self, rows: int) -> "Iterator[Region]":
        """Cut into the fewest strips of at most `rows` rows, a multiple of the stride, as alike as they can be."""
        height = self.bottom - self.top
        count = -(-height // rows)
        rows = -(-height // (count * STRIDE)) * STRIDE
        for top in range(self.top, self.bottom, rows):
            yield Region(top, self.left, min(top + rows, self.bottom), self.right)


Part = Callable[[Region], Tensor]
"""An image of a window that is made where it is asked for: (B, C, rows, columns), channels-last."""


def empty_like_part(image: Tensor, part: Region, scale: int) -> Tensor:
    """Room for a part, at 1 / `scale` of the PAN grid, of what `image` is a piece of."""
    rows, columns = part.shape
    shape = (len(image), image.shape[1], rows // scale, columns // scale)
    return torch.empty(shape, dtype=image.dtype, device=image.device, memory_format=torch.channels_last)


def compact(image: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return a channels-last copy, with strides that say so, in `dtype`; None keeps that of the image.

    For a single channel `Tensor.contiguous` would leave the strides as they are, convolutions would answer in the other
    layout, and every sum of the two would cost ten times its time.
    """
    image = image.to(dtype or image.dtype)  # first: turned round in half of the bytes
    return torch.empty_like(image, memory_format=torch.channels_last).copy_(image)
