"""Parts shared by the UNet and the fusion head; every one looks at a pixel and its finite neighbourhood only."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossdiff_cli.imaging.memory import may_overwrite
from crossdiff_cli.model.spectral import EMBEDDING_WIDTH, Spectrum, embed_wavelengths


def pixel_rms(x: Tensor) -> Tensor:
    """RMS over the channels of each pixel, and a little: (B, C, H, W) to (B, 1, H, W).

    No statistic crosses pixels, whatever the tile.
    """
    return torch.linalg.vector_norm(x, dim=1, keepdim=True) / math.sqrt(x.shape[1]) + 1e-2


def convolve(conv: nn.Module, x: Tensor) -> Tensor:
    """Apply an `nn.Conv2d` in the precision of `x` (B, C, H, W), whatever that of its weights."""
    assert isinstance(conv, nn.Conv2d)
    bias = None if conv.bias is None else conv.bias.to(x.dtype)
    return F.conv2d(x, conv.weight.to(x.dtype), bias, conv.stride, conv.padding)


class Conditioning(nn.Module):
    """One vector for timestep, GSD ratio and PAN range; the same for every pixel of a scene."""

    def __init__(self, width: int) -> None:
        """`width` of the vector."""
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(2 * EMBEDDING_WIDTH + 2, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )

    def forward(self, timestep: Tensor, spectrum: Spectrum) -> Tensor:
        """Return (B, width) for `timestep` (B,) in [-1, 1], as `UNet.encode`."""
        half = EMBEDDING_WIDTH // 2
        omega = torch.exp(torch.linspace(0.0, math.log(1000.0), half, device=timestep.device))
        phase = timestep[:, None].float() * omega
        pan_low, pan_high = spectrum.pan_nm
        pan = embed_wavelengths(((pan_low + pan_high) / 2)[None], (pan_high - pan_low)[None])
        log_ratio = math.log2(spectrum.ratio)
        ratio = torch.tensor([[log_ratio - 2.0, (log_ratio - 2.0) ** 2]], device=timestep.device)
        scene = torch.cat([pan, ratio], dim=1).expand(len(timestep), -1)
        embedded: Tensor = self.mlp(torch.cat([phase.sin(), phase.cos(), scene], dim=1))
        return embedded


class ResBlock(nn.Module):
    """x + conv(silu(conv(norm(x)) * (1 + scale) + shift)), scale and shift from the conditioning vector."""

    RADIUS = 2

    def __init__(self, width: int, condition_width: int) -> None:
        """`width` channels in and out."""
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.film = nn.Linear(condition_width, 2 * width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)
        nn.init.normal_(self.conv2.weight, std=0.3 / math.sqrt(9 * width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """`x` (B, width, H, W), `condition` (B, condition_width)."""
        h = x / pixel_rms(x)
        if len(condition) == 1:
            # The same for every pixel: it goes into the kernels.
            weight, bias = self.modulated(condition)
            h = F.conv2d(h, weight.to(h.dtype), bias.to(h.dtype), padding=1)
        else:
            scale, shift = self.film(condition).to(x.dtype)[:, :, None, None].chunk(2, dim=1)
            h = torch.addcmul(shift, convolve(self.conv1, h), 1 + scale)
        return convolve(self.conv2, silu(h)).add_(x)

    def modulated(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Weight and bias of the first convolution for a conditioning vector (1, condition_width)."""
        assert self.conv1.bias is not None
        scale, shift = self.film(condition)[0].float().chunk(2)
        return self.conv1.weight * (1 + scale)[:, None, None, None], self.conv1.bias * (1 + scale) + shift


def add_projected(onto: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """`onto` + a 1x1 convolution of `x` (B, C, H, W) by `weight` (D, C, 1, 1): (B, D, H, W).

    Where no gradient is asked for, in place and as one product of matrices: half the time of both steps.
    """
    if not may_overwrite() or not onto.is_contiguous(memory_format=torch.channels_last):
        return onto + F.conv2d(x, weight.to(x.dtype))
    pixels = onto.permute(0, 2, 3, 1).view(-1, onto.shape[1])
    pixels.addmm_(x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]), weight.flatten(1).T.to(x.dtype))
    return onto


def silu(x: Tensor) -> Tensor:
    """SiLU, in place where no gradient is asked for: `x` is no longer needed."""
    return F.silu(x, inplace=may_overwrite())


def in_place(x: Tensor) -> Tensor | None:
    """Where to put what is made of `x`, which is no longer needed: over it where no gradient is asked for."""
    return x if may_overwrite() else None


def compact(image: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return a channels-last copy, with strides that say so, in `dtype`; None keeps that of the image.

    For a single channel `Tensor.contiguous` would leave the strides as they are, convolutions would answer in the other
    layout, and every sum of the two would cost ten times its time.
    """
    image = image.to(dtype or image.dtype)  # first: turned round in half of the bytes
    return torch.empty_like(image, memory_format=torch.channels_last).copy_(image)
