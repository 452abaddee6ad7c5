"""The methods that `quality.py` compares: each takes a case on disk and writes its result as a GeoTIFF."""

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import rasterio
import torch
from quality_table import TRUTH

from crossdiff_cli.geometry.window import Window
from crossdiff_cli.imaging.quantise import array_to_dtype
from crossdiff_cli.io.open_pair import open_pair
from crossdiff_cli.options import (
    EstimateOptions,
    NetworkOptions,
    OutputOptions,
    PairOptions,
    Precision,
    RuntimeOptions,
    SharpenOptions,
)
from crossdiff_cli.quality.baselines import BASELINES
from crossdiff_cli.tasks.sharpen import sharpen

OTB = "otbcli_BundleToPerfectSensor"
GDAL = "gdal_pansharpen.py"
EXTERNAL = ("gdal_pansharpen", "otb-rcs", "otb-lmvm", "otb-bayes")


class MethodError(Exception):
    """A method that gave no result for a case, and why."""


@dataclass(frozen=True, slots=True)
class Case:
    """A pair on disk, georeferenced, at one of three scales; `reference` is its true result where that is known."""

    scene: str
    sensor: str
    bands: tuple[str, ...]
    scale: str
    """`full`, `reduced` or `natural`."""
    pan: str
    ms: str
    reference: str | None

    @property
    def options(self) -> PairOptions:
        """What the files do not say."""
        return PairOptions(sensor=self.sensor, bands=self.bands)


Method = Callable[[Case, Path], None]
_PRECISIONS = get_args(Precision)


def parse_methods(specifications: list[str]) -> tuple[dict[str, Method], list[str]]:
    """Methods by name, and a line for each that cannot run here.

    A specification is `baselines`, the name of one, `external`, the name of an external tool, `truth` (the reference
    itself), `NAME=FILE.safetensors` for the network with those weights, with `,adapt=STEPS`, `,iterations=N`,
    `,align=off`, `,noise=off`, `,aliasing=off`, `,mtf=table` or `,precision=fp32` after it for how it is used, or
    `NAME=FOLDER` with results `SCENE.full.tif` and `SCENE.reduced.tif`.
    """
    methods: dict[str, Method] = {}
    missing = []
    for text in specifications:
        name, equals, value = text.partition("=")
        if equals:
            file, *changes = value.split(",")
            path = Path(file)
            if not path.exists():
                raise SystemExit(f"{path} does not exist: write NAME=FILE.safetensors or NAME=FOLDER")
            methods[name] = _finished(path) if path.is_dir() else _network(path, changes)
            continue
        for one in {"baselines": tuple(BASELINES), "external": EXTERNAL}.get(name, (name,)):
            if one in BASELINES:
                methods[one] = _baseline(one)
            elif one == TRUTH:
                methods[one] = _truth
            elif one in EXTERNAL:
                tool = GDAL if one == "gdal_pansharpen" else OTB
                if shutil.which(tool) is None:
                    missing.append(f"{one} is left out: {tool} is not installed")
                else:
                    methods[one] = _gdal if tool == GDAL else _orfeo(one.removeprefix("otb-"))
            else:
                raise SystemExit(f"no method {one!r}: any of {', '.join((*BASELINES, *EXTERNAL, TRUTH))}, or NAME=PATH")
    return methods, missing


def _baseline(name: str) -> Method:
    def run(case: Case, out: Path) -> None:
        with open_pair(case.pan, [case.ms], case.options) as pair:
            whole = Window(0, 0, *pair.pan.shape)
            pan, _ = pair.pan.read(whole)
            ms, _ = pair.ms[0].read(Window(0, 0, *pair.ms_shape))
            mask = pair.read(whole).valid
            gains = [band.nyquist_gain for band in pair.bands]
            fused = BASELINES[name](
                torch.from_numpy(pan), torch.from_numpy(ms), pair.grid.ratio, pair.grid.offset, gains,
                torch.from_numpy(mask),
            )  # fmt: skip
            data = array_to_dtype(fused.float().numpy(), mask, pair.dtype, pair.nodata)
            write(out, data, pair.pan.transform, pair.crs, pair.nodata)

    return run


def _truth(case: Case, out: Path) -> None:
    if case.reference is None:
        raise MethodError("no reference at this scale")
    shutil.copyfile(case.reference, out)


def _network(weights: Path, changes: list[str]) -> Method:
    used = dict(change.split("=", 1) for change in changes if "=" in change)
    precision = used.get("precision", "auto")
    if (
        len(used) < len(changes)
        or set(used) - {"adapt", "iterations", "align", "noise", "aliasing", "precision", "mtf"}
        or precision not in _PRECISIONS
    ):
        raise SystemExit(
            f"{','.join(changes)}: write adapt=STEPS, iterations=N, align=off, noise=off, aliasing=off, mtf=table or "
            f"precision={'|'.join(_PRECISIONS)} after the weights"
        )
    options = SharpenOptions(
        estimate=EstimateOptions(
            align=used.get("align") != "off",
            aliasing=used.get("aliasing") != "off",
            noise=used.get("noise") != "off",
            mtf="table" if used.get("mtf") == "table" else "auto",
        ),
        network=NetworkOptions(
            weights=weights,
            fine_tune_steps=int(used.get("adapt", 0)),
            iterations=int(used.get("iterations", NetworkOptions().iterations)),
        ),
        output=OutputOptions(extent="pan", overwrite=True),
        runtime=RuntimeOptions(precision=precision),
    )

    def run(case: Case, out: Path) -> None:
        sharpen(case.pan, [case.ms], out, replace(options, pair=case.options))

    return run


def _finished(folder: Path) -> Method:
    def run(case: Case, out: Path) -> None:
        source = folder / f"{case.scene}.{case.scale}.tif"
        if not source.is_file():
            raise MethodError(f"{source} does not exist")
        shutil.copyfile(source, out)

    return run


def _gdal(case: Case, out: Path) -> None:
    _call([GDAL, "-q", case.pan, case.ms, str(out)])


def _orfeo(algorithm: str) -> Method:
    def run(case: Case, out: Path) -> None:
        with rasterio.open(case.ms) as file:
            kind = {"uint8": "uint8", "uint16": "uint16", "int16": "int16"}.get(file.dtypes[0], "float")
        _call([OTB, "-inp", case.pan, "-inxs", case.ms, "-method", algorithm, "-progress", "false",
               "-out", str(out), kind])  # fmt: skip

    return run


def _call(command: list[str]) -> None:
    hidden = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "GDAL_DATA", "PROJ_LIB", "PROJ_DATA"}
    env = {name: value for name, value in os.environ.items() if name not in hidden} | {"OTB_LOGGER_LEVEL": "WARNING"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()
        raise MethodError(f"{command[0]} ended with {done.returncode}: {lines[-1]}")


def write(
    path: Path, data: np.ndarray, transform: rasterio.Affine, crs: rasterio.crs.CRS, nodata: float | None
) -> None:
    """Write (bands, rows, columns) as a plain GeoTIFF that every tool can read."""
    count, height, width = data.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": data.dtype.name,
               "transform": transform, "crs": crs, "nodata": nodata, "photometric": "MINISBLACK",
               "alpha": "NO"}  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        file.write(data)
