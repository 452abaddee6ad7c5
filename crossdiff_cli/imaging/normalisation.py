"""Normalisation: one affine per image and band, from DN to mean 0 and standard deviation 1."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

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

    def normalise_pan(self, pan: Tensor) -> Tensor:
        """DN to normalised, any shape."""
        return (pan - self.pan_mean) / self.pan_std

    def normalise_ms(self, ms: Tensor) -> Tensor:
        """DN (..., C, h, w) to normalised."""
        return (ms - self.ms_mean.to(ms)[:, None, None]) / self.ms_std.to(ms)[:, None, None]

    def denormalise_ms(self, ms: Tensor) -> Tensor:
        """Normalised (..., C, H, W) to DN."""
        return ms * self.ms_std.to(ms)[:, None, None] + self.ms_mean.to(ms)[:, None, None]
