"""D_rho where the PAN has little contrast and where it has much: is what a method lacks of the PAN noise or structure?

    python benchmarks/sharpness.py index.json -m GSA -m MTF-GLP-HPM-R -m truth -m crossdiff=weights.safetensors

The windows of D_rho are parted into quarters by the variance of the PAN in them, scene by scene. Means over scenes.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import rasterio
import torch
from quality import parser_of, validation_cases
from quality_methods import Case, parse_methods
from quality_table import TRUTH, group_of

from crossdiff_cli.quality.d_rho import correlations

_PARTS = 4


def by_contrast(fused: torch.Tensor, pan: torch.Tensor, mask: torch.Tensor, ratio: int) -> list[float]:
    """D_rho in the quarters of the windows of `ratio` x `ratio` pixels, that with the flattest PAN first.

    Args:
        fused: (bands, rows, columns).
        pan: (1, rows, columns).
        mask: bool (rows, columns), True where both are valid.
        ratio: PAN pixels per MS pixel.
    """
    rho, contrast, use = correlations(fused, pan, mask, (ratio, ratio))
    order = contrast[use].argsort(stable=True)
    return [float(1 - part.mean()) for part in rho[:, use][:, order].tensor_split(_PARTS, dim=1)]


def judged(case: Case, path: Path) -> list[float]:
    """The quarters of one result."""
    with rasterio.open(path) as fused, rasterio.open(case.pan) as pan, rasterio.open(case.ms) as ms:
        mask = torch.from_numpy((fused.dataset_mask() > 0) & (pan.dataset_mask() > 0))
        images = (torch.from_numpy(raster.read().astype("float64")) for raster in (fused, pan))
        return by_contrast(*images, mask, round(pan.height / ms.height))


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser_of(__doc__).parse_args(arguments)
    logging.disable(logging.WARNING)
    methods, _ = parse_methods(options.method)
    found: dict[tuple[str, str, str], list[list[float]]] = {}
    for scene, folder in validation_cases(options.manifest, options.aside):
        for case in scene:
            for name, method in methods.items():
                if name == TRUTH and case.reference is None:
                    continue
                out = folder / f"{case.scale}.{len(found)}.tif"
                method(case, out)
                key = group_of(case.sensor), case.scale, name
                found.setdefault(key, []).append(judged(case, out))
    print("| group | scale | method | flattest quarter | second | third | most contrast |")
    print("|---|---|---|---:|---:|---:|---:|")
    for (group, scale, name), rows in sorted(found.items(), key=lambda item: item[0][:2], reverse=True):
        means = torch.tensor(rows, dtype=torch.float64).mean(dim=0).tolist()
        print(f"| {group} | {scale} | {name} | {' | '.join(f'{mean:.3f}' for mean in means)} |")


if __name__ == "__main__":
    main()
