"""Accuracy of the estimated MTF, on pairs simulated from sharp multispectral images: Markdown on stdout.

    python benchmarks/mtf.py truth/*.tif

Each image is the truth of ratios 2 and 4: its PAN is a random mean of its bands, its MS is degraded by gains of .1 to
.7, 10 % apart from band to band, at an offset of up to half a PAN pixel, and both get white noise of 0, 0.5 or 2 % of
their deviation. The MS is registered as in `crossdiff sharpen` before its gains are estimated.
"""

import argparse
import logging
import math
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import rasterio
import torch
from torch import Tensor

from crossdiff_cli.estimate.matching import PanDegradation, SampleWindow
from crossdiff_cli.estimate.mtf import estimate_nyquist_gains
from crossdiff_cli.estimate.noise import pan_noise
from crossdiff_cli.estimate.registration import register
from crossdiff_cli.imaging.resample import degrade

_LARGEST = 1536
"""Side of the part of an image that is used, in pixels."""
_SIDE = 128
"""Side of the windows, in MS pixels."""
_WINDOWS = 9
_TRIALS = 4
_NANOMETRES = {3: (660, 550, 480), 4: (660, 550, 480, 830), 8: (440, 480, 545, 605, 660, 725, 830, 950)}
_CLASSES = ((0.08, 0.23), (0.23, 0.38), (0.38, 0.53), (0.53, 0.75))


def simulated(truth: Tensor, ratio: int, gains: Sequence[float], draw: random.Random) -> Iterator[SampleWindow]:
    """Windows of a pair whose MS has these gains; truth (C, H, W)."""
    generator = torch.Generator().manual_seed(draw.randrange(2**31))
    share = draw.choice((0.0, 0.005, 0.02))

    def noisy(image: Tensor) -> Tensor:
        deviation = image.std(dim=(-2, -1), keepdim=True)
        return image + share * deviation * torch.randn(image.shape, generator=generator)

    weights = torch.tensor([draw.random() for _ in gains])
    pan = noisy((truth * (weights / weights.sum())[:, None, None]).sum(dim=0, keepdim=True))[None]
    rows, cols = (size // ratio for size in truth.shape[1:])
    offset = draw.uniform(-0.5, 0.5), draw.uniform(-0.5, 0.5)
    ms = noisy(degrade(truth[None], (rows, cols), (ratio, ratio), offset, gains)[0])
    corners = [(row, col) for row in range(0, rows, _SIDE) for col in range(0, cols, _SIDE)]
    for row, col in corners[:_WINDOWS]:
        part = ms[:, row : row + _SIDE, col : col + _SIDE]
        mask = torch.zeros(part.shape[1:], dtype=torch.bool)
        mask[1:-1, 1:-1] = True
        window = pan[..., row * ratio : (row + _SIDE) * ratio, col * ratio : (col + _SIDE) * ratio]
        yield SampleWindow(window, part, mask, (0.0, 0.0), (float(row * ratio), float(col * ratio)))


def trial(truth: Tensor, ratio: int, draw: random.Random) -> tuple[list[tuple[float, float]], int, float]:
    """(true gain, error) of each band that has an estimate, the number of those that have none, and seconds."""
    middle = draw.uniform(0.1, 0.7)
    gains = [min(0.75, max(0.08, middle * math.exp(0.1 * draw.gauss(0, 1)))) for _ in truth]
    views = list(simulated(truth, ratio, gains, draw))
    found = register(views, PanDegradation((ratio, ratio), 0.3), (0.0, 0.0))
    noise = pan_noise(views, (ratio, ratio))
    started = time.perf_counter()
    estimates = estimate_nyquist_gains(views, (ratio, ratio), found, noise, _NANOMETRES[len(gains)])
    seconds = time.perf_counter() - started
    errors = [(gain, one.gain - gain) for gain, one in zip(gains, estimates, strict=True) if one]
    return errors, len(gains) - len(errors), seconds


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, nargs="+", help="multispectral GeoTIFFs of 3, 4 or 8 bands")
    options = parser.parse_args(arguments)
    logging.disable(logging.WARNING)
    draw = random.Random(0)
    print("| ratio | true gain | bands | without | median error | 95 % below | mean bias | longest, s |")
    print("|---:|---|---:|---:|---:|---:|---:|---:|")
    for ratio in (2, 4):
        pairs, without, longest = [], 0, 0.0
        for path in sorted(options.images):
            with rasterio.open(path) as file:
                image = file.read().astype("float32")[:, :_LARGEST, :_LARGEST]
            truth = torch.from_numpy(image / image.std())
            for _ in range(_TRIALS):
                errors, missing, seconds = trial(truth, ratio, draw)
                pairs += errors
                without, longest = without + missing, max(longest, seconds)
        for low, high in (*_CLASSES, (0.0, 1.0)):
            errors = np.array([error for gain, error in pairs if low <= gain < high])
            name = "all" if high == 1.0 else f"{low:.2f} to {high:.2f}"
            figures = f"{np.median(abs(errors)):.3f} | {np.quantile(abs(errors), 0.95):.3f} | {errors.mean():+.3f}"
            print(f"| {ratio} | {name} | {len(errors)} | {without} | {figures} | {longest:.2f} |")


if __name__ == "__main__":
    main()
