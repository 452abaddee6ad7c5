"""How noisy PAN and MS are, told by a few windows of the scene."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from crossdiff_cli.estimate.matching import PanDegradation, SampleWindow
from crossdiff_cli.estimate.registration import Registration
from crossdiff_cli.imaging.regression import least_squares, solve_normal_equations
from crossdiff_cli.imaging.resample import Pixels

_BLOCK = 12
"""Side of the blocks that are told apart, in pixels."""
_MIN_BLOCKS = 16
"""Blocks under which nothing is said of the noise."""


def ms_noise(samples: Sequence[SampleWindow], degradation: PanDegradation, place: Registration) -> Tensor:
    """Deviation of the white noise of each MS band, in the unit of the MS: (C,) float32.

    That of what remains of a band after a regression on the other bands and the PAN, all high-passed. 0 where too
    little is valid. `place` is where the MS lies.
    """
    seen = [degradation.pan_on_ms_grid(sample, place.displacement(sample.middle)) for sample in samples]
    images = [torch.cat([sample.ms, pan[None]]) for sample, pan in zip(samples, seen, strict=True)]
    blocks = torch.cat([_blocks(image, sample.mask) for image, sample in zip(images, samples, strict=True)])
    bands = blocks.shape[1] - 1
    blocks = blocks.double()
    fine = _fine(blocks)
    covariance = torch.einsum("nirc,njrc->ij", fine, fine)
    levels = []
    for band in range(bands):
        others = [other for other in range(bands + 1) if other != band]
        system, wanted = covariance[others][:, others], covariance[others, band, None]
        weights = solve_normal_equations(system, wanted)[:, 0]
        levels.append(_level(blocks[:, band] - torch.einsum("j,njrc->nrc", weights, blocks[:, others])))
    return torch.tensor(levels)


def pan_noise(samples: Sequence[SampleWindow], ratio: Pixels) -> float:
    """Deviation of the white noise of the PAN, in its unit; 0 where too little is valid."""
    return _level(torch.cat([_blocks(sample.pan[0], sample.pan_mask(ratio)) for sample in samples])[:, 0])


def _level(blocks: Tensor) -> float:
    """Deviation of the white noise of an image, of blocks (blocks, rows, columns) of it.

    High-passed, a block with noise of deviation n and texture has the power n^2 + c t, and once 2 x 2 pixels are
    averaged n^2 / 4 + t: texture is smoother than noise, by a factor of the sensor. A regression of one on the other
    over the blocks finds n and c; it takes relative errors, so that those decide in which noise is not lost in texture.
    """
    images = blocks[:, None]
    powers = torch.stack(
        [_fine(i).square().mean(dim=(1, 2, 3)) for i in (images, F.avg_pool2d(images, 2))], dim=1
    ).double()
    powers = powers[powers[:, 0] > 0]  # the others are saturated or filled
    if len(powers) < _MIN_BLOCKS:
        return 0.0
    fine, coarse = powers.T
    weights = 1 / (fine + coarse)
    system = torch.stack([weights, coarse * weights], dim=1)
    level, slope = least_squares(system, (fine * weights)[:, None])[:, 0].tolist()
    return math.sqrt(max(0.0, level) / (1 - min(slope, 3.0) / 4))


def _fine(images: Tensor) -> Tensor:
    """(..., H, W) high-passed, without its border, by the second differences along both axes (Immerkaer 1996).

    They take out what is linear along rows or columns; a sixth of them keeps the deviation of white noise.
    """
    for axis in (-2, -1):
        count = images.shape[axis] - 2
        before, here, after = (images.narrow(axis, start, count) for start in range(3))
        images = before - 2 * here + after
    return images / 6


def _blocks(image: Tensor, valid: Tensor) -> Tensor:
    """Those blocks of an image (C, H, W) that are `valid` (H, W): (blocks, C, rows, columns), of mean 0."""

    def cut(whole: Tensor) -> Tensor:
        rows, cols = (size // _BLOCK for size in whole.shape[1:])
        part = whole[:, : rows * _BLOCK, : cols * _BLOCK].reshape(len(whole), rows, _BLOCK, cols, _BLOCK)
        return part.permute(1, 3, 0, 2, 4).reshape(rows * cols, len(whole), _BLOCK, _BLOCK)

    found = cut(image)[cut(valid[None]).flatten(1).all(dim=1)]
    return found - found.mean(dim=(2, 3), keepdim=True)
