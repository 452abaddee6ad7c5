"""open_pair: from the names of PAN and MS to a ScenePair, with everything checked that headers can tell."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from affine import Affine

from crossdiff_cli.errors import NoOverlapError, RatioError, SceneError, SensorError
from crossdiff_cli.geometry.grid import GridMapping
from crossdiff_cli.io.hints import Hints
from crossdiff_cli.io.identify import Identification, UserChoice, detect_sensor, read_hints
from crossdiff_cli.io.inputs import Inputs, resolve
from crossdiff_cli.io.nodata import check_range, detect_undeclared_nodata
from crossdiff_cli.io.pair import ScenePair
from crossdiff_cli.io.raster import Raster
from crossdiff_cli.io.read_errors import no_sidecars
from crossdiff_cli.io.relate import apart, relate, same_crs
from crossdiff_cli.options import PairOptions
from crossdiff_cli.sensors.definitions import named_sensor
from crossdiff_cli.sensors.table import find_sensor

_log = logging.getLogger(__name__)

_MIN_RATIO, _MAX_RATIO = 1.25, 20.0


def open_pair(pan: str, ms: Sequence[str] = (), options: PairOptions | None = None) -> ScenePair:
    """Open and check a pair: resolve the names, open, check, find nodata, relate the grids, identify the sensor.

    Args:
        pan: the panchromatic image, or a delivery (folder or metadata file).
        ms: one multispectral image or delivery, or one file per band; nothing where `pan` is a delivery of both.
        options: sensor, bands and nodata, where the files do not say.

    Raises:
        SceneError: files that cannot be read or do not belong together.
        SensorError: unknown sensor, or bands that do not fit.
    """
    options = options or PairOptions()
    notes: list[str] = []
    with ExitStack() as opened, no_sidecars():
        inputs = resolve(pan, ms)
        opened.callback(inputs.close)
        notes += inputs.remarks
        pan_raster, ms_rasters = _open(inputs, options, opened)
        hints = [read_hints(raster.dataset()).select(raster.indexes) for raster in (pan_raster, *ms_rasters)]
        if not options.ignore_nodata:
            notes += detect_undeclared_nodata(pan_raster, ms_rasters)
        check_range((pan_raster, *ms_rasters))
        grid = relate(pan_raster, ms_rasters, notes)
        _check_ratio(grid, pan_raster.path, ms_rasters[0].path)
        footprint = grid.footprint(pan_raster.shape, ms_rasters[0].shape)
        if footprint is None:
            if pan_raster.georeferenced and ms_rasters[0].georeferenced:
                raise apart(pan_raster, ms_rasters[0].path, ms_rasters[0].shape, ms_rasters[0].transform)
            raise NoOverlapError(path=pan_raster.path, found=f"{ms_rasters[0].path} shows other ground by its RPCs")
        found = _identify(inputs, options, hints, sum(raster.count for raster in ms_rasters), sum(grid.ratio) / 2)
        if found.warning:
            notes.append(found.warning)
        for note in notes:
            _log.warning("%s", note)
        opened.pop_all()  # the pair closes them
        return ScenePair(
            pan_raster, ms_rasters, grid, footprint, found.sensor, found.bands, found.source, tuple(notes), inputs
        )


def _open(inputs: Inputs, options: PairOptions, opened: ExitStack) -> tuple[Raster, list[Raster]]:
    if options.bidx is not None and len(inputs.ms) != 1:
        raise SceneError(
            "--bidx picks bands of one MS file", found=f"{len(inputs.ms)} MS files", cure="name the files you want"
        )
    pan = opened.enter_context(_raster(inputs.pan, options, inputs.pan_nodata))
    ms = [opened.enter_context(_raster(path, options, inputs.ms_nodata, options.bidx)) for path in inputs.ms]
    if pan.count != 1:
        raise SceneError(
            "the PAN image has several bands", path=inputs.pan, found=f"{pan.count} bands",
            cure=f"give PAN before MS, or pick one: '{inputs.pan},band=1'",
        )  # fmt: skip
    for raster in ms[1:]:
        moved = [abs(a - b) for a, b in zip(~ms[0].transform @ raster.transform, Affine.identity(), strict=True)]
        if raster.shape != ms[0].shape or max(moved) > 1e-2 or not same_crs(raster, ms[0]):
            raise SceneError(
                "the MS bands lie on different grids", path=raster.path,
                found=f"{raster.shape[1]} x {raster.shape[0]} pixels",
                expected=f"{ms[0].shape[1]} x {ms[0].shape[0]} at the place of {ms[0].path}",
                cure="bring them to one grid first",
            )  # fmt: skip
    return pan, ms


def _raster(path: str, options: PairOptions, nodata: float | None, bands: Sequence[int] | None = None) -> Raster:
    """Open a file with the user's word on nodata, else the delivery's, else its own."""
    if options.nodata is not None:
        nodata = options.nodata_value
    return Raster(path, bands, nodata=nodata, ignore_nodata=options.ignore_nodata)


def _check_ratio(grid: GridMapping, pan: str, ms: str) -> None:
    rows, cols = grid.ratio
    ratio = (rows + cols) / 2
    if ratio < 1 / _MIN_RATIO:
        raise RatioError(
            "the PAN is coarser than the MS", path=pan, found=f"a PAN pixel is {1 / ratio:.3g} pixels of {ms}",
            cure="are PAN and MS swapped?",
        )  # fmt: skip
    if ratio < _MIN_RATIO:
        raise RatioError(
            "PAN and MS have the same pixel size: there is nothing to sharpen", path=ms, found=f"ratio {ratio:.3g}",
            cure="the MS is pansharpened already, or both were resampled to one pixel size",
        )  # fmt: skip
    if ratio > _MAX_RATIO:
        raise RatioError(
            "the MS is too coarse for the PAN", path=ms, found=f"an MS pixel is {ratio:.3g} PAN pixels",
            expected=f"at most {_MAX_RATIO:.0f}",
        )  # fmt: skip
    if abs(rows / cols - 1) > 0.1:
        raise RatioError(
            "PAN and MS differ in proportions", path=ms, found=f"ratio {cols:.3g} in x and {rows:.3g} in y"
        )


def _identify(inputs: Inputs, options: PairOptions, hints: Sequence[Hints], count: int, ratio: float) -> Identification:
    if options.bands is not None and len(options.bands) != count:
        raise SensorError(
            "--bands does not name every band of the MS", path=inputs.ms[0],
            found=f"{len(options.bands)} names ({','.join(options.bands)})", expected=count,
        )  # fmt: skip
    choice = UserChoice(None if options.sensor == "auto" else named_sensor(options.sensor), options.bands or ())
    if choice.sensor is None and inputs.sensor is not None:
        choice = replace(choice, sensor=find_sensor(inputs.sensor), source="delivery")
    if not choice.bands and choice.sensor is not None and inputs.bands:
        bands = tuple(inputs.bands[i - 1] for i in options.bidx) if options.bidx else inputs.bands
        choice = replace(choice, bands=bands)
    return detect_sensor(hints[0], hints[1:], count, ratio, choice)
