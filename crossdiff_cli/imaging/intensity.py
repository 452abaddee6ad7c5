"""Take fluctuations out of the MS that the PAN does not show: aliasing, noise and the jitter of resampled pixels.

The weighted sum of the bands, their intensity, is what the PAN shows at the resolution of the MS. Where both differ
from pixel to pixel, the MS is wrong, unless the PAN sees what no band sees. Component substitution replaces the
intensity by the PAN and so is immune to aliasing (Baronti et al. 2011, doi 10.1109/JSTSP.2011.2104938), at the price of
colours; here only fluctuations within 3 x 3 MS pixels are corrected, by the share of them that is an error of the MS.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from crossdiff_cli.imaging.filters import high_pass, local_mean

RADIUS = 1
"""Radius, in MS pixels, of the windows of the high-pass and of local powers."""
REACH = 2 * RADIUS
"""Radius of the whole correction, in MS pixels."""
NOISE_SHARE = 8 / 9
"""Power of white noise of deviation one in the high-pass."""
_STRENGTH = 0.75
"""Part of the estimated error that is taken out."""


@dataclass(frozen=True, slots=True)
class Intensity:
    """How the normalised bands of a scene make up its normalised PAN."""

    weights: tuple[float, ...]
    """Of each band in the sum that is the PAN."""
    response: tuple[float, ...]
    """Error of each band that goes with an error of one of the intensity, from 0."""
    unexplained: float
    """Share of the power of the PAN that no sum of bands explains."""
    aliased: float
    """Share of the power of the fine intensity that the PAN does not show."""

    def select_bands(self, bands: Sequence[int]) -> "Intensity":
        """Return that of some of the bands, in the order given."""
        weights, response = (tuple(values[band] for band in bands) for values in (self.weights, self.response))
        return Intensity(weights, response, self.unexplained, self.aliased)

    def rescaled(self, factors: Sequence[float]) -> "Intensity":
        """Return that of the bands times `factors`."""
        weights = tuple(weight / factor for weight, factor in zip(self.weights, factors, strict=True))
        response = tuple(value * factor for value, factor in zip(self.response, factors, strict=True))
        return replace(self, weights=weights, response=response)

    def of(self, ms: Tensor) -> Tensor:
        """Return the intensity (B, 1, h, w) of an MS (B, C, h, w)."""
        return _weighted(ms, self.weights)

    def pan(self, pan_ms: Tensor) -> Tensor:
        """Return the PAN (B, 1, h, w) as the bands see it together, of the PAN degraded for each (B, C, h, w)."""
        positive = [max(weight, 0.0) for weight in self.weights]
        total = sum(positive) or 1.0
        return _weighted(pan_ms, [weight / total for weight in positive])


def correct_intensity(
    ms: Tensor,
    pan_ms: Tensor,
    intensity: Intensity | None,
    ms_noise: Sequence[float] = (),
    saturation: Sequence[float] = (),
) -> Tensor:
    """Return the MS without the fluctuations of its intensity that the PAN does not show.

    The difference e of the high-passed intensity and PAN has, in 3 x 3 pixels, the power of what no band sees of the
    PAN (`Intensity.unexplained`), of the noise of the bands, and of aliasing. The linear estimate of the error of a
    band from e has the gain (response * aliasing + weight * noise) / power of e.

    Args:
        ms: (B, C, h, w), normalised.
        pan_ms: (B, C, h, w), the PAN on the MS grid (`sensor_model.pan_on_ms_grid`).
        intensity: of the scene; None returns the MS.
        ms_noise: deviation of the noise of each band; empty where nothing is known of it.
        saturation: of each band; empty where none saturates. Beside a saturated pixel, whose intensity is not known,
            nothing is corrected, and no correction leads beyond it.
    """
    if intensity is None:
        return ms
    own, pan = high_pass(torch.cat([intensity.of(ms), intensity.pan(pan_ms)], dim=1), RADIUS).chunk(2, dim=1)
    error = own - pan
    power, of_pan = local_mean(torch.cat([error, pan], dim=1).square(), RADIUS).chunk(2, dim=1)
    noise = [NOISE_SHARE * std**2 for std in ms_noise or [0.0] * len(intensity.weights)]
    weighted = [weight * own for weight, own in zip(intensity.weights, noise, strict=True)]
    total = sum(weight * own for weight, own in zip(intensity.weights, weighted, strict=True))
    known = intensity.unexplained * of_pan + total
    aliasing = (power - known).clamp_min(0)
    response, of_noise = (ms.new_tensor(values)[:, None, None] for values in (intensity.response, weighted))
    gain = (response * aliasing + of_noise) / (aliasing + known).clamp_min(1e-12)
    corrected = ms - _STRENGTH * gain * error
    if not saturation:
        return corrected
    levels = ms.new_tensor(saturation)[:, None, None]
    beside = F.max_pool2d((ms >= levels).any(dim=1, keepdim=True).to(ms), 2 * RADIUS + 1, stride=1, padding=RADIUS)
    return torch.where(beside > 0, ms, torch.minimum(corrected, levels))


def _weighted(images: Tensor, weights: Sequence[float]) -> Tensor:
    return (images * images.new_tensor(weights)[:, None, None]).sum(dim=1, keepdim=True)
