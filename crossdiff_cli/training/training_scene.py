"""A scene in memory to train on: read whole, surveyed, registered, normalised, masked pixels filled."""

import logging
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from crossdiff_cli.errors import TrainingError
from crossdiff_cli.fuse import Sampling
from crossdiff_cli.masking import extend
from crossdiff_cli.model.spectral import Spectrum
from crossdiff_cli.scene.pair import PairOptions, ScenePair
from crossdiff_cli.scene.raster import Raster
from crossdiff_cli.scene.tiles import Window
from crossdiff_cli.survey import Statistics, Survey, survey
from crossdiff_cli.training.manifest import Entry

_log = logging.getLogger(__name__)

_MIN_REFERENCE_DETAIL = 0.75
"""Share of the PAN's detail that a reference must explain to be learned from."""
_NON_OPTICAL = {"TIR", "TIR1", "TIR2", "CIRRUS"}
"""Bands that no PAN detail belongs to, left out of training."""


@dataclass(frozen=True, slots=True)
class TrainingScene:
    """A whole scene in memory, normalised, masked pixels filled."""

    name: str
    sensor: str
    """Key of the sensor."""
    pan: Tensor
    """(1, 1, H, W)."""
    pan_mask: Tensor
    """(H, W)."""
    ms: Tensor
    """(1, C, h, w)."""
    ms_mask: Tensor
    """(h, w)."""
    sampling: Sampling
    spectrum: Spectrum
    pan_gain: float
    """Nyquist gain of the PAN, for the Wald protocol."""
    reference: Tensor | None
    """(1, C, H, W) where the publisher kept it."""
    statistics: Statistics
    """What takes PAN and MS back to the units of their files."""

    @property
    def pixels(self) -> int:
        """PAN pixels."""
        return self.pan.numel()


def load_scene(entry: Entry) -> TrainingScene:
    """Read a scene whole, survey, register and normalise it.

    Raises:
        SceneError, SensorError: the pair cannot be used.
    """
    options = PairOptions(sensor=entry.sensor or "auto", bands=entry.bands)
    with ScenePair(entry.pan, [entry.ms], options) as pair:
        whole = Window(0, 0, *pair.pan.shape)
        scene = scene_of(pair, survey(pair), whole, entry.name)
        if entry.reference is None:
            return scene
        with Raster(entry.reference) as raster:
            if raster.shape != pair.pan.shape:
                raise TrainingError(f"{entry.reference} is not on the grid of {entry.pan}")
            truth = torch.from_numpy(raster.read(whole)[0])
        reference = scene.statistics.normalise_ms(truth[_optical(pair)])[None]
    detail = explained_detail(scene.pan, reference)
    if detail < _MIN_REFERENCE_DETAIL:
        _log.warning(
            "%s explains %.2f of the PAN's detail, less than %.2f: too soft to learn from, left out",
            entry.reference,
            detail,
            _MIN_REFERENCE_DETAIL,
        )
        return scene
    return replace(scene, reference=reference)


def scene_of(pair: ScenePair, found: Survey, window: Window, name: str) -> TrainingScene:
    """A window of a pair, registered and normalised as the survey found, without reference."""
    patch, keep, statistics = pair.read(window), _optical(pair), found.statistics
    bands = [pair.bands[i] for i in keep]
    pan = statistics.normalise_pan(torch.from_numpy(patch.pan))[None]
    ms = statistics.normalise_ms(torch.from_numpy(patch.ms))[None, keep]
    pan_mask, ms_mask = torch.from_numpy(patch.pan_mask), torch.from_numpy(patch.ms_mask)
    place = found.registered
    return TrainingScene(
        name=name,
        sensor=pair.sensor.key,
        pan=extend(pan, pan_mask[None, None], 8),
        pan_mask=pan_mask,
        ms=extend(ms, ms_mask[None, None], 8),
        ms_mask=ms_mask,
        sampling=Sampling(
            place.ratio(pair.grid.ratio),
            place.offset(patch.offset, (window.row, window.col)),
            tuple(band.nyquist_gain for band in bands),
            tuple(place.band_shifts[i] for i in keep) if place.band_shifts else (),
        ),
        spectrum=Spectrum(
            torch.tensor([band.center_nm for band in bands]),
            torch.tensor([band.width_nm for band in bands]),
            torch.tensor(pair.sensor.pan_nm),
            pair.ratio,
        ),
        pan_gain=pair.sensor.pan_nyquist_gain,
        reference=None,
        statistics=replace(statistics, ms_mean=statistics.ms_mean[keep], ms_std=statistics.ms_std[keep]),
    )


def _optical(pair: ScenePair) -> list[int]:
    return [i for i, band in enumerate(pair.bands) if band.name.upper() not in _NON_OPTICAL]


def explained_detail(pan: Tensor, reference: Tensor) -> float:
    """Share (R^2) of the high-passed PAN that a combination of the high-passed reference bands explains.

    A reference that was blurred on the way explains little of it, and a head trained on it learns to blur.

    Args:
        pan: (1, 1, H, W).
        reference: (1, C, H, W) on the same grid.
    """

    def high_pass(x: Tensor) -> Tensor:
        return (x - F.avg_pool2d(x, 9, stride=1, padding=4))[:, :, 8:-8, 8:-8].flatten(2)[0].double()

    target, bands = high_pass(pan)[0], high_pass(reference)
    weights = torch.linalg.lstsq(bands @ bands.T, bands @ target).solution
    return 1.0 - float((target - weights @ bands).square().sum() / target.square().sum().clamp_min(1e-12))
