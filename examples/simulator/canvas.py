"""The ground as fine layers: light per band, height, slope shading; painted in metres, then lit by the sun."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simulator.sensor import BANDS, SUN_AZIMUTH, SUN_ELEVATION, Band, Floats, material_light, path_radiance

_AZIMUTH, _ELEVATION = math.radians(SUN_AZIMUTH), math.radians(SUN_ELEVATION)
TO_SUN = (math.sin(_AZIMUTH), -math.cos(_AZIMUTH))
"""Unit vector towards the sun on the ground: x to the east, y to the south."""

TALLEST = 22.0
LONGEST_SHADOW = TALLEST / math.tan(_ELEVATION)
HALF = 0.5
STEP_UP = 0.5
"""Metres above which something counts as standing in the way."""


@dataclass(frozen=True, slots=True)
class Place:
    """A point in metres (x east, y south, from the middle of the scene) and a direction in radians."""

    x: float
    y: float
    angle: float = 0.0

    def offset(self, along: float, across: float, turn: float = 0.0) -> "Place":
        """Move in this place's own axes and turn by an angle."""
        c, s = math.cos(self.angle), math.sin(self.angle)
        return Place(self.x + along * c - across * s, self.y + along * s + across * c, self.angle + turn)


@dataclass(frozen=True, slots=True)
class Patch:
    """A window of the canvas with the metric coordinates of its samples in the axes of a place."""

    window: tuple[slice, slice]
    along: Floats
    across: Floats
    sample: float

    def box(self, length: float, width: float, at: tuple[float, float] = (0.0, 0.0), corner: float = 0.0) -> Floats:
        """Coverage 0..1 of a rectangle around `at` with rounded corners; edges fade over one sample."""
        a = np.abs(self.along - at[0]) - (length / 2 - corner)
        b = np.abs(self.across - at[1]) - (width / 2 - corner)
        outside = np.hypot(np.maximum(a, 0), np.maximum(b, 0)) + np.minimum(np.maximum(a, b), 0) - corner
        return fade(outside, self.sample)


def chance(rng: np.random.Generator, probability: float) -> bool:
    """True with that probability."""
    return float(rng.random()) < probability


def fade(distance: Floats, sample: float) -> Floats:
    """Coverage from a signed distance in metres (negative inside): 1 inside, 0 outside, one sample of transition."""
    return np.asarray(np.clip(0.5 - distance / sample, 0.0, 1.0), dtype=np.float32)


def slope_shade(along: Floats | float, across: Floats | float, angle: float = 0.0) -> Floats:
    """Sunlight on a slope against flat ground, from the height gradient in axes turned by `angle`."""
    c, s = math.cos(angle), math.sin(angle)
    sun = (TO_SUN[0] * c + TO_SUN[1] * s, -TO_SUN[0] * s + TO_SUN[1] * c)
    facing = 1.0 - (np.asarray(along) * sun[0] + np.asarray(across) * sun[1]) / math.tan(_ELEVATION)
    shade = facing / np.sqrt(1.0 + np.square(along) + np.square(across))
    return np.asarray(np.maximum(shade, 0.0), dtype=np.float32)


class Canvas:
    """Square ground of `size` samples with a common origin in the middle.

    Attributes:
        light: (2, bands, size, size) radiance from the sun and from the sky, flat and unshadowed.
        height: metres above the ground.
        shade: sunlight on the local slope against flat ground.
        textures: unit-variance random fields by name, from fine to broad.
    """

    def __init__(self, size: int, sample: float, rng: np.random.Generator, bands: Sequence[Band] = BANDS) -> None:
        """Make an empty canvas, seen in `bands`; `sample` is the sample distance in metres."""
        self.size, self.sample, self.bands = size, sample, tuple(bands)
        self.materials = material_light(bands)
        self.light = np.zeros((2, len(bands), size, size), dtype=np.float32)
        self.height = np.zeros((size, size), dtype=np.float32)
        self.shade = np.ones((size, size), dtype=np.float32)
        self.textures = {
            name: self._texture(scale, slope, rng)
            for name, scale, slope in (
                ("grain", 0.12, 1.6),
                ("clump", 0.45, 2.4),
                ("patch", 3.0, 1.9),
                ("broad", 22.0, 2.0),
                ("stain", 8.0, 1.5),
            )
        }

    def _frequencies(self) -> Floats:
        f = np.fft.fftfreq(self.size, self.sample)
        return np.asarray(np.hypot(f[:, None], f[None, : self.size // 2 + 1]))

    def _texture(self, scale: float, slope: float, rng: np.random.Generator) -> Floats:
        white = np.fft.rfft2(rng.standard_normal((self.size, self.size)))
        spectrum = (1.0 + (2 * np.pi * scale * self._frequencies()) ** 2) ** (-slope / 2)
        field = np.fft.irfft2(white * spectrum, s=(self.size, self.size))
        return np.asarray(((field - field.mean()) / field.std()), dtype=np.float32)

    def everywhere(self) -> Patch:
        """The whole canvas in map axes."""
        return self._cut(Place(0.0, 0.0), slice(0, self.size), slice(0, self.size))

    def around(self, place: Place, radius: float) -> Patch | None:
        """The window within `radius` metres of a place, in its axes; None when it lies off the canvas."""
        bounds = []
        for centre in (place.y, place.x):
            low = math.floor((centre - radius) / self.sample + self.size / 2)
            high = math.ceil((centre + radius) / self.sample + self.size / 2)
            low, high = max(low, 0), min(high, self.size)
            if high - low <= 1:
                return None
            bounds.append(slice(low, high))
        return self._cut(place, bounds[0], bounds[1])

    def _cut(self, place: Place, rows: slice, columns: slice) -> Patch:
        x = (np.arange(columns.start, columns.stop) + 0.5 - self.size / 2) * self.sample - place.x
        y = (np.arange(rows.start, rows.stop) + 0.5 - self.size / 2) * self.sample - place.y
        c, s = math.cos(place.angle), math.sin(place.angle)
        along = (x * c)[None, :] + (y * s)[:, None]
        across = (-x * s)[None, :] + (y * c)[:, None]
        return Patch((rows, columns), along.astype(np.float32), across.astype(np.float32), self.sample)

    def occupied(self, place: Place, radius: float) -> bool:
        """Whether anything stands within about `radius` metres of a place."""
        patch = self.around(place, radius)
        return patch is not None and float(self.height[patch.window].max()) > STEP_UP

    def texture(self, name: str, patch: Patch) -> Floats:
        """A random field on a patch, zero mean and unit variance over the canvas."""
        return self.textures[name][patch.window]

    def paint(self, patch: Patch, cover: Floats, material: str, gain: Floats | float = 1.0) -> None:
        """Lay a material over a patch.

        Args:
            patch: where.
            cover: share of each sample that it covers, 0..1.
            material: name in the material table.
            gain: brightness against the table, one number or one per sample.
        """
        rows, columns = np.flatnonzero(cover.any(axis=1)), np.flatnonzero(cover.any(axis=0))
        if not len(rows):
            return
        inner = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        part = cover[inner]
        strength = part * (gain[inner] if isinstance(gain, np.ndarray) else np.float32(gain))
        keep = 1.0 - part
        target = self.light[(slice(None), slice(None), *patch.window)]
        for source in range(2):
            for band in range(len(self.bands)):
                layer = target[source, band][inner]
                layer *= keep
                layer += strength * self.materials[material][source, band]

    def lift(self, patch: Patch, cover: Floats, height: Floats | float, shade: Floats | float = 1.0) -> None:
        """Set the height in metres, and the slope shading, where a thing stands."""
        solid = cover > HALF
        self.height[patch.window] = np.where(solid, height, self.height[patch.window])
        layer = self.shade[patch.window]
        layer += cover * (shade - layer)

    def radiance(self) -> Floats:
        """Light the scene: (bands, size, size) radiance at the sensor, with cast shadows, sky and path radiance."""
        sun = self.shade * self._lit()
        sky = self._sky_view()
        out = self.light[0] * sun
        out += self.light[1] * sky
        out += path_radiance(self.bands)[:, None, None]
        return np.asarray(out)

    def _lit(self) -> Floats:
        """Share of the sun's disc seen, 0..1, by marching the height field towards the sun."""
        rise = self.sample * math.tan(_ELEVATION)
        horizon = np.full_like(self.height, -1.0)
        for step in range(1, math.ceil(TALLEST / rise)):
            dx, dy = round(step * TO_SUN[0]), round(step * TO_SUN[1])
            here = (slice(max(-dy, 0), self.size - max(dy, 0)), slice(max(-dx, 0), self.size - max(dx, 0)))
            there = (slice(max(dy, 0), self.size - max(-dy, 0)), slice(max(dx, 0), self.size - max(-dx, 0)))
            np.maximum(horizon[here], self.height[there] - np.float32(step * rise), out=horizon[here])
        return np.asarray(np.clip(0.5 - (horizon - self.height - 0.1) / 0.3, 0.0, 1.0), dtype=np.float32)

    def _sky_view(self) -> Floats:
        """Share of the sky seen, lower beside walls and under crowns."""
        blur = np.exp(-2.0 * (np.pi * 2.0 * self._frequencies()) ** 2)
        around = np.fft.irfft2(np.fft.rfft2(self.height) * blur, s=self.height.shape)
        return np.asarray(1.0 - 0.4 * np.clip((around - self.height) / 6.0, 0.0, 1.0), dtype=np.float32)
