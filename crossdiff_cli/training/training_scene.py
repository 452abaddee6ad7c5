"""Scenes in memory to train on, whole or in parts: surveyed, registered, normalised, masked pixels filled."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from crossdiff_cli.errors import TrainingError
from crossdiff_cli.estimate.survey import SceneEstimates, survey
from crossdiff_cli.geometry.window import Window, spread
from crossdiff_cli.imaging.filters import high_pass
from crossdiff_cli.imaging.masking import extend
from crossdiff_cli.imaging.normalisation import Normalisation
from crossdiff_cli.imaging.regression import solve_normal_equations
from crossdiff_cli.imaging.sensor_model import SensorModel
from crossdiff_cli.io.open_pair import open_pair
from crossdiff_cli.io.pair import ScenePair
from crossdiff_cli.io.raster import Raster
from crossdiff_cli.model.spectral import ImageQuality, Spectrum
from crossdiff_cli.options import PairOptions
from crossdiff_cli.training.manifest import Entry

_log = logging.getLogger(__name__)

_MIN_REFERENCE_DETAIL = 0.75
"""Share of the PAN's detail that a reference must explain to be learned from."""
_WHOLE_PX = 2048**2
"""PAN pixels up to which a scene is read whole."""
_PART_MS_PX, _PARTS, _CANDIDATES = 256, 16, 48
"""Side of the parts that stand for a larger one, their number, and from how many they are chosen."""
_NON_OPTICAL = {"TIR", "TIR1", "TIR2", "CIRRUS"}
"""Bands that no PAN detail belongs to, left out of training."""


@dataclass(frozen=True, slots=True)
class TrainingScene:
    """A scene in memory, or a part of a large one, normalised, masked pixels filled."""

    name: str
    """Of the scene; its parts share it."""
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
    sensor_model: SensorModel
    spectrum: Spectrum
    pan_gain: float
    """Nyquist gain of the PAN, for the Wald protocol: that of the scene, else of the sensor table."""
    reference: Tensor | None
    """(1, C, H, W) where the publisher kept it."""
    normalisation: Normalisation
    """What takes PAN and MS back to the units of their files."""
    simulated: bool = False
    """Whether it is an image without a PAN, one of which is simulated for each Wald pair; then it has no full
    resolution to train at."""
    part: int = 0
    """Which of the `parts` that stand for its scene it is, from 0."""
    parts: int = 1

    @property
    def pixels(self) -> int:
        """PAN pixels."""
        return self.pan.numel()


def load_scene(entry: Entry) -> TrainingScene:
    """Read a scene whole, survey, register and normalise it.

    Raises:
        SceneError, SensorError: the pair cannot be used.
    """
    return _load(entry, _whole)[0]


def load_parts(entry: Entry) -> list[TrainingScene]:
    """As `load_scene`, but of a large scene only its most detailed parts: memory and time do not grow with it.

    Raises:
        SceneError, SensorError: the pair cannot be used.
        TrainingError: none of the parts looked at holds valid pixels.
    """
    return _load(entry, _parts)


_Part = tuple[Window, TrainingScene]


def _load(entry: Entry, cut: Callable[[ScenePair, SceneEstimates, str], list[_Part]]) -> list[TrainingScene]:
    if entry.pan is None:
        raise TrainingError("it has no PAN", path=entry.ms)
    options = PairOptions(sensor=entry.sensor or "auto", bands=entry.bands)
    with open_pair(entry.pan, [entry.ms], options) as pair:
        table = pair.sensor.pan_nyquist_gain
        found = survey(pair.sample_windows(), pair.grid, pair.bands, path=entry.pan, pan_nyquist_gain=table)
        parts = cut(pair, found, entry.name)
        if entry.reference is None:
            return [scene for _, scene in parts]
        with Raster(entry.reference) as raster:
            if raster.shape != pair.pan.shape:
                raise TrainingError(f"it is not on the grid of {entry.pan}", path=entry.reference)
            truths = [torch.from_numpy(raster.read(window)[0])[_optical(pair)] for window, _ in parts]
    return [_with_reference(scene, truth, entry) for (_, scene), truth in zip(parts, truths, strict=True)]


def _with_reference(scene: TrainingScene, truth: Tensor, entry: Entry) -> TrainingScene:
    reference = scene.normalisation.normalise_ms(truth)[None]
    detail = detail_r2(scene.pan, reference)
    if detail < _MIN_REFERENCE_DETAIL:
        _log.warning(
            "%s explains %.2f of the PAN's detail, less than %.2f: too soft to learn from, left out",
            entry.reference,
            detail,
            _MIN_REFERENCE_DETAIL,
        )
        return scene
    return replace(scene, reference=reference)


def _whole(pair: ScenePair, found: SceneEstimates, name: str) -> list[_Part]:
    window = Window(0, 0, *pair.pan.shape)
    return [(window, scene_of(pair, found, window, name))]


def _parts(pair: ScenePair, found: SceneEstimates, name: str) -> list[_Part]:
    if math.prod(pair.pan.shape) <= _WHOLE_PX:
        return _whole(pair, found, name)
    parts = most_detailed_windows(pair, found, name, _PART_MS_PX, _CANDIDATES, _PARTS)
    if not parts:
        raise TrainingError("none of the windows looked at holds valid pixels", path=name, found=f"0 of {_CANDIDATES}")
    _log.info("%s is large: its %d most detailed parts of %d MS pixels stand for it", name, len(parts), _PART_MS_PX)
    return parts


def most_detailed_windows(
    pair: ScenePair, found: SceneEstimates, name: str, side: int, candidates: int, chosen: int
) -> list[_Part]:
    """The windows of `side` MS pixels with most detail among `candidates` spread over a pair, the most detailed first.

    Returns:
        Up to `chosen` windows of the PAN grid that hold valid pixels, and what is there.
    """
    windows = spread(pair.footprint, max(8, round(side * pair.ratio)), candidates)
    parts = [(window, scene_of(pair, found, window, name)) for window in windows]
    parts = [part for part in parts if part[1].pan_mask.any() and part[1].ms_mask.any()]
    parts = sorted(parts, key=lambda part: _detail(part[1]), reverse=True)[:chosen]
    return [(window, replace(scene, part=n, parts=len(parts))) for n, (window, scene) in enumerate(parts)]


def _detail(scene: TrainingScene) -> float:
    """Deviation of the high-passed PAN, weighted by the valid share."""
    mask = scene.pan_mask.float()
    high = high_pass(scene.pan, 4)[0, 0] * mask
    return float(high.square().mean().sqrt())


def scene_of(pair: ScenePair, found: SceneEstimates, window: Window, name: str) -> TrainingScene:
    """A window of a pair, registered and normalised as the survey found, without reference."""
    patch, keep, statistics = pair.read(window), _optical(pair), found.normalisation
    bands = [pair.bands[i] for i in keep]
    pan = statistics.normalise_pan(torch.from_numpy(patch.pan))[None]
    ms = statistics.normalise_ms(torch.from_numpy(patch.ms))[None, keep]
    pan_mask, ms_mask = torch.from_numpy(patch.pan_mask), torch.from_numpy(patch.ms_mask)
    sensor_model, pan_gain = found.sensor_model(patch).select_bands(keep), found.pan_nyquist_gain
    quality = ImageQuality.of(sensor_model.nyquist_gains, sensor_model.ms_noise, pan_gain, sensor_model.pan_noise)
    return TrainingScene(
        name=name,
        sensor=pair.sensor.key,
        pan=extend(pan, pan_mask[None, None], 8),
        pan_mask=pan_mask,
        ms=extend(ms, ms_mask[None, None], 8),
        ms_mask=ms_mask,
        sensor_model=sensor_model,
        spectrum=Spectrum.of(
            [(band.center_nm, band.width_nm) for band in bands], pair.sensor.pan_nm, pair.ratio, quality
        ),
        pan_gain=pan_gain,
        reference=None,
        normalisation=replace(statistics, ms_mean=statistics.ms_mean[keep], ms_std=statistics.ms_std[keep]),
    )


def _optical(pair: ScenePair) -> list[int]:
    return [i for i, band in enumerate(pair.bands) if band.name.upper() not in _NON_OPTICAL]


def detail_r2(pan: Tensor, reference: Tensor) -> float:
    """Share (R^2) of the high-passed PAN that a combination of the high-passed reference bands explains.

    A reference that was blurred on the way explains little of it, and a head trained on it learns to blur.

    Args:
        pan: (1, 1, H, W).
        reference: (1, C, H, W) on the same grid.
    """
    target, bands = (high_pass(x.double(), 4)[0, :, 8:-8, 8:-8].flatten(1) for x in (pan, reference))
    weights = solve_normal_equations(bands @ bands.T, bands @ target.T)[:, 0]
    return 1.0 - float((target - weights @ bands).square().sum() / target.square().sum().clamp_min(1e-12))
