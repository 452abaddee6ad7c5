"""Layers whose weights are folded for one scene: no wavelengths, no conditioning vector, one precision.

They overwrite what is no longer needed, and are called in inference mode alone. Images are channels-last.
"""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossdiff_cli.model.blocks import ResBlock, pixel_rms

MakeBlock = Callable[[ResBlock, Tensor, torch.dtype], Callable[[Tensor], Tensor]]
"""Folds a residual block for a conditioning vector (1, condition_width), in a precision."""


class Conv:
    """A convolution whose weights are copies in one precision."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, stride: int = 1, padding: int = 0
    ) -> None:
        """`weight` (D, C, k, k) and `bias` (D,) are rounded to `dtype`."""
        self._weight = compact(weight.detach(), dtype)
        self._bias = None if bias is None else bias.detach().to(dtype, copy=True)
        self._stride, self._padding = [stride, stride], [padding, padding]

    @classmethod
    def of(cls, conv: nn.Module, dtype: torch.dtype, *, bias: Tensor | None = None) -> "Conv":
        """Return the same as a square `nn.Conv2d`, or with another bias."""
        assert isinstance(conv, nn.Conv2d) and isinstance(conv.padding, tuple)
        return cls(conv.weight, conv.bias if bias is None else bias, dtype, conv.stride[0], conv.padding[0])

    def __call__(self, x: Tensor) -> Tensor:
        """(1, C, H, W) to (1, D, H', W')."""
        return F.conv2d(x, self._weight, self._bias, self._stride, self._padding)

    def onto(self, x: Tensor, other: Tensor) -> Tensor:
        """Add the convolution of `x` to `other`, in place and, on a CPU, in one pass over the memory."""
        if other.device.type == "cpu" and _fuses_sums(other.dtype):
            geometry = self._padding, self._stride, [1, 1], 1
            fused: Tensor = torch.ops.mkldnn._convolution_pointwise_.binary(
                other, x, self._weight, self._bias, *geometry, "add", 1.0, None, [], None
            )
            return fused
        return other.add_(self(x))


@functools.cache
def _fuses_sums(dtype: torch.dtype) -> bool:
    """Return whether this PyTorch has oneDNN's convolution with a sum, an operator that it does not promise to keep."""
    x, weight, onto = (torch.ones(1, 1, 1, 1, dtype=dtype) for _ in range(3))
    try:
        torch.ops.mkldnn._convolution_pointwise_.binary(
            onto, x, weight, None, [0, 0], [1, 1], [1, 1], 1, "add", 1.0, None, [], None
        )
    except (RuntimeError, AttributeError, TypeError, NotImplementedError):
        return False
    return float(onto) == 2.0


class Block:
    """A `ResBlock` with its scale and shift folded into the first convolution. It overwrites what it is given."""

    def __init__(self, block: ResBlock, condition: Tensor, dtype: torch.dtype) -> None:
        """Fold `block` for a conditioning vector (1, condition_width)."""
        self._first = Conv(*block.modulated(condition), dtype, padding=1)
        self._second = Conv.of(block.conv2, dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """(1, width, H, W), which becomes the result."""
        h = self._first(x / pixel_rms(x))
        return self._second.onto(F.silu(h, inplace=True), x)


def upsample2(x: Tensor) -> Tensor:
    """Bilinear to twice the size, as `model.blocks.upsample2`.

    On a CPU by weighted sums of neighbours along each axis, in the layout and type of `x`: half of the time.
    """
    if x.device.type != "cpu":
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    layout = torch.contiguous_format if x.is_contiguous() else torch.channels_last
    for axis in (2, 3):
        shape = [*x.shape[:axis], 2 * x.shape[axis], *x.shape[axis + 1 :]]
        out = torch.empty(shape, dtype=x.dtype, memory_format=layout)
        count = x.shape[axis] - 1
        left, right = x.narrow(axis, 0, count), x.narrow(axis, 1, count)
        before = (slice(None),) * axis
        torch.lerp(left, right, 0.25, out=out[*before, 1:-1:2])
        torch.lerp(left, right, 0.75, out=out[*before, 2::2])
        out.select(axis, 0).copy_(x.select(axis, 0))
        out.select(axis, -1).copy_(x.select(axis, -1))
        x = out
    return x


def compact(image: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return a channels-last copy, with strides that say so, in `dtype`; None keeps that of the image.

    For a single channel `Tensor.contiguous` would leave the strides as they are, convolutions would answer in the other
    layout, and every sum of the two would cost ten times its time.
    """
    image = image.to(dtype or image.dtype)  # first: turned round in half of the bytes
    return torch.empty_like(image, memory_format=torch.channels_last).copy_(image)


def stacked(images: list[Tensor], dtype: torch.dtype) -> Tensor:
    """Images (1, n, H, W), float32, one after the other as channels of one: channels-last, in `dtype`."""
    first, channels = images[0], sum(image.shape[1] for image in images)
    planes = torch.empty((1, channels, *first.shape[2:]), dtype=dtype, device=first.device)
    start = 0
    for image in images:
        planes[:, start : start + image.shape[1]] = image
        start += image.shape[1]
    return compact(planes)
