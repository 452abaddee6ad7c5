"""ScenePair: a PAN and an MS image that belong together, read by window."""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.rpc import RPC
from rasterio.transform import Affine

from crossdiff_cli.geometry.grid import GridMapping
from crossdiff_cli.geometry.patch import Patch
from crossdiff_cli.geometry.window import Window, spread
from crossdiff_cli.io.inputs import Inputs
from crossdiff_cli.io.raster import Raster
from crossdiff_cli.sensors.table import Band, Sensor

_SAMPLES, _SAMPLE_MS_PX = 36, 96
"""Largest number of sample windows, and their side in MS pixels."""
_MS_MARGIN = 4
"""MS pixels read beyond a window: what `imaging.resample.expand` reaches, and one."""


@dataclass(frozen=True, slots=True)
class ScenePair:
    """PAN and MS of one scene, opened, checked and related by `open_pair`."""

    pan: Raster
    ms: Sequence[Raster]
    """One raster, or one per band on one grid."""
    grid: GridMapping
    """How the MS lies on the PAN, nominally."""
    footprint: Window
    """PAN pixels whose centres lie on the MS."""
    sensor: Sensor
    bands: tuple[Band, ...]
    """Of the MS, in file order."""
    sensor_source: str
    """What told the sensor."""
    notes: tuple[str, ...]
    """What was assumed, for the log and the report."""
    inputs: Inputs
    """The files as they were named and found."""

    @property
    def ms_shape(self) -> tuple[int, int]:
        """Rows and columns of the MS."""
        return self.ms[0].shape

    @property
    def band_count(self) -> int:
        """Number of MS bands."""
        return sum(raster.count for raster in self.ms)

    @property
    def ratio(self) -> float:
        """MS pixel size over PAN pixel size, the mean of both axes."""
        return sum(self.grid.ratio) / 2

    @property
    def crs(self) -> CRS | None:
        """CRS of the PAN's geotransform; the MS's where nothing places the PAN."""
        return self.pan.crs or (None if self.pan.control_points else self.ms[0].crs)

    def transform(self, extent: Window) -> Affine | None:
        """Geotransform of a part of the PAN grid; None without georeference."""
        if not self.pan.georeferenced:
            return None
        return self.pan.transform @ Affine.translation(extent.col, extent.row)

    def rpcs(self, extent: Window) -> RPC | None:
        """The PAN's rational polynomials for a part of its grid: line and sample offsets follow the crop."""
        rpcs = copy(self.pan.rpcs)
        if rpcs is not None:
            rpcs.line_off, rpcs.samp_off = rpcs.line_off - extent.row, rpcs.samp_off - extent.col
        return rpcs

    def control_points(self, extent: Window) -> tuple[list[GroundControlPoint], CRS | None]:
        """The PAN's ground control points for a part of its grid, and their CRS; none where it has a geotransform."""
        if self.pan.georeferenced:
            return [], None
        moved = [
            GroundControlPoint(p.row - extent.row, p.col - extent.col, p.x, p.y, p.z, p.id, p.info)
            for p in self.pan.control_points
        ]
        return moved, self.pan.ground_crs

    @property
    def nodata(self) -> float | None:
        """Value of masked pixels: the MS's own, else 0 or NaN when anything can be masked, else None."""
        for raster in self.ms:
            for value in raster.nodata:
                if value is not None:
                    return value
        if np.dtype(self.dtype).kind == "f":
            return float("nan")
        return 0.0 if any(raster.masked for raster in (self.pan, *self.ms)) else None

    @property
    def dtype(self) -> str:
        """Data type of the MS, and so of the result."""
        return str(np.result_type(*(raster.dtype for raster in self.ms)))

    def read(self, window: Window) -> Patch:
        """Read a window of the PAN grid, which may reach beyond the images, with the MS pixels under it."""
        pan, pan_mask = self.pan.read(window)
        ms_window = self.grid.ms_window(window, _MS_MARGIN)
        parts = [raster.read(ms_window) for raster in self.ms]
        ms_mask = np.logical_and.reduce([mask for _, mask in parts])
        ms = np.concatenate([data for data, _ in parts])
        if not ms_mask.all():
            ms[:, ~ms_mask] = 0.0
        return Patch(pan, pan_mask, ms, ms_mask, self.grid.local_offset(window, ms_window), self.grid.ratio, window)

    def sample_windows(self) -> Iterator[Patch]:
        """Read windows spread evenly over the footprint, at most `_SAMPLES`: all of a scene that is small."""
        for window in spread(self.footprint, max(8, int(_SAMPLE_MS_PX * self.ratio)), _SAMPLES):
            inner = window.intersection(self.footprint)
            assert inner is not None
            yield self.read(inner)

    def close(self) -> None:
        """Close all files."""
        for raster in (self.pan, *self.ms):
            raster.close()
        self.inputs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
