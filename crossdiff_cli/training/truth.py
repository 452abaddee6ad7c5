"""Read sharp multispectral images without a PAN, and make Wald pairs with a simulated PAN of them."""

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Generator

from crossdiff_cli.errors import TrainingError
from crossdiff_cli.estimate.matching import SampleWindow
from crossdiff_cli.estimate.pan_mtf import estimate_pan_nyquist_gain
from crossdiff_cli.geometry.grid import GridMapping
from crossdiff_cli.geometry.window import Window
from crossdiff_cli.imaging.masking import extend
from crossdiff_cli.imaging.normalisation import Normalisation
from crossdiff_cli.imaging.resample import degrade
from crossdiff_cli.imaging.sensor_model import SensorModel
from crossdiff_cli.io.raster import Raster
from crossdiff_cli.model.spectral import Spectrum
from crossdiff_cli.sensors.definitions import named_sensor
from crossdiff_cli.training.manifest import Entry
from crossdiff_cli.training.simulated_pan import draw_function, draw_mixture, draw_pan_range, standardised
from crossdiff_cli.training.training_scene import TrainingScene
from crossdiff_cli.training.wald import log_uniform, uniform, varied, wald_pair

_COARSER = 2.0
"""How much coarser than the truth the reference of a pair is at most."""
_GAINS, _PAN_GAINS = (0.12, 0.5), (0.06, 0.85)
"""Nyquist gains of MS and PAN, drawn evenly in the logarithm; no image of a pair is sharper than its truth."""
_BAND_SPREAD = 0.1
"""Standard deviation of the logarithm of the gains over the bands."""
_UNEXPLAINED = 0.4
"""Largest share of the PAN that is not a mixture of the bands."""
_SHARP = 0.95
"""Nyquist gain of the blur of an image that needs none."""
_USUAL_GAIN = 0.3
"""Nyquist gain of a truth on which none can be estimated."""


def load_truth(entry: Entry) -> TrainingScene:
    """Read an image without a PAN.

    Returns:
        A scene that says so (`simulated`): image and grid of its PAN are those of the MS, and `pan_gain` is the
        Nyquist gain that the image shows.

    Raises:
        SceneError, SensorError: the image cannot be used.
        TrainingError: it has no valid pixel, or its bands are not known.
    """
    if entry.sensor is None or entry.bands is None:
        raise TrainingError("an image without a PAN needs `sensor` and `bands` in the manifest", path=entry.ms)
    sensor = named_sensor(entry.sensor)
    bands = sensor.select(entry.bands)
    with Raster(entry.ms) as raster:
        if raster.count != len(bands):
            raise TrainingError(
                "`bands` in the manifest does not name every band",
                path=entry.ms,
                found=len(bands),
                expected=raster.count,
            )
        data, valid = raster.read(Window(0, 0, *raster.shape))
    ms, mask = torch.from_numpy(data), torch.from_numpy(np.ascontiguousarray(valid))
    if not mask.any():
        raise TrainingError("it has no valid pixel", path=entry.ms)
    mean, std = ms[:, mask].mean(dim=1), ms[:, mask].std(dim=1)
    normalisation = Normalisation(0.0, 1.0, mean, torch.where(std > 0, std, 1.0))
    ms = extend(normalisation.normalise_ms(ms)[None], mask[None, None], 8)
    brightness = ms.mean(dim=1, keepdim=True)
    found = estimate_pan_nyquist_gain(
        [SampleWindow(brightness, ms[0], mask, (0.0, 0.0), (0.0, 0.0))], (1.0, 1.0), noise=0.0
    )
    gain = found.gain if found else _USUAL_GAIN
    return TrainingScene(
        name=entry.name,
        sensor=f"{sensor.key}, truth",
        pan=brightness,
        pan_mask=mask,
        ms=ms,
        ms_mask=mask,
        sensor_model=SensorModel(GridMapping((1.0, 1.0), (0.0, 0.0)), (gain,) * len(bands)),
        spectrum=Spectrum.of([(band.center_nm, band.width_nm) for band in bands], sensor.pan_nm, sensor.ratio),
        pan_gain=gain,
        reference=None,
        normalisation=normalisation,
        simulated=True,
    )


def draw_truth_pair(truth: TrainingScene, generator: Generator) -> TrainingScene:
    """Return a Wald pair of an image without a PAN: random PAN, scale, ratio, MTFs and grid phase, without noise.

    The reference has, at its own Nyquist frequency, about the MTF gain that the MS of the pair has at its own.
    """
    scale = log_uniform(1.0, _COARSER, generator)
    sharpest = truth.pan_gain ** (scale**-2)
    center, pan_nm = truth.spectrum.center_nm, draw_pan_range(generator)
    unexplained = _UNEXPLAINED * uniform(generator)
    pan = standardised(draw_mixture(truth.ms, center, pan_nm, generator), truth.ms_mask)
    pan = standardised((1 - unexplained) * pan + unexplained * draw_function(truth.ms, generator), truth.ms_mask)
    ms_gain = min(log_uniform(*_GAINS, generator), sharpest)
    pan_gain = min(log_uniform(*_PAN_GAINS, generator), sharpest)
    rows, cols = (math.floor(length / scale) for length in truth.ms_mask.shape)
    grid = GridMapping((scale, scale), (0.0, 0.0))
    seen = degrade(truth.ms_mask[None, None].float(), (rows, cols), grid.ratio, grid.offset, [0.3])[0, 0]
    scene = replace(
        truth,
        pan=pan,
        ms=degrade(truth.ms, (rows, cols), grid.ratio, grid.offset, [_extra(ms_gain, sharpest)]),
        ms_mask=seen > 0.999,
        sensor_model=SensorModel(grid, truth.sensor_model.nyquist_gains),
        spectrum=replace(truth.spectrum, pan_nm=pan_nm),
    )
    ratio = float(torch.randint(2, 5, (1,), generator=generator))
    offset = (uniform(generator) * ratio - ratio, uniform(generator) * ratio - ratio)
    gains = tuple(ms_gain * varied(_BAND_SPREAD, generator) for _ in center)
    pair = wald_pair(scene, ratio, offset, gains, _extra(pan_gain, sharpest))
    assert pair.spectrum.quality is not None
    quality = replace(pair.spectrum.quality, pan_nyquist_gain=pan_gain)
    return replace(pair, spectrum=replace(pair.spectrum, quality=quality))


def _extra(gain: float, sharpest: float) -> float:
    """Return the Nyquist gain of the blur that makes an image of gain `sharpest` one of `gain`."""
    return min(gain / sharpest, _SHARP)
