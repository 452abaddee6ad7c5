"""Normalisation: one affine per image and band, from DN to mean 0 and standard deviation 1."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Normalisation:
    """One affine per band: normalised = (DN - mean) / std, from valid pixels at MS resolution."""

    pan_mean: float
    pan_std: float
    ms_mean: Tensor
    """(C,) float32."""
    ms_std: Tensor
    """(C,) float32, 1 where a band is constant."""

    def select(self, bands: Sequence[int]) -> "Normalisation":
        """Return the affines of some of the bands, in the order given."""
        return replace(self, ms_mean=self.ms_mean[bands], ms_std=self.ms_std[bands])

    def to(self, device: torch.device) -> "Normalisation":
        """Return the same on a device."""
        return replace(self, ms_mean=self.ms_mean.to(device), ms_std=self.ms_std.to(device))

    def normalise_pan(self, pan: Tensor) -> Tensor:
        """DN to normalised, any shape."""
        return (pan - self.pan_mean) / self.pan_std

    def normalise_ms(self, ms: Tensor) -> Tensor:
        """DN (..., C, h, w) to normalised."""
        return (ms - self.ms_mean.to(ms)[:, None, None]) / self.ms_std.to(ms)[:, None, None]

    def denormalise_ms(self, ms: Tensor, bands: Sequence[int] | None = None) -> Tensor:
        """Return (C, H, W), normalised, as DN; or some of the bands, (len(bands), H, W)."""
        if bands is None:
            return ms * self.ms_std.to(ms)[:, None, None] + self.ms_mean.to(ms)[:, None, None]
        data = ms.new_empty(len(bands), *ms.shape[1:])
        for place, band in enumerate(bands):
            torch.addcmul(self.ms_mean[band], ms[band], self.ms_std[band], out=data[place])
        return data
