"""Band kernels made from wavelengths, so that one network serves any bands in any number and order."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EMBEDDING_WIDTH = 64
QUALITY_WIDTH = 4
"""Numbers that describe the image quality of a band and of the PAN beside it."""
_SHORTEST_NM, _LONGEST_NM = 100.0, 6000.0
_LEAST_NOISE = 0.003


@dataclass(frozen=True, slots=True)
class ImageQuality:
    """MTF and noise of MS and PAN, as far as the tool knows them."""

    nyquist_gains: Tensor
    """(C,) MTF gain of each MS band at the Nyquist frequency of the MS."""
    ms_noise: Tensor
    """(C,) standard deviation of the noise of each MS band, normalised."""
    pan_nyquist_gain: float
    """MTF gain of the PAN at its Nyquist frequency."""
    pan_noise: float
    """Standard deviation of the noise of the PAN, normalised."""

    @classmethod
    def of(
        cls, nyquist_gains: Sequence[float], ms_noise: Sequence[float], pan_nyquist_gain: float, pan_noise: float
    ) -> Self:
        """Make that of bands with these gains; empty `ms_noise` is none."""
        noise = tuple(ms_noise) or (0.0,) * len(nyquist_gains)
        gains, levels = (torch.tensor(values, dtype=torch.float32) for values in (nyquist_gains, noise))
        return cls(gains, levels, pan_nyquist_gain, pan_noise)

    def described(self) -> Tensor:
        """Return widths of the blur, as sqrt(-ln gain), and logarithms of the noise, centred: (C, QUALITY_WIDTH)."""
        gains, noise = (
            torch.stack([mine, torch.full_like(mine, of_pan)], dim=1)
            for mine, of_pan in ((self.nyquist_gains, self.pan_nyquist_gain), (self.ms_noise, self.pan_noise))
        )
        blur = (-gains.log()).clamp_min(0).sqrt() - 1.2
        return torch.cat([blur, torch.log10(noise + _LEAST_NOISE) + 2], dim=1)


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Wavelengths, PAN range, resolution ratio and image quality of one scene, the conditions of the network."""

    center_nm: Tensor
    """(C,) centre wavelength of each MS band, float32."""
    width_nm: Tensor
    """(C,) full width at half maximum of each MS band."""
    pan_nm: Tensor
    """(2,) lower and upper wavelength of the PAN band."""
    ratio: float
    """MS pixel size over PAN pixel size."""
    quality: ImageQuality | None = None
    """None where it is not known; networks that are told it take it for average then."""

    @classmethod
    def of(
        cls,
        bands: Sequence[tuple[float, float]],
        pan_nm: tuple[float, float],
        ratio: float,
        quality: ImageQuality | None = None,
    ) -> Self:
        """Make the spectrum of bands given as (centre, width) in nm."""
        center, width = (torch.tensor(values, dtype=torch.float32) for values in zip(*bands, strict=True))
        return cls(center, width, torch.tensor(pan_nm, dtype=torch.float32), ratio, quality)

    def to(self, device: torch.device) -> "Spectrum":
        """The same on another device."""
        quality = self.quality and replace(
            self.quality,
            nyquist_gains=self.quality.nyquist_gains.to(device),
            ms_noise=self.quality.ms_noise.to(device),
        )
        center, width, pan_nm = (values.to(device) for values in (self.center_nm, self.width_nm, self.pan_nm))
        return Spectrum(center, width, pan_nm, self.ratio, quality)

    def select_bands(self, bands: Tensor) -> "Spectrum":
        """Return that of some of the bands, in the order of the int64 indices `bands`."""
        quality = self.quality and replace(
            self.quality, nyquist_gains=self.quality.nyquist_gains[bands], ms_noise=self.quality.ms_noise[bands]
        )
        return replace(self, center_nm=self.center_nm[bands], width_nm=self.width_nm[bands], quality=quality)


def embed_wavelengths(center_nm: Tensor, width_nm: Tensor) -> Tensor:
    """Embed bands (N,) as sines and cosines integrated over their Gaussian response: (N, EMBEDDING_WIDTH).

    E[sin(w l)] for l ~ N(center, (width / 2.355)^2) is exp(-w^2 sigma^2 / 2) sin(w center), so that a wide band has no
    component finer than itself (the closed form used by Panopticon, 2503.10845).
    """
    half = EMBEDDING_WIDTH // 2
    scale = torch.linspace(math.log(_SHORTEST_NM), math.log(_LONGEST_NM), half, device=center_nm.device)
    omega = 2 * math.pi / scale.exp()
    damping = torch.exp(-0.5 * (omega * width_nm[:, None] / 2.355) ** 2)
    phase = omega * center_nm[:, None]
    return torch.cat([damping * phase.sin(), damping * phase.cos()], dim=1)


class BandKernels(nn.Module):
    """Generates a weight of `shape` for every band from its wavelength embedding."""

    def __init__(
        self, shape: tuple[int, ...], fan_in: int, *, zero: bool = False, quality: bool = False, hidden: int = 96
    ) -> None:
        """`fan_in` sets the initial scale of the weights; `zero` starts them all at zero.

        With `quality` the MTF and noise of the band and of the PAN have a say as well.
        """
        super().__init__()
        self.shape = shape
        self.hidden = nn.Sequential(nn.Linear(EMBEDDING_WIDTH, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())
        self.quality = zero_linear(hidden) if quality else None
        self.out = nn.Linear(hidden, math.prod(shape))
        nn.init.normal_(self.out.weight, std=0.0 if zero else 2.0 / math.sqrt(hidden * fan_in))
        nn.init.normal_(self.out.bias, std=0.0 if zero else 0.5 / math.sqrt(fan_in))

    def forward(self, spectrum: Spectrum) -> Tensor:
        """Return (C, *shape)."""
        hidden = self.hidden[0](embed_wavelengths(spectrum.center_nm, spectrum.width_nm))
        if self.quality is not None and spectrum.quality is not None:
            hidden = hidden + self.quality(spectrum.quality.described())
        weight: Tensor = self.out(self.hidden[1:](hidden))
        return weight.view(-1, *self.shape)


def zero_linear(width: int) -> nn.Linear:
    """A layer on what `ImageQuality.described` returns, which says nothing at first."""
    with torch.random.fork_rng(devices=[]):  # draws no numbers from the caller's generator
        layer = nn.Linear(QUALITY_WIDTH, width, bias=False)
    nn.init.zeros_(layer.weight)
    return layer


class BandStem(nn.Module):
    """First layer on MS bands: 4x4 stride-two kernels, generated, from the PAN grid to half of it."""

    def __init__(self, width: int, *, quality: bool = False) -> None:
        """`width` is the number of output channels; `quality` as for `BandKernels`."""
        super().__init__()
        self.kernels = BandKernels((width, 4, 4), fan_in=16, quality=quality)

    def beside(self, other: nn.Conv2d, spectrum: Spectrum) -> Tensor:
        """These kernels for C bands and those of `other`, 6x6, for n more images: (width, C + n, 6, 6)."""
        kernels = self.kernels(spectrum) / math.sqrt(len(spectrum.center_nm))
        weight = torch.cat([F.pad(kernels.transpose(0, 1), [1] * 4), other.weight], dim=1)
        return weight.contiguous(memory_format=torch.channels_last)


class BandOutput(nn.Module):
    """Last layer towards MS bands: `maps` values per band and feature, by generated 1x1 kernels.

    They are meant for interpolation to the PAN grid: a kernel for each of the four PAN pixels under a feature would
    make the maps rougher than the features are.
    """

    def __init__(self, width: int, maps: int, *, zero: bool, quality: bool = False) -> None:
        """`width` is the number of input channels; `zero` makes the layer start at zero; `quality` as above."""
        super().__init__()
        self.maps = maps
        self.kernels = BandKernels((maps, width), fan_in=width, zero=zero, quality=quality)

    def forward(self, features: Tensor, spectrum: Spectrum) -> Tensor:
        """(B, width, H/2, W/2) to (B, maps, C, H/2, W/2), float32, map after map: the layout of what follows."""
        weight = self.weight(spectrum)[:, :, None, None].to(features.dtype)
        maps = F.conv2d(features, weight).float().contiguous()
        return maps.view(len(maps), self.maps, -1, *maps.shape[2:])

    def weight(self, spectrum: Spectrum) -> Tensor:
        """Return the generated kernels, (maps * C, width)."""
        return self.kernels(spectrum).transpose(0, 1).flatten(0, 1)
