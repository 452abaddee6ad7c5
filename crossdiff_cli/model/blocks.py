"""Parts shared by the UNet and the fusion head; every one looks at a pixel and its finite neighbourhood only."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossdiff_cli.model.spectral import EMBEDDING_WIDTH, Spectrum, embed_wavelengths, zero_linear


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
    """One vector for timestep, GSD ratio, PAN range and image quality; the same for every pixel of a scene."""

    def __init__(self, width: int, *, quality: bool = False) -> None:
        """`width` of the vector; with `quality` the MTF and noise of the PAN, and of the MS in the mean, go into it."""
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(2 * EMBEDDING_WIDTH + 2, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )
        self.quality = zero_linear(width) if quality else None

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
        hidden = self.mlp[0](torch.cat([phase.sin(), phase.cos(), scene], dim=1))
        if self.quality is not None and spectrum.quality is not None:
            hidden = hidden + self.quality(spectrum.quality.described().mean(dim=0))
        embedded: Tensor = self.mlp[1:](hidden)
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
        return x + convolve(self.conv2, F.silu(h))

    def modulated(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Weight and bias of the first convolution for a conditioning vector (1, condition_width)."""
        assert self.conv1.bias is not None
        scale, shift = self.film(condition)[0].float().chunk(2)
        return self.conv1.weight * (1 + scale)[:, None, None, None], self.conv1.bias * (1 + scale) + shift


def upsample2(x: Tensor) -> Tensor:
    """Bilinear to twice the size, (B, C, H, W) to (B, C, 2H, 2W); reaches one pixel to each side."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
