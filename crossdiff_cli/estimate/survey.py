"""Estimate normalisation, registration, MTF, noise and saturation of a scene from its sample windows."""

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from crossdiff_cli.errors import OptionError, SceneError
from crossdiff_cli.estimate.intensity import estimate_intensity
from crossdiff_cli.estimate.matching import PanDegradation, SampleWindow
from crossdiff_cli.estimate.mtf import estimate_nyquist_gains
from crossdiff_cli.estimate.noise import ms_noise, pan_noise
from crossdiff_cli.estimate.pan_mtf import estimate_pan_nyquist_gain
from crossdiff_cli.estimate.registration import Registration, register
from crossdiff_cli.estimate.saturation import saturation_levels
from crossdiff_cli.geometry.grid import GridMapping, Pixels
from crossdiff_cli.geometry.patch import Patch
from crossdiff_cli.geometry.window import Window
from crossdiff_cli.imaging.intensity import Intensity
from crossdiff_cli.imaging.normalisation import Normalisation
from crossdiff_cli.imaging.resample import degrade
from crossdiff_cli.imaging.sensor_model import SensorModel
from crossdiff_cli.options import EstimateOptions, Mtf, PanMtf
from crossdiff_cli.sensors.table import DEFAULT_PAN_NYQUIST_GAIN, Band, spectral_order

NOISE_THRESHOLD = 0.05
"""Standard deviation of noise, as a share of that of its image, above which it is reported."""
ALIASING_THRESHOLD = 0.05
"""Share of the power of the fine texture of the MS above which it is reported that the PAN does not show it."""
_CHOSEN = 12
"""Windows, at most, that are registered and show the MTF."""


MtfSource = Literal["scene", "table", "option"]
"""Origin of a Nyquist gain: estimated on the scene, from the sensor table, or given as an option."""


@dataclass(frozen=True, slots=True)
class SceneEstimates:
    """Normalisation, registration, MTF, noise and saturation of one scene, estimated on its sample windows."""

    grid: GridMapping
    """Nominal mapping of the MS."""
    bands: tuple[Band, ...]
    """Of the MS, in file order."""
    normalisation: Normalisation
    registration: Registration
    """Of the MS; its nominal place where that was not measured."""
    ms_noise: tuple[float, ...]
    """Standard deviation of the white noise of each MS band, normalised; 0 where it was not measured."""
    pan_noise: float
    """Standard deviation of the white noise of the PAN, normalised."""
    nyquist_gains: tuple[float, ...]
    """MTF gain of each MS band at the Nyquist frequency of the MS."""
    mtf_sources: tuple[MtfSource, ...]
    """Origin of the gain of each band."""
    saturation: tuple[float, ...]
    """DN at which each MS band saturates; infinite where it does not in the sample windows."""
    intensity: Intensity | None = None
    """How the bands make up the PAN, in file order; None where it was not estimated."""
    pan_nyquist_gain: float = DEFAULT_PAN_NYQUIST_GAIN
    """MTF gain of the PAN at its Nyquist frequency."""
    pan_mtf_source: MtfSource = "table"
    """Its origin."""

    def registered_ratio(self) -> Pixels:
        """Return the PAN pixels per MS pixel, as registered."""
        return self.registration.ratio(self.grid.ratio)

    def farthest(self, extent: Window) -> float:
        """Return the largest displacement of any band in a part of the PAN, in PAN pixels."""
        return self.registration.farthest((extent.row, extent.col), extent.stop)

    def sensor_model(self, patch: Patch) -> SensorModel:
        """Return how the sensor makes the MS of a patch from its PAN, bands in file order."""
        place = self.registration
        grid = GridMapping(
            self.registered_ratio(), place.offset(patch.offset, (patch.window.row, patch.window.col)),
            place.band_shifts,
        )  # fmt: skip
        return SensorModel(grid, self.nyquist_gains, self.ms_noise, self.pan_noise, self._saturation(), self.intensity)

    def _saturation(self) -> tuple[float, ...]:
        """Return the saturation of each band, normalised; empty where no band saturates."""
        if not any(math.isfinite(level) for level in self.saturation):
            return ()
        means, stds = self.normalisation.ms_mean.tolist(), self.normalisation.ms_std.tolist()
        return tuple((level - mean) / std for level, mean, std in zip(self.saturation, means, stds, strict=True))

    @property
    def ms_noise_dn(self) -> list[float]:
        """Standard deviation of the noise of each MS band in DN."""
        return [share * std for share, std in zip(self.ms_noise, self.normalisation.ms_std.tolist(), strict=True)]

    @property
    def pan_noise_dn(self) -> float:
        """Standard deviation of the noise of the PAN in DN."""
        return self.pan_noise * self.normalisation.pan_std

    def describe_band_shifts(self) -> str:
        """Return `NAME:x,y`, in PAN pixels, of each band with an offset of its own; empty if there is none."""
        shifts = zip(self.bands, self.registration.band_shifts, strict=False)
        return " ".join(f"{band.name}:{col:+.2f},{row:+.2f}" for band, (row, col) in shifts if (row, col) != (0.0, 0.0))

    def describe_noise(self) -> str:
        """Return `NAME:std`, in DN, of PAN and bands whose noise exceeds `NOISE_THRESHOLD`; empty if there is none."""
        names, shares = ("PAN", *(band.name for band in self.bands)), (self.pan_noise, *self.ms_noise)
        levels = zip(names, shares, (self.pan_noise_dn, *self.ms_noise_dn), strict=True)
        return " ".join(f"{name}:{dn:.2g}" for name, share, dn in levels if share > NOISE_THRESHOLD)

    def describe_mtf(self) -> str:
        """Return the Nyquist gains of bands and PAN and where they come from, as a line of a log."""
        words = {"scene": "estimated on the scene", "table": "of the sensor table", "option": "as given"}
        parts = []
        for source in dict.fromkeys(self.mtf_sources):
            bands = [i for i, other in enumerate(self.mtf_sources) if other == source]
            parts.append(", ".join(f"{self.bands[i].name} {self.nyquist_gains[i]:.2f}" for i in bands))
            parts[-1] += f" ({words[source]})"
        of_pan = f"; of the PAN at its own: {self.pan_nyquist_gain:.2f} ({words[self.pan_mtf_source]})"
        return "MTF gain at the MS Nyquist frequency: " + "; ".join(parts) + of_pan

    def describe_aliasing(self) -> str:
        """Return how much of the fine texture of the MS the PAN does not show; empty where that is little."""
        if self.intensity is None or self.intensity.aliased < ALIASING_THRESHOLD:
            return ""
        return f"{100 * self.intensity.aliased:.0f} % of the power of the fine texture of the MS is not in the PAN"

    def tags(self) -> dict[str, str]:
        """Return what was estimated as tags of the result."""
        place = self.registration
        tags = {
            "CROSSDIFF_SHIFT_PX": f"{place.shift[1]:.3f},{place.shift[0]:.3f}",
            "CROSSDIFF_NYQUIST_GAINS": ",".join(f"{gain:.3f}" for gain in self.nyquist_gains),
            "CROSSDIFF_MTF_SOURCE": ",".join(self.mtf_sources),
            "CROSSDIFF_PAN_NYQUIST_GAIN": f"{self.pan_nyquist_gain:.3f}",
            "CROSSDIFF_PAN_MTF_SOURCE": self.pan_mtf_source,
        }
        if self.intensity is not None:
            tags["CROSSDIFF_ALIASING"] = f"{self.intensity.aliased:.3f}"
        if any(place.stretch):
            tags["CROSSDIFF_STRETCH"] = f"{place.stretch[1]:.6f},{place.stretch[0]:.6f}"
        if shifts := self.describe_band_shifts():
            tags["CROSSDIFF_BAND_SHIFTS_PX"] = shifts
        if levels := self.describe_noise():
            tags["CROSSDIFF_NOISE_DN"] = levels
        return tags


def survey(
    patches: Iterable[Patch],
    grid: GridMapping,
    bands: tuple[Band, ...],
    options: EstimateOptions | None = None,
    path: str = "",
    pan_nyquist_gain: float = DEFAULT_PAN_NYQUIST_GAIN,
) -> SceneEstimates:
    """Estimate the normalisation of a scene and, if asked, its registration, its MTF and its noise.

    Args:
        patches: the sample windows of the scene (`ScenePair.sample_windows`).
        grid: nominal mapping of the MS.
        bands: of the MS, in file order.
        options: what is estimated; defaults as the command's.
        path: of the scene, for the error.
        pan_nyquist_gain: MTF gain of the PAN in the sensor table.

    Raises:
        SceneError: no valid pixel where PAN and MS overlap.
        OptionError: Nyquist gains that are not as many as bands.
    """
    options = options or EstimateOptions()
    order = spectral_order(bands)
    samples = _samples(patches, order, path)
    degradation = PanDegradation(grid.ratio, bands[order[0]].nyquist_gain)
    normalisation = _normalisation(degradation, samples)
    registration = Registration()
    if options.align:
        registration = register(_normalised(_some(samples), normalisation), degradation, _centre(samples))
    of_pan = pan_noise(samples, grid.ratio)
    asked = _in_order(options.mtf, order)
    gains, sources = _mtf(_some(samples), grid, [bands[i] for i in order], registration, of_pan, asked)
    levels = torch.zeros(len(bands))
    if options.noise:
        degradation = PanDegradation(grid.ratio, sorted(gains)[len(gains) // 2])
        levels = ms_noise(samples, degradation, registration) / normalisation.ms_std
    intensity = None
    if options.aliasing:
        views = _normalised(_some(samples), normalisation)
        intensity = estimate_intensity(views, registration.ratio(grid.ratio), registration, gains)
    saturation = saturation_levels(samples)
    pan_gain, pan_source = _pan_mtf(_some(samples), grid.ratio, of_pan, options.pan_mtf, pan_nyquist_gain)
    place = sorted(range(len(order)), key=order.__getitem__)  # of each band of the file in the order of wavelengths
    shifts = registration.band_shifts and tuple(registration.band_shifts[i] for i in place)
    registration = replace(registration, band_shifts=shifts)
    return SceneEstimates(
        grid=grid,
        bands=bands,
        normalisation=normalisation.select(place),
        registration=registration,
        ms_noise=tuple(levels[place].tolist()),
        pan_noise=of_pan / normalisation.pan_std if options.noise else 0.0,
        nyquist_gains=tuple(gains[i] for i in place),
        mtf_sources=tuple(sources[i] for i in place),
        saturation=tuple(saturation[i] for i in place),
        intensity=intensity and intensity.select_bands(place),
        pan_nyquist_gain=pan_gain,
        pan_mtf_source=pan_source,
    )


def _normalised(samples: Sequence[SampleWindow], normalisation: Normalisation) -> list[SampleWindow]:
    return [
        replace(view, pan=normalisation.normalise_pan(view.pan), ms=normalisation.normalise_ms(view.ms))
        for view in samples
    ]


def _in_order(mtf: Mtf, order: Sequence[int]) -> Mtf:
    """Return given gains, one for each band of the file, in `order`.

    Raises:
        OptionError: as many gains as there are not bands.
    """
    if isinstance(mtf, str):
        return mtf
    if len(mtf) not in (1, len(order)):
        raise OptionError(
            "the number of Nyquist gains is not that of the MS bands", found=len(mtf), expected=f"{len(order)} or 1"
        )
    return tuple(mtf[i if len(mtf) > 1 else 0] for i in order)


def _mtf(
    samples: Sequence[SampleWindow],
    grid: GridMapping,
    bands: Sequence[Band],
    place: Registration,
    of_pan: float,
    asked: Mtf,
) -> tuple[list[float], list[MtfSource]]:
    """Return the Nyquist gain of each band and where it comes from; all in the order of `bands`."""
    if not isinstance(asked, str):
        return list(asked), ["option"] * len(bands)
    table = [band.nyquist_gain for band in bands]
    if asked == "table":
        return table, ["table"] * len(bands)
    found = estimate_nyquist_gains(samples, place.ratio(grid.ratio), place, of_pan, [band.center_nm for band in bands])
    gains = [own if gain is None else gain.gain for gain, own in zip(found, table, strict=True)]
    return gains, ["table" if gain is None else "scene" for gain in found]


def _pan_mtf(
    samples: Sequence[SampleWindow], ratio: Pixels, noise: float, asked: PanMtf, table: float
) -> tuple[float, MtfSource]:
    """Return the Nyquist gain of the PAN and where it comes from."""
    if not isinstance(asked, str):
        return asked, "option"
    found = estimate_pan_nyquist_gain(samples, ratio, noise) if asked == "auto" else None
    return (table, "table") if found is None else (found.gain, "scene")


def _centre(samples: Sequence[SampleWindow]) -> Pixels:
    """Return the middle of the part of the PAN that the samples are spread over."""
    ends = [(view.origin, (view.origin[0] + view.pan.shape[2], view.origin[1] + view.pan.shape[3])) for view in samples]
    row, col = ((min(a[i] for a, _ in ends) + max(b[i] for _, b in ends)) / 2 for i in (0, 1))
    return row, col


def _some(samples: list[SampleWindow]) -> list[SampleWindow]:
    """`_CHOSEN` of them in no regular order, which would leave out rows or columns of the scene."""
    chosen = random.Random(0).sample(range(len(samples)), min(_CHOSEN, len(samples)))
    return [samples[place] for place in sorted(chosen)]


def _samples(patches: Iterable[Patch], order: Sequence[int], path: str) -> list[SampleWindow]:
    """Return the windows that hold valid pixels.

    Raises:
        SceneError: none does.
    """
    samples = [sample for patch in patches if (sample := _sample(patch, order)) is not None]
    if not samples:
        raise SceneError(
            "PAN and MS have no valid pixel in common: one or the other is nodata everywhere", path=path or None,
            cure="--nodata none takes every number for data",
        )  # fmt: skip
    return samples


def _sample(patch: Patch, order: Sequence[int]) -> SampleWindow | None:
    """Return a patch with its bands in `order`, and the MS pixels whose PAN is valid too; None if there are none."""
    mask = torch.from_numpy(patch.ms_mask) & _covered(patch)
    if not patch.pan_mask.all():
        pan_valid = torch.from_numpy(patch.pan_mask)[None, None].float()
        mask &= degrade(pan_valid, patch.ms_mask.shape, patch.ratio, patch.offset, [0.3])[0, 0] > 0.999
    if not mask.any():
        return None
    pan, ms = torch.from_numpy(patch.pan)[None], torch.from_numpy(patch.ms[list(order)])
    return SampleWindow(pan, ms, mask, patch.offset, (patch.window.row, patch.window.col))


def _covered(patch: Patch) -> Tensor:
    """Return the MS pixels whose whole area lies in the PAN window: (h, w)."""
    axes = []
    for axis in (0, 1):
        start = patch.offset[axis] + torch.arange(patch.ms_mask.shape[axis]) * patch.ratio[axis]
        axes.append((start >= -0.5) & (start + patch.ratio[axis] <= patch.window.shape[axis] + 0.5))
    return axes[0][:, None] & axes[1][None, :]


def _normalisation(degradation: PanDegradation, samples: list[SampleWindow]) -> Normalisation:
    pan = torch.cat([degradation.pan_on_ms_grid(s, (0.0, 0.0))[s.mask] for s in samples]).double()
    ms = torch.cat([s.ms[:, s.mask] for s in samples], dim=1).double()
    ms_std = ms.std(dim=1, correction=0)
    pan_std = float(pan.std(correction=0))
    flat = 1e-6 * (ms.abs().amax(dim=1) + 1e-30)
    return Normalisation(
        float(pan.mean()),
        pan_std if pan_std > 1e-6 * (float(pan.abs().max()) + 1e-30) else 1.0,
        ms.mean(dim=1).float(),
        torch.where(ms_std > flat, ms_std, torch.ones_like(ms_std)).float(),
    )
