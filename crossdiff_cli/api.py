"""The public Python interface: the commands on files, fusion of arrays, and the network itself."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
import torch
from affine import Affine

from crossdiff_cli.errors import OptionError
from crossdiff_cli.io.arrays import DTYPES, read_array, write_array
from crossdiff_cli.io.labelled import grid_of, is_labelled, labelled
from crossdiff_cli.model import weights as weight_file
from crossdiff_cli.model.crossdiff import CrossDiff
from crossdiff_cli.options import DegradeOptions, Mtf, OutputOptions, PairOptions, SharpenOptions
from crossdiff_cli.quality.files import JudgedFiles
from crossdiff_cli.quality.report import QualityReport
from crossdiff_cli.system.weight_files import BUNDLED, bundled_weights
from crossdiff_cli.tasks import degrade as degrade_task
from crossdiff_cli.tasks import describe as describe_task
from crossdiff_cli.tasks import sharpen as sharpen_task

File = str | os.PathLike[str]
Array = TypeVar("Array", np.ndarray[Any, Any], torch.Tensor, Any)


def sharpen(
    pan: File, ms: File | Sequence[File], target: File, options: SharpenOptions | None = None
) -> sharpen_task.SharpenResult:
    """Fuse a PAN and an MS file into `target`, like `crossdiff sharpen`.

    Args:
        pan: panchromatic image, or a delivery (folder or metadata file).
        ms: one multispectral image, or one image per band.
        target: GeoTIFF to write; it holds a complete result or is not touched.
        options: the settings of the command.

    Raises:
        CrossDiffError: any bad input, with what was found, what was expected and the cure.
    """
    return sharpen_task.sharpen(os.fspath(pan), _paths(ms), Path(target), options)


def fuse(
    pan: Array,
    ms: Array,
    *,
    sensor: str = "auto",
    bands: tuple[str, ...] | None = None,
    ratio: float | tuple[float, float] | None = None,
    offset: tuple[float, float] = (0.0, 0.0),
    options: SharpenOptions | None = None,
) -> Array:
    """Fuse a PAN and an MS array, as `sharpen` fuses files.

    Missing pixels are those masked in a numpy masked array, and NaN in arrays of floating point; they are missing in
    the result too. Of xarray.DataArrays the coordinates say how the MS lies on the PAN, and the result has them. The
    arrays and the result go through temporary files.

    Args:
        pan: (H, W), digital numbers; a numpy array, a torch tensor or an xarray.DataArray.
        ms: (C, h, w), digital numbers of the same kind.
        sensor: key of the sensor, as `crossdiff sensors` lists them; `auto` takes typical values.
        bands: names of the MS bands in their order, such as ("B", "G", "R", "NIR").
        ratio: PAN pixels per MS pixel, one number or (rows, columns); None takes it from the coordinates or the shapes.
        offset: upper left corner of the MS in PAN pixels, (row, column).
        options: further settings; `sensor` and `bands` replace those of its `pair`, and its `output` is not used.

    Returns:
        (C, H, W), of the kind, dtype and device of `ms`. Where the MS does not cover the PAN, pixels are missing in a
        masked array, NaN in floating point and 0 otherwise.

    Raises:
        OptionError: arrays of the wrong number of dimensions, without pixels, or of a dtype that GeoTIFF has not.
        CrossDiffError: as `sharpen`.
    """
    pan_dn, ms_dn = _numpy(pan), _numpy(ms)
    _check_arrays(pan_dn, ms_dn)
    options = options or SharpenOptions()
    pair = replace(options.pair, sensor=sensor, bands=bands)
    output = OutputOptions(extent="pan")
    if ratio is None and is_labelled(pan) and is_labelled(ms) and (grid := grid_of(pan, ms)):
        ratio, offset = grid.ratio, grid.offset
    elif ratio is None:
        ratio = (pan_dn.shape[0] / ms_dn.shape[1], pan_dn.shape[1] / ms_dn.shape[2])
    rows, columns = (ratio, ratio) if isinstance(ratio, (int, float)) else ratio
    place = Affine.translation(offset[1], offset[0]) @ Affine.scale(columns, rows)
    with TemporaryDirectory(prefix="crossdiff-") as folder:
        files = [Path(folder) / name for name in ("pan.tif", "ms.tif", "fused.tif")]
        write_array(files[0], pan_dn[None])
        write_array(files[1], ms_dn, place)
        sharpen(files[0], files[1], files[2], replace(options, pair=pair, output=output))
        fused = read_array(files[2], masked=isinstance(ms_dn, np.ma.MaskedArray))
    if isinstance(ms, torch.Tensor):
        return torch.from_numpy(fused).to(ms.device)
    if is_labelled(pan) and is_labelled(ms):
        return labelled(fused, pan, ms)
    return fused


def assess(
    fused: File,
    pan: File,
    ms: File | Sequence[File],
    reference: File | None = None,
    options: PairOptions | None = None,
    *,
    align: bool = False,
    mtf: Mtf = "auto",
) -> QualityReport:
    """Score a result against the PAN and MS it was made from, and a reference if there is one.

    Args:
        fused: the result, on the PAN grid or a part of it.
        pan: panchromatic image.
        ms: one multispectral image, or one image per band.
        reference: the true result on the PAN grid.
        options: sensor, bands and nodata, where the files do not say.
        align: score on the estimated grid of the MS instead of the georeferenced one.
        mtf: by which the result is degraded to be compared with the MS: `auto` estimates it on the scene.

    Raises:
        SceneError: files that cannot be read or do not belong together.
        SensorError: unknown sensor, or bands that do not fit.
    """
    truth = None if reference is None else os.fspath(reference)
    with JudgedFiles(os.fspath(fused), os.fspath(pan), _paths(ms), truth, options, align=align, mtf=mtf) as files:
        return files.report()


def degrade(
    pan: File, ms: File | Sequence[File], folder: File, options: DegradeOptions | None = None
) -> degrade_task.DegradeResult:
    """Write the reduced-resolution pair of Wald's protocol and its reference to `folder`.

    Raises:
        CrossDiffError: as `sharpen`.
    """
    return degrade_task.degrade(os.fspath(pan), _paths(ms), Path(folder), options)


def describe(pan: File, ms: File | Sequence[File], options: PairOptions | None = None) -> dict[str, Any]:
    """Return sensor, bands, grids, registration and noise of a pair as plain types, without sharpening it.

    Raises:
        SceneError, SensorError: the pair cannot be sharpened, and why.
    """
    return describe_task.describe(os.fspath(pan), _paths(ms), options)


def load_model(weights: File = "open", device: torch.device | str = "cpu") -> CrossDiff:
    """Load a network, whose `fuse` is the method on normalised tensors, differentiable.

    Args:
        weights: a weight file, or the name of bundled weights: `open` or `all`.
        device: where the network is placed.

    Raises:
        WeightsError: the file is missing, damaged or not CrossDiff's.
    """
    name = os.fspath(weights)
    return weight_file.load(bundled_weights(name) if name in BUNDLED else Path(name), device)[0]


def _check_arrays(pan: np.ndarray[Any, Any], ms: np.ndarray[Any, Any]) -> None:
    if pan.ndim != 2 or ms.ndim != 3:
        raise OptionError(
            "fuse takes the PAN as (H, W) and the MS as (C, h, w)",
            found=f"shapes {pan.shape} and {ms.shape}",
            cure="drop or add axes, such as pan[0] or ms[None]",
        )
    for name, image in (("PAN", pan), ("MS", ms)):
        if image.size == 0 or image.dtype.name not in DTYPES:
            raise OptionError(
                f"fuse cannot take this {name}",
                found=f"shape {image.shape}, dtype {image.dtype}",
                expected=f"pixels of dtype {', '.join(DTYPES)}",
            )


def _paths(ms: File | Sequence[File]) -> tuple[str, ...]:
    return (os.fspath(ms),) if isinstance(ms, (str, os.PathLike)) else tuple(os.fspath(path) for path in ms)


def _numpy(image: Any) -> np.ndarray[Any, Any]:
    if is_labelled(image):
        return np.asanyarray(image.values)
    if not isinstance(image, torch.Tensor):
        return np.asanyarray(image)
    if image.dtype == torch.bfloat16:
        raise OptionError("fuse cannot take tensors of bfloat16", cure="convert them with .float()")
    return image.detach().cpu().numpy()
