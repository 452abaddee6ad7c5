"""What a few windows tell of a whole scene: normalisation, noise and the misregistration of PAN and MS.

Bounded in memory: at most `WINDOWS` windows are read, spread evenly over the common footprint.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from crossdiff_cli.errors import SceneError
from crossdiff_cli.estimate.matching import Optics, View
from crossdiff_cli.estimate.noise import ms_noise, pan_noise
from crossdiff_cli.estimate.registration import Registration, register
from crossdiff_cli.geometry.window import Window, spread
from crossdiff_cli.imaging.resample import degrade
from crossdiff_cli.io.pair import ScenePair
from crossdiff_cli.sensors.table import spectral_order

NOISE_THRESHOLD = 0.05
"""Standard deviation of noise, as a share of that of its image, above which it is reported."""
WINDOWS = 36
_WINDOW_MS_PX = 96
_REGISTERED = 12
"""Windows that are registered, at most."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """One affine per band: normalised = (DN - mean) / std, from valid pixels at MS resolution."""

    pan_mean: float
    pan_std: float
    ms_mean: Tensor
    """(C,) float32."""
    ms_std: Tensor
    """(C,) float32, 1 where a band is constant."""

    def select(self, bands: Sequence[int]) -> "Statistics":
        """Return the statistics of some of the bands, in the order given."""
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


@dataclass(frozen=True, slots=True)
class Survey:
    """Findings on one scene."""

    statistics: Statistics
    registered: Registration
    """Where the MS lies; at its nominal place where that was not measured."""
    noise: tuple[float, ...]
    """Deviation of the white noise of each MS band, normalised; 0 where it was not measured."""
    pan_noise: float
    """That of the PAN, normalised."""
    band_names: tuple[str, ...]
    """Of the MS, in file order."""

    @property
    def noise_dn(self) -> list[float]:
        """That of the MS bands in DN."""
        return [share * deviation for share, deviation in zip(self.noise, self.statistics.ms_std.tolist(), strict=True)]

    @property
    def pan_noise_dn(self) -> float:
        """That of the PAN in DN."""
        return self.pan_noise * self.statistics.pan_std

    def describe_band_shifts(self) -> str:
        """Return `NAME:x,y`, in PAN pixels, of each band with an offset of its own; empty if there is none."""
        shifts = zip(self.band_names, self.registered.band_shifts, strict=False)
        return " ".join(f"{name}:{col:+.2f},{row:+.2f}" for name, (row, col) in shifts if (row, col) != (0.0, 0.0))

    def describe_noise(self) -> str:
        """Return `NAME:std`, in DN, of PAN and bands whose noise exceeds `NOISE_THRESHOLD`; empty if there is none."""
        names, shares = ("PAN", *self.band_names), (self.pan_noise, *self.noise)
        levels = zip(names, shares, (self.pan_noise_dn, *self.noise_dn), strict=True)
        return " ".join(f"{name}:{dn:.2g}" for name, share, dn in levels if share > NOISE_THRESHOLD)

    def tags(self) -> dict[str, str]:
        """Return what was estimated as tags of the result."""
        place = self.registered
        tags = {"CROSSDIFF_SHIFT_PX": f"{place.shift[1]:.3f},{place.shift[0]:.3f}"}
        if any(place.stretch):
            tags["CROSSDIFF_STRETCH"] = f"{place.stretch[1]:.6f},{place.stretch[0]:.6f}"
        if shifts := self.describe_band_shifts():
            tags["CROSSDIFF_BAND_SHIFTS_PX"] = shifts
        if levels := self.describe_noise():
            tags["CROSSDIFF_NOISE_DN"] = levels
        return tags


def survey(pair: ScenePair, *, align: bool = True, noise: bool = True) -> Survey:
    """Read the sample windows once; derive statistics and, if asked, the shift and the noise.

    Raises:
        SceneError: no valid pixel where PAN and MS overlap.
    """
    order = spectral_order(pair.bands)
    samples = [replace(sample, ms=sample.ms[order]) for sample in _samples(pair)]
    if sum(int(s.mask.sum()) for s in samples) == 0:
        raise SceneError(
            f"{pair.pan.path} and {pair.ms[0].path} have no valid pixel in common: one or the other is nodata "
            "everywhere (--nodata none takes every number for data)"
        )
    optics, names = Optics(pair.grid.ratio, pair.bands[order[0]].nyquist_gain), tuple(band.name for band in pair.bands)
    statistics = _statistics(optics, samples)
    registered = Registration()
    if align:
        views = [
            replace(view, pan=statistics.normalise_pan(view.pan), ms=statistics.normalise_ms(view.ms))
            for view in _some(samples)
        ]
        row, col = pair.footprint.row + pair.footprint.height / 2, pair.footprint.col + pair.footprint.width / 2
        registered = register(views, optics, (row, col))
    levels, of_pan = torch.zeros(len(names)), 0.0
    if noise:
        levels = ms_noise(samples, optics, registered) / statistics.ms_std
        of_pan = pan_noise(samples, pair.grid.ratio) / statistics.pan_std
    place = sorted(range(len(order)), key=order.__getitem__)  # of each band of the file in the order of wavelengths
    shifts = registered.band_shifts and tuple(registered.band_shifts[i] for i in place)
    registered = replace(registered, band_shifts=shifts)
    return Survey(statistics.select(place), registered, tuple(levels[place].tolist()), of_pan, names)


def _some(samples: list[View]) -> list[View]:
    """`_REGISTERED` of them in no regular order, which would leave out rows or columns of the scene."""
    chosen = random.Random(0).sample(range(len(samples)), min(_REGISTERED, len(samples)))
    return [samples[place] for place in sorted(chosen)]


def _samples(pair: ScenePair) -> list[View]:
    size = max(8, int(_WINDOW_MS_PX * pair.ratio))
    samples = []
    for window in spread(pair.footprint, size, WINDOWS):
        inner = window.intersection(pair.footprint)
        assert inner is not None
        patch = pair.read(inner)
        inside = _covered(pair, inner, patch.ms_mask.shape, patch.offset)
        mask = torch.from_numpy(patch.ms_mask) & inside
        if not patch.pan_mask.all():
            pan_valid = torch.from_numpy(patch.pan_mask)[None, None].float()
            mask &= degrade(pan_valid, patch.ms_mask.shape, pair.grid.ratio, patch.offset, [0.3])[0, 0] > 0.999
        if mask.any():
            pan, ms = torch.from_numpy(patch.pan)[None], torch.from_numpy(patch.ms)
            samples.append(View(pan, ms, mask, patch.offset, (inner.row, inner.col)))
    return samples


def _covered(pair: ScenePair, window: Window, shape: tuple[int, ...], offset: tuple[float, float]) -> Tensor:
    """MS pixels whose whole area lies in the PAN window: (h, w)."""
    axes = []
    for axis in (0, 1):
        start = offset[axis] + torch.arange(shape[axis]) * pair.grid.ratio[axis]
        axes.append((start >= -0.5) & (start + pair.grid.ratio[axis] <= window.shape[axis] + 0.5))
    return axes[0][:, None] & axes[1][None, :]


def _statistics(optics: Optics, samples: list[View]) -> Statistics:
    pan = torch.cat([optics.seen(s, (0.0, 0.0))[s.mask] for s in samples]).double()
    ms = torch.cat([s.ms[:, s.mask] for s in samples], dim=1).double()
    ms_std = ms.std(dim=1, correction=0)
    pan_std = float(pan.std(correction=0))
    flat = 1e-6 * (ms.abs().amax(dim=1) + 1e-30)
    return Statistics(
        float(pan.mean()),
        pan_std if pan_std > 1e-6 * (float(pan.abs().max()) + 1e-30) else 1.0,
        ms.mean(dim=1).float(),
        torch.where(ms_std > flat, ms_std, torch.ones_like(ms_std)).float(),
    )
