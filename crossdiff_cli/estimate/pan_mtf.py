"""Estimate the MTF of the PAN on the scene: how much steeper its power spectrum falls than a power law."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from crossdiff_cli.estimate.matching import SampleWindow
from crossdiff_cli.imaging.resample import Pixels

GAIN_RANGE = (0.05, 0.9)
"""Nyquist gains that are reported; what lies outside is moved to the nearer end."""
_SIDE = 64
"""Side of the windows whose power spectra are averaged, in pixels."""
_SMALL = 3 * _SIDE
"""Side of a sample, in pixels, below which its windows overlap by three quarters: they would be too few otherwise."""
_FIRST = 3
"""Lowest radial frequency that is compared, in cycles per window: below, the detrending shows."""
_MIN_SIGNAL_SHARE = 0.3
"""Share of the power at a frequency that must not be noise."""
_MIN_FREQUENCIES = 12
"""Radial frequencies below which no gain is estimated."""
_EXPONENT, _EXPONENT_STD = 2.4, 0.3
"""Mean and standard deviation, over scenes, of the exponent of the power law."""
_MODEL_ERROR = 0.1
"""Standard deviation of the logarithm of the power about the model."""
_GAINS, _EXPONENTS = 24, 17
"""Number of candidates for the Nyquist gain, and for the exponent."""


@dataclass(frozen=True, slots=True)
class EstimatedPanGain:
    """MTF gain of the PAN at its Nyquist frequency."""

    gain: float
    standard_error: float
    """Standard error of the logarithm of the gain, of this scene alone."""


def estimate_pan_nyquist_gain(samples: Sequence[SampleWindow], ratio: Pixels, noise: float) -> EstimatedPanGain | None:
    """Estimate the Nyquist gain of the PAN from windows of the scene.

    The power spectrum of scenes follows a power law over decades of spatial frequencies (Field 1987, Ruderman 1994).
    The radially averaged spectrum of the PAN is compared with power laws of several exponents, times the square of a
    Gaussian MTF, folded at the Nyquist frequency as sampling does. The gain is the geometric mean over all candidates,
    weighted by their likelihood and by how common the exponent is.

    Args:
        samples: windows of the scene, not normalised.
        ratio: PAN pixels per MS pixel.
        noise: standard deviation of the white noise of the PAN, in its unit.

    Returns:
        None where no window of 64 x 64 pixels is valid, or noise hides the fine structure.
    """
    spectrum = _power_spectrum(samples, ratio)
    if spectrum is None:
        return None
    signal = spectrum - noise**2
    used = (signal > _MIN_SIGNAL_SHARE * spectrum) & (torch.arange(len(spectrum)) >= _FIRST)
    if int(used.sum()) < _MIN_FREQUENCIES:
        return None
    exponents, gains, models = _candidates()
    difference = signal[used].log() - models[:, :, used].log()
    difference = difference - difference.mean(dim=2, keepdim=True)
    unlikely = difference.square().mean(dim=2) / (2 * _MODEL_ERROR**2)
    unlikely = unlikely + ((exponents - _EXPONENT) / _EXPONENT_STD).square()[:, None] / 2
    weights = torch.softmax(-unlikely.flatten(), dim=0).reshape(unlikely.shape).sum(dim=0)
    mean = float((weights * gains.log()).sum())
    variance = float((weights * (gains.log() - mean).square()).sum())
    return EstimatedPanGain(min(max(math.exp(mean), GAIN_RANGE[0]), GAIN_RANGE[1]), math.sqrt(variance))


def _power_spectrum(samples: Sequence[SampleWindow], ratio: Pixels) -> Tensor | None:
    """Return the mean power at radial frequencies of 0 to `_SIDE` / 2 cycles per window: (_SIDE / 2 + 1,) float64.

    Only the half of the windows with most structure counts. White noise of deviation s has the power s^2.
    """
    windows = [_windows(sample, ratio) for sample in samples]
    images = torch.cat(windows) if windows else torch.empty(0, _SIDE, _SIDE)
    if not len(images):
        return None
    hann = torch.hann_window(_SIDE, periodic=False, dtype=torch.float64)
    taper = hann[:, None] * hann
    powers = torch.fft.fft2(_detrended(images.double()) * taper).abs().square() / taper.square().sum()
    radial = _radial_mean(powers)
    structure = radial[:, _FIRST:].sum(dim=1)
    chosen = radial[structure >= structure.median()]
    mean = chosen.mean(dim=0)
    return mean if float(mean[_FIRST:].min()) > 0 else None


def _windows(sample: SampleWindow, ratio: Pixels) -> Tensor:
    """Return the windows of the PAN, half overlapping or more, that lie in valid pixels: (windows, _SIDE, _SIDE)."""
    pan, valid = sample.pan[0, 0], sample.pan_mask(ratio)
    if min(pan.shape) < _SIDE:
        return pan.new_empty(0, _SIDE, _SIDE)

    step = _SIDE // 4 if min(pan.shape) < _SMALL else _SIDE // 2

    def cut(image: Tensor) -> Tensor:
        return image.unfold(0, _SIDE, step).unfold(1, _SIDE, step).reshape(-1, _SIDE, _SIDE)

    return cut(pan)[cut(valid).flatten(1).all(dim=1)]


def _detrended(images: Tensor) -> Tensor:
    """Take mean and slopes out of windows (..., _SIDE, _SIDE)."""
    images = images - images.mean(dim=(-2, -1), keepdim=True)
    ramp = torch.linspace(-1, 1, _SIDE, dtype=images.dtype)
    for plane in (ramp[:, None].expand(_SIDE, _SIDE), ramp.expand(_SIDE, _SIDE)):
        slope = (images * plane).mean(dim=(-2, -1), keepdim=True) / plane.square().mean()
        images = images - slope * plane
    return images


def _radial_mean(powers: Tensor) -> Tensor:
    """Average powers (..., _SIDE, _SIDE) over all directions: (..., _SIDE / 2 + 1)."""
    frequency = torch.fft.fftfreq(_SIDE, dtype=torch.float64)
    radius = (torch.hypot(frequency[:, None], frequency) * _SIDE).round().long().flatten()
    kept = radius <= _SIDE // 2
    counts = torch.bincount(radius[kept], minlength=_SIDE // 2 + 1)
    sums = powers.new_zeros(*powers.shape[:-2], _SIDE // 2 + 1)
    return sums.index_add(-1, radius[kept], powers.flatten(-2)[..., kept]) / counts


@functools.cache
def _candidates() -> tuple[Tensor, Tensor, Tensor]:
    """Exponents (E,), Nyquist gains (G,) and radially averaged model spectra (E, G, _SIDE / 2 + 1)."""
    exponents = torch.linspace(1.6, 3.2, _EXPONENTS, dtype=torch.float64)
    gains = torch.logspace(math.log10(0.03), math.log10(0.95), _GAINS, dtype=torch.float64)
    frequency = torch.fft.fftfreq(_SIDE, dtype=torch.float64)
    models = torch.zeros(_EXPONENTS, _GAINS, _SIDE // 2 + 1, dtype=torch.float64)
    for row in (-1, 0, 1):
        for col in (-1, 0, 1):
            squared = (frequency[:, None] + row).square() + (frequency + col).square()
            squared = squared.clamp_min(_SIDE**-2.0)
            law = squared ** (-exponents[:, None, None] / 2)
            mtf = torch.exp(2 * gains.log()[:, None, None] * squared / 0.25)
            models += _radial_mean(law[:, None] * mtf)
    return exponents, gains, models
