"""Masked pixels are never data: valid surroundings are extended into them before anything is filtered."""

import torch
import torch.nn.functional as F
from torch import Tensor

from crossdiff_cli.imaging.filters import box_sum

_BLOCK = 4
"""Fine holes are filled from means of blocks of this many pixels; a power of two that divides the network's stride."""


def extend(image: Tensor, mask: Tensor, iterations: int) -> Tensor:
    """Replace masked pixels by the mean of their valid neighbours, growing one pixel a round; farther ones become 0.

    Args:
        image: (B, C, H, W), finite; masked values are ignored.
        mask: (B, 1, H, W), True where valid.
        iterations: how far to grow, in pixels; nothing farther than this can change a pixel.

    Returns:
        (B, C, H, W), equal to `image` where valid.
    """
    known = mask.to(image.dtype)
    image = torch.where(mask, image, torch.zeros((), dtype=image.dtype, device=image.device))
    for _ in range(iterations):
        count, total = box_sum(known, 1), box_sum(image, 1)
        grown = (known == 0) & (count > 0)
        image = torch.where(grown, total / count.clamp_min(1.0), image)
        known = count.clamp(max=1.0)
    return image


def extend_coarse(image: Tensor, mask: Tensor, iterations: int) -> Tensor:
    """As `extend`, in steps of blocks of four pixels: for wide margins at the PAN scale.

    H and W are multiples of four and the window's origin too, so that the blocks are the same for every tile.
    """
    known = mask.to(image.dtype)
    weight = F.avg_pool2d(known, _BLOCK)
    mean = F.avg_pool2d(image * known, _BLOCK) / weight.clamp_min(1e-6)
    filled = extend(mean, weight > 0, iterations)
    return torch.where(mask, image, F.interpolate(filled, scale_factor=_BLOCK, mode="nearest"))


def eroded(mask: Tensor, radius: int) -> Tensor:
    """Return the valid pixels (h, w) more than `radius` pixels from an invalid one and from what lies outside."""
    outside = F.pad(1.0 - mask.float()[None, None], [radius] * 4, value=1.0)
    return F.max_pool2d(outside, 2 * radius + 1, stride=1)[0, 0] == 0
