"""Wald pairs: scenes one ratio down, by MTFs and with noise as the scene itself or other sensors have them."""

import math
from dataclasses import replace

import torch
from torch import Generator, Tensor

from crossdiff_cli.geometry.grid import GridMapping
from crossdiff_cli.imaging.resample import degrade
from crossdiff_cli.imaging.sensor_model import SensorModel
from crossdiff_cli.model.spectral import ImageQuality
from crossdiff_cli.training.training_scene import TrainingScene

_NOISIEST = 1.3
"""Largest noise of a pair with the noise of its scene, over that of its scene."""
_NOISELESS = 0.3
"""Share of the pairs to which none is added."""
_OWN_PAN, _OWN_NOISE = 0.35, 0.5
"""Shares of the pairs for any sensor whose PAN has the MTF of the scene, and of those with noise whose noise it is."""
_PAN_GAINS = (0.06, 0.85)
"""Nyquist gains that those of other PANs are drawn from, evenly in the logarithm."""
_GAIN_SPREAD, _BAND_SPREAD = 0.25, 0.15
"""Standard deviation of the logarithm of the gains of pairs for any sensor about those of the scene, all bands alike,
and of gain and noise over the bands.

They stay near those of the scene: the truth is as sharp as its MS, and the network is to learn to sharpen to that.
"""
_NOISE_LEVELS = (0.003, 0.12)
"""Standard deviations that the noise of the others is drawn from, evenly in the logarithm."""
_PAN_GAIN_ERROR, _GAIN_ERROR, _NOISE_ERROR = 0.2, 0.1, 0.15
"""Standard deviations of the logarithms of the gain of the PAN, of those of the bands, and of the noise, as told."""


def draw_wald_pair(scene: TrainingScene, generator: Generator, *, one_sensor: bool) -> TrainingScene:
    """Return the Wald pair at a random grid phase, without noise.

    With `one_sensor` its ratio and MTFs are those of the scene, the gain of the PAN as uncertain as its estimate.
    Otherwise the ratio is 2, 3 or 4 in half of the pairs, and MTFs are those of other sensors too.
    """
    ratio = scene.spectrum.ratio
    if not one_sensor and uniform(generator) < 0.5:
        ratio = float(torch.randint(2, 5, (1,), generator=generator))
    gains, pan_gain = scene.sensor_model.nyquist_gains, scene.pan_gain * varied(_PAN_GAIN_ERROR, generator)
    if not one_sensor:
        common = varied(_GAIN_SPREAD, generator)
        gains = tuple(_within(common * gain * varied(_BAND_SPREAD, generator)) for gain in gains)
        if uniform(generator) >= _OWN_PAN:
            pan_gain = log_uniform(*_PAN_GAINS, generator)
    offset = (uniform(generator) * ratio - ratio, uniform(generator) * ratio - ratio)
    return wald_pair(scene, ratio, offset, gains, _within(pan_gain))


def wald_pair(
    scene: TrainingScene,
    ratio: float,
    offset: tuple[float, float],
    gains: tuple[float, ...] | None = None,
    pan_gain: float | None = None,
) -> TrainingScene:
    """Return the scene one ratio down: PAN and MS degraded by their MTFs, the MS as reference.

    Args:
        scene: with an MS that is large enough.
        ratio: of the pair.
        offset: where the outer corner of the degraded MS lies, in pixels of the MS.
        gains: Nyquist gain of each band; those of the scene if None.
        pan_gain: that of the PAN; that of the scene if None.
    """
    gains, pan_gain = gains or scene.sensor_model.nyquist_gains, pan_gain or scene.pan_gain
    rows, cols = scene.ms_mask.shape
    grid = scene.sensor_model.grid
    pan = degrade(scene.pan, (rows, cols), grid.ratio, grid.offset, [pan_gain])
    seen = degrade(scene.pan_mask[None, None].float(), (rows, cols), grid.ratio, grid.offset, [0.3])
    small = (math.ceil((rows - offset[0]) / ratio), math.ceil((cols - offset[1]) / ratio))
    ms = degrade(scene.ms, small, (ratio, ratio), offset, gains)
    mask = degrade(scene.ms_mask[None, None].float(), small, (ratio, ratio), offset, [0.3])[0, 0] > 0.999
    quality = ImageQuality.of(gains, (), pan_gain, 0.0)
    return replace(
        scene,
        pan=pan,
        pan_mask=scene.ms_mask & (seen[0, 0] > 0.999),
        ms=ms,
        ms_mask=mask,
        sensor_model=SensorModel(GridMapping((ratio, ratio), offset), gains, intensity=scene.sensor_model.intensity),
        spectrum=replace(scene.spectrum, ratio=ratio, quality=quality),
        reference=scene.ms,
    )


def draw_noise(scene: SensorModel, generator: Generator, *, one_sensor: bool) -> tuple[float, tuple[float, ...]]:
    """Return a level of the noise of the PAN and of each band, normalised; 0 for `_NOISELESS` of the draws.

    It is up to `_NOISIEST` times that of the scene, and otherwise, unless it must be `one_sensor`, that of another one.
    """
    bands = len(scene.nyquist_gains)
    if uniform(generator) < _NOISELESS:
        return 0.0, (0.0,) * bands
    if one_sensor or uniform(generator) < _OWN_NOISE:
        level = _NOISIEST * uniform(generator)
        return level * scene.pan_noise, tuple(level * noise for noise in scene.ms_noise) or (0.0,) * bands
    common = log_uniform(*_NOISE_LEVELS, generator)
    of_pan = log_uniform(*_NOISE_LEVELS, generator)
    return of_pan, tuple(common * varied(_BAND_SPREAD, generator) for _ in range(bands))


def misjudged(quality: ImageQuality, generator: Generator) -> ImageQuality:
    """Return what an estimate would tell of an image quality: gains and noise with an error."""

    def errors(deviation: float) -> Tensor:
        return torch.exp(deviation * torch.randn(len(quality.nyquist_gains), generator=generator))

    return ImageQuality(
        (quality.nyquist_gains * errors(_GAIN_ERROR)).clamp(0.03, 0.9),
        quality.ms_noise * errors(_NOISE_ERROR),
        _within(quality.pan_nyquist_gain * varied(_PAN_GAIN_ERROR, generator)),
        quality.pan_noise * varied(_NOISE_ERROR, generator),
    )


def uniform(generator: Generator) -> float:
    """Draw a number from 0 to 1."""
    return float(torch.rand(1, generator=generator))


def varied(deviation: float, generator: Generator) -> float:
    """Draw a factor whose logarithm has that standard deviation."""
    return math.exp(deviation * float(torch.randn(1, generator=generator)))


def log_uniform(low: float, high: float, generator: Generator) -> float:
    """Draw a number from `low` to `high`, evenly in the logarithm."""
    return low * (high / low) ** uniform(generator)


def _within(gain: float) -> float:
    return min(max(gain, 0.03), 0.9)
