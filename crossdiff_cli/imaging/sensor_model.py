"""SensorModel: how a sensor makes MS pixels from the scene that the PAN shows, and the way back by interpolation."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from crossdiff_cli.geometry.grid import GridMapping
from crossdiff_cli.geometry.window import Window
from crossdiff_cli.imaging.intensity import Intensity
from crossdiff_cli.imaging.resample import degrade, expand, expand_columns, expand_rows


@dataclass(frozen=True, slots=True)
class SensorModel:
    """GridMapping mapping, Nyquist gain and noise of each band, for one window."""

    grid: GridMapping
    """Includes the registration of the MS."""
    nyquist_gains: tuple[float, ...]
    """MTF gain of each band at the Nyquist frequency of the MS."""
    ms_noise: tuple[float, ...] = ()
    """Standard deviation of the white noise of each MS band, normalised; empty where nothing is known of it."""
    pan_noise: float = 0.0
    """Standard deviation of the white noise of the PAN, normalised; 0 where nothing is known of it."""
    saturation: tuple[float, ...] = ()
    """Value at which each MS band saturates, normalised, infinite for those that do not; empty where none does."""
    intensity: Intensity | None = None
    """How the bands make up the PAN; None where nothing is known of it."""

    def crop(self, part: Window) -> "SensorModel":
        """Return the model of a part of the PAN window."""
        return replace(self, grid=self.grid.crop(part))

    def at_half_resolution(self) -> "SensorModel":
        """Return the model for an image at half the PAN grid."""
        return replace(self, grid=self.grid.at_half_resolution())

    def select_bands(self, bands: Sequence[int]) -> "SensorModel":
        """Return the model of some of the bands, in the order given."""
        return replace(
            self,
            grid=self.grid.select_bands(bands),
            nyquist_gains=tuple(self.nyquist_gains[band] for band in bands),
            ms_noise=tuple(self.ms_noise[band] for band in bands) if self.ms_noise else (),
            saturation=tuple(self.saturation[band] for band in bands) if self.saturation else (),
            intensity=self.intensity and self.intensity.select_bands(bands),
        )


def to_ms(image: Tensor, shape: tuple[int, int], sensor_model: SensorModel) -> Tensor:
    """Degrade each band of `image` (B, C, H, W) by its MTF to where it lies on the MS grid: (B, C, *shape)."""
    grid = sensor_model.grid
    return degrade(image, shape, grid.ratio, grid.offsets, sensor_model.nyquist_gains)


def to_pan(ms: Tensor, shape: tuple[int, int], sensor_model: SensorModel) -> Tensor:
    """Interpolate each band of `ms` (B, C, h, w) from where it lies to the PAN grid: (B, C, *shape)."""
    return expand(ms, shape, sensor_model.grid.ratio, sensor_model.grid.offsets)


class Expansion:
    """An image on the MS grid, interpolated to parts of the PAN grid where they are asked for."""

    def __init__(self, ms: Tensor, width: int, sensor_model: SensorModel) -> None:
        """Interpolate each band of `ms` (B, C, h, w) along the rows, to `width` columns."""
        self._grid = sensor_model.grid
        self._wide = expand_columns(ms, width, self._grid.ratio, self._grid.offsets)

    def __call__(self, part: Window) -> Tensor:
        """Interpolate to a part of the PAN grid, (B, C, rows, columns): what `to_pan` gives there."""
        wide = self._wide[..., part.col : part.stop[1]]
        return expand_rows(wide, part.height, self._grid.ratio, self._grid.crop(part).offsets)


def pan_on_ms_grid(pan: Tensor, shape: tuple[int, int], sensor_model: SensorModel) -> Tensor:
    """Degrade the PAN (B, 1, H, W) by the MTF and to the place of each band: (B, C, *shape)."""
    kinds = list(
        zip(sensor_model.nyquist_gains, sensor_model.grid.band_shifts or sensor_model.nyquist_gains, strict=True)
    )
    distinct = list(dict.fromkeys(kinds))
    first = [kinds.index(kind) for kind in distinct]
    degraded = to_ms(pan.expand(-1, len(first), -1, -1), shape, sensor_model.select_bands(first))
    return degraded[:, [distinct.index(kind) for kind in kinds]]
