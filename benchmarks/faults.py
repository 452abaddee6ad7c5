"""Which metric sees which fault: known faults put into the true result of the example scene, one row each.

    python benchmarks/faults.py

The example goes one ratio down (`crossdiff degrade`), so that its MS is the true result. Markdown on stdout; the table
of docs/quality.md.
"""

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from crossdiff_cli.geometry.window import Window
from crossdiff_cli.imaging.resample import low_pass
from crossdiff_cli.io.open_pair import open_pair
from crossdiff_cli.io.raster import Raster
from crossdiff_cli.quality.assess import assess_arrays
from crossdiff_cli.quality.baselines import BASELINES
from crossdiff_cli.tasks.degrade import degrade

EXAMPLES = Path(__file__).parents[1] / "examples"
FIGURES = {
    "d_lambda": "D_λ", "d_s": "D_s", "hqnr": "HQNR", "d_rho": "D_ρ", "r_ergas": "R-ERGAS", "r_sam": "R-SAM",
    "ergas": "ERGAS", "sam": "SAM", "q2n": "Q2n", "scc": "SCC", "ssim": "SSIM",
}  # fmt: skip
RED, NIR = 2, 3


def faults(truth: Tensor, pan: Tensor, ms: Tensor) -> dict[str, Tensor]:
    """Results with one fault each, from the true one (bands, rows, columns), PAN and MS."""
    torch.manual_seed(0)
    blurred = low_pass(truth[None], [0.3] * len(truth), (2.0, 2.0))[0]
    mean = truth.mean((1, 2), keepdim=True)
    redder, shifted = truth.clone(), truth.clone()
    redder[RED] *= 1.1
    shifted[NIR] = truth[NIR].roll(1, 1)
    matched = (pan - pan.mean()) / pan.std() * ms.std((1, 2), keepdim=True) + ms.mean((1, 2), keepdim=True)
    return {
        "none: the truth": truth,
        "blurred, σ of one pixel": blurred,
        "detail half as strong again": truth + 0.5 * (truth - blurred),
        "noise, 5 % of the mean": truth + 0.05 * mean * torch.randn(truth.shape, dtype=truth.dtype),
        "red 10 % brighter": redder,
        "all bands 10 % brighter": truth * 1.1,
        "moved by one pixel": truth.roll(1, 2),
        "NIR moved by one pixel": shifted,
        "PAN in every band": pan.expand_as(truth),
        "the same, mean and deviation of the MS": matched,
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = degrade(str(EXAMPLES / "pan.tif"), [str(EXAMPLES / "ms.tif")], Path(folder) / "wald")
        with open_pair(made.pan, [made.ms]) as pair, Raster(made.reference) as reference:
            pan, ms, truth = (
                torch.from_numpy(raster.read(Window(0, 0, *raster.shape))[0]).double()
                for raster in (pair.pan, pair.ms[0], reference)
            )
            ratio, offset = pair.grid.ratio, pair.grid.offset
            gains = made.nyquist_gains
    results = faults(truth, pan, ms)
    results |= {name: BASELINES[name](pan, ms, ratio, offset, gains, None) for name in ("EXP", "MTF-GLP-HPM-R")}
    print("| fault | " + " | ".join(FIGURES.values()) + " |")
    print("| --- |" + " ---: |" * len(FIGURES))
    for name, fused in results.items():
        figures = assess_arrays(fused, pan, ms, ratio, offset, gains, reference=truth).as_dict()
        print(f"| {name} | " + " | ".join(f"{figures[key]:.3f}" for key in FIGURES) + " |")


if __name__ == "__main__":
    main()
