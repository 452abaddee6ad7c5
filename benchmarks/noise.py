"""White noise put into PAN or MS, one ratio down: how near to the truth does a method stay, which has none of it?

    python benchmarks/noise.py index.json -m crossdiff=weights.safetensors -m "off=weights.safetensors,noise=off" -m GSA

Means over the scenes of the split `validation`, by image and by the deviation of the noise in deviations of each band.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import fmean

import numpy as np
import rasterio
from quality import evaluate, parser_of, validation_cases
from quality_methods import Case, parse_methods, write

from crossdiff_cli.estimate.survey import survey
from crossdiff_cli.imaging.quantise import array_to_dtype
from crossdiff_cli.io.open_pair import open_pair

LEVELS = (0.0, 0.03, 0.06, 0.12)
_FIGURES = ("ergas", "sam", "scc")


def with_noise(case: Case, image: str, share: float, folder: Path) -> tuple[Case, float]:
    """The case with noise of `share` of each band's deviation in its `pan` or `ms`, on disk, and the share measured."""
    with rasterio.open(getattr(case, image)) as file:
        data, mask = file.read().astype("float64"), file.dataset_mask() > 0
        deviation = data[:, mask].std(axis=1)[:, None, None]
        noise = np.random.default_rng(0).normal(size=data.shape) * share * deviation
        path = folder / f"{case.scene}.{image}.{share}.tif"
        whole = array_to_dtype((data + noise * mask).astype("float32"), mask, file.dtypes[0], file.nodata)
        write(path, whole, file.transform, file.crs, file.nodata)
    noisy = replace(case, **{image: str(path)})
    with open_pair(noisy.pan, [noisy.ms], noisy.options) as pair:
        found = survey(pair.sample_windows(), pair.grid, pair.bands)
    levels = [found.pan_noise_dn] if image == "pan" else found.ms_noise_dn
    return noisy, fmean(level / band for level, band in zip(levels, deviation.flat, strict=True))


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser_of(__doc__).parse_args(arguments)
    logging.disable(logging.WARNING)
    methods, _ = parse_methods(options.method)
    figures: dict[tuple[str, float, str], list[list[float]]] = {}
    levels: dict[tuple[str, float], list[float]] = {}
    for scene, folder in validation_cases(options.manifest, options.aside):
        clean = next(case for case in scene if case.scale == "reduced")
        for image, share in product(("pan", "ms"), LEVELS):
            case, measured = with_noise(clean, image, share, folder)
            levels.setdefault((image, share), []).append(measured)
            for name, method in methods.items():
                row = evaluate(case, name, method, folder)
                figures.setdefault((image, share, name), []).append([row[key] for key in _FIGURES])
    print("| noise in | added | measured | method | ERGAS | SAM | SCC |")
    print("|---|---:|---:|---|---:|---:|---:|")
    for (image, share, name), rows in figures.items():
        ergas, sam, scc = (fmean(column) for column in zip(*rows, strict=True))
        level = fmean(levels[image, share])
        print(f"| {image.upper()} | {share:g} | {level:.3f} | {name} | {ergas:.3f} | {sam:.3f} | {scc:.4f} |")


if __name__ == "__main__":
    main()
