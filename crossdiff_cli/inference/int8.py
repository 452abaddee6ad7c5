"""Residual blocks in int8, which CPUs with VNNI multiply four times as fast as float32.

Activations are u8 with one scale for a layer, weights s8 with one for each output channel (Jacob et al. 2018,
arXiv 1712.05877); sums are exact. All else stays in float32: what a block adds to is not rounded.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from crossdiff_cli.model.blocks import ResBlock, pixel_rms

_HEADROOM = 1.5
"""Range that activations get, over what they reach in the window that was looked at."""
_ZERO = 128
"""What stands for zero where numbers are as often below it as above."""
_LEAST_SILU = 0.2785
"""SiLU is nowhere below minus this."""
_GEOMETRY = ([1, 1], [1, 1], [1, 1], 1)
"""Stride, padding, dilation and groups of the convolutions."""


class Int8Conv:
    """3x3 convolution of a u8 image by s8 kernels; a pixel of value q stands for `scale` (q - `zero`)."""

    def __init__(self, weight: Tensor, bias: Tensor | None, scale: float, zero: int) -> None:
        """Round `weight` (C, C, 3, 3)."""
        self.scale, self.zero = scale, zero
        self._scales = weight.abs().amax(dim=(1, 2, 3)).clamp_min(1e-12) / 127
        self._zeros = torch.zeros(len(weight), dtype=torch.int64)
        self._bias = bias
        whole = torch.round(weight / self._scales[:, None, None, None]).to(torch.int8)
        self._packed = torch.ops.onednn.qconv_prepack(whole, self._scales, scale, zero, *_GEOMETRY, None)

    def __call__(self, image: Tensor, then: "Int8Conv | None" = None) -> Tensor:
        """(1, C, H, W), u8 to float32; or through SiLU to the u8 that `then` takes."""
        kind, scale, zero = (torch.float32, 1.0, 0) if then is None else (torch.uint8, then.scale, then.zero)
        return torch.ops.onednn.qconv2d_pointwise(
            image, self.scale, self.zero, self._packed, self._scales, self._zeros, self._bias, *_GEOMETRY,
            scale, zero, kind, "none" if then is None else "swish", [], "",
        )  # fmt: skip


class Int8Block:
    """A `ResBlock` for one conditioning vector; the first image that it is given fixes the ranges of its numbers.

    The norm before each block keeps them nearly alike from scene to scene, and from sensor to sensor. It overwrites
    what it is given, as `layers.Block` does.
    """

    def __init__(self, block: ResBlock, condition: Tensor, dtype: torch.dtype) -> None:
        """Fold `block`, whose images are float32."""
        assert dtype == torch.float32
        self._first = tuple(parameter.detach() for parameter in block.modulated(condition))
        self._second = block.conv2.weight.detach(), block.conv2.bias
        self._convs: tuple[Int8Conv, Int8Conv] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """(1, width, H, W), which becomes the result."""
        if self._convs is None:
            return self._observe(x)
        first, second = self._convs
        image = (x / (pixel_rms(x) * first.scale)).add_(_ZERO + 0.5).clamp_(0, 255).to(torch.uint8)
        return second(first(image, second)).add_(x)

    def _observe(self, x: Tensor) -> Tensor:
        weight, bias = self._first
        h = x / pixel_rms(x)
        first = Int8Conv(weight, bias, _HEADROOM * float(h.abs().amax()) / (_ZERO - 1), _ZERO)
        h = F.silu(F.conv2d(h, weight, bias, padding=1))
        scale = (_HEADROOM * float(h.amax().clamp_min(_LEAST_SILU)) + _LEAST_SILU) / 255
        self._convs = first, Int8Conv(*self._second, scale, round(_LEAST_SILU / scale))
        return F.conv2d(h, *self._second, padding=1).add_(x)
