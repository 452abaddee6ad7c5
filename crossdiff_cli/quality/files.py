"""JudgedFiles: a result, its PAN and MS and perhaps a reference as files, opened, checked and brought onto one grid."""

import math
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import numpy as np
import torch
from torch import Tensor

from crossdiff_cli.errors import SceneError
from crossdiff_cli.estimate.registration import Registration
from crossdiff_cli.estimate.survey import SceneEstimates, survey
from crossdiff_cli.geometry.grid import GridMapping, locate_on_grid
from crossdiff_cli.geometry.window import Window
from crossdiff_cli.imaging.resample import EXPAND_RADIUS
from crossdiff_cli.io.open_pair import open_pair
from crossdiff_cli.io.pair import ScenePair
from crossdiff_cli.io.raster import Raster
from crossdiff_cli.options import EstimateOptions, Mtf, PairOptions
from crossdiff_cli.quality.assess import assess
from crossdiff_cli.quality.inputs import Judged, Reader
from crossdiff_cli.quality.report import TRAINED_ON, QualityReport


class JudgedFiles:
    """A result on disk beside what it is judged by. It may be a part of the PAN grid, as `crossdiff sharpen` writes.

    Attributes:
        pair: PAN and MS, with sensor and bands.
        fused: the result.
        extent: the part of the PAN grid that is judged.
        under: the MS pixels that it takes.
        place: where the result lies on the PAN grid.
        estimates: what PAN and MS tell of the scene; None where they have no valid pixel in common.
        registration: where the MS lies, if it was asked for; single bands that lie apart from that are not told apart.
        judged: what `quality.assess.assess` takes.
    """

    def __init__(
        self,
        fused: str,
        pan: str,
        ms: Sequence[str],
        reference: str | None = None,
        options: PairOptions | None = None,
        *,
        align: bool = False,
        mtf: Mtf = "auto",
    ) -> None:
        """Open and check the files.

        Args:
            fused: the result, on the PAN grid or a part of it.
            pan: the panchromatic image.
            ms: one multispectral image, or one file per band.
            reference: the true result, on the PAN grid too, wherever the result is.
            options: sensor, bands and nodata, where the files do not say.
            align: judge where the MS lies by the content of PAN and MS, not where their georeference says.
            mtf: by which the result is degraded to be compared with the MS.

        Raises:
            SceneError: files that cannot be read or do not belong together.
            SensorError: unknown sensor, or bands that do not fit.
        """
        options = options or PairOptions()
        self._open: list[Raster | ScenePair] = []
        try:
            self.pair = open_pair(pan, ms, options)
            self._open.append(self.pair)
            self.fused = self._raster(fused, options)
            self._check_bands(self.fused, "result")
            self.place = self._place(self.fused, "result")
            extent = self.place.intersection(Window(0, 0, *self.pair.pan.shape))
            if extent is None:
                raise SceneError(
                    f"the result lies outside of {pan}", path=fused, cure="give the PAN that it was sharpened with"
                )
            self.extent = extent
            self.estimates = self._survey(mtf)
            self.registration = self.estimates.registration if align and self.estimates else None
            truth = None if reference is None else self._reference(reference, options)
            self.judged = self._judged(_reader([self.fused], _moved(extent, self.place)), truth)
        except BaseException:
            self.close()
            raise

    @property
    def trained_on(self) -> tuple[str, ...]:
        """Figures that do not judge this result freely, since the network that made it was trained on close ones."""
        return TRAINED_ON if "CROSSDIFF_WEIGHTS" in self.fused.tags else ()

    def report(self) -> QualityReport:
        """Score the result.

        Raises:
            SceneError: nothing valid to judge.
        """
        report = assess(self.judged)
        if report.d_lambda is None and report.r_ergas is None:
            raise SceneError(
                f"it has no valid pixel under the result {self.fused.path}",
                path=self.pair.ms[0].path,
                cure="check the nodata values",
            )
        return report

    def close(self) -> None:
        """Close all files."""
        for opened in self._open:
            opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _raster(self, path: str, options: PairOptions) -> Raster:
        raster = Raster(path, nodata=options.nodata_value, ignore_nodata=options.ignore_nodata)
        self._open.append(raster)
        return raster

    def _survey(self, mtf: Mtf) -> SceneEstimates | None:
        try:
            return survey(self.pair.sample_windows(), self.pair.grid, self.pair.bands, EstimateOptions(mtf=mtf))
        except SceneError:
            return None

    def _check_bands(self, raster: Raster, role: str) -> None:
        if raster.count != self.pair.band_count:
            raise SceneError(
                f"the {role} does not have the bands of the MS",
                path=raster.path,
                found=raster.count,
                expected=self.pair.band_count,
                cure="give the MS that it was made from",
            )

    def _place(self, raster: Raster, role: str) -> Window:
        """Where a raster lies on the PAN grid."""
        pan = self.pair.pan
        if not (raster.georeferenced and pan.georeferenced):
            if raster.shape != pan.shape:
                raise SceneError(
                    f"the {role} does not have the size of {pan.path}, and there is no georeference to place it by",
                    path=raster.path,
                    found=f"{raster.shape[1]} x {raster.shape[0]}",
                    expected=f"{pan.shape[1]} x {pan.shape[0]}",
                )
            return Window(0, 0, *pan.shape)
        where = locate_on_grid(pan.transform, raster.transform, raster.shape)
        if where is None or (raster.crs and pan.crs and raster.crs != pan.crs):
            raise SceneError(
                f"the {role} is not on the grid of {pan.path}: pixel size, rotation, CRS or the sub-pixel shift differ",
                path=raster.path,
                cure="give the PAN that it was sharpened with",
            )
        return where

    def _reference(self, path: str, options: PairOptions) -> Reader:
        raster = self._raster(path, options)
        self._check_bands(raster, "reference")
        where = self._place(raster, "reference")
        if where.intersection(self.extent) != self.extent:
            raise SceneError(
                "the reference does not cover the result",
                path=path,
                found=f"{raster.shape[1]} x {raster.shape[0]}",
                expected=f"{self.extent.width} x {self.extent.height}",
                cure="give one of the same size",
            )
        return _reader([raster], _moved(self.extent, where))

    def _judged(self, fused: Reader, reference: Reader | None) -> Judged:
        pair, extent = self.pair, self.extent
        found = self.registration or Registration()
        margin = EXPAND_RADIUS + 1 + math.ceil(found.farthest((extent.row, extent.col), extent.stop) / pair.ratio)
        under = pair.grid.ms_window(extent, margin).intersection(Window(0, 0, *pair.ms_shape))
        if under is None:
            raise SceneError(
                f"the result and {pair.ms[0].path} do not overlap",
                path=self.fused.path,
                cure="give the MS that it was made from",
            )
        self.under = under
        table = tuple(band.nyquist_gain for band in pair.bands)
        gains = table if self.estimates is None else self.estimates.nyquist_gains
        return Judged(
            fused=fused,
            pan=_reader([pair.pan], (extent.row, extent.col)),
            ms=_reader(pair.ms, (under.row, under.col)),
            shape=extent.shape,
            ms_shape=under.shape,
            grid=GridMapping(
                found.ratio(pair.grid.ratio),
                found.offset(pair.grid.local_offset(extent, under), (extent.row, extent.col)),
            ),
            gains=gains,
            table_gains=None if gains == table else table,
            reference=reference,
        )


def _moved(extent: Window, raster: Window) -> tuple[int, int]:
    return extent.row - raster.row, extent.col - raster.col


def _reader(rasters: Sequence[Raster], origin: tuple[int, int]) -> Reader:
    """Read all bands of `rasters`; windows count from `origin` (row, column)."""

    def read_part(window: Window) -> tuple[Tensor, Tensor]:
        there = Window(window.row + origin[0], window.col + origin[1], window.height, window.width)
        parts = [raster.read(there) for raster in rasters]
        mask = np.logical_and.reduce([mask for _, mask in parts])
        return torch.from_numpy(np.concatenate([data for data, _ in parts])), torch.from_numpy(mask)

    return read_part
