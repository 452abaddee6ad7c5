"""How noisy the MS is: what a band shares with no other band and not with the PAN, in the quietest places."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from crossdiff_cli.matching import Optics, View
from crossdiff_cli.registration import Registration

_MASK = torch.tensor([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]]) / 6.0
"""Takes out what is linear along rows or columns and keeps the deviation of white noise (Immerkaer 1996)."""
_BLOCK = 8
"""Side of the blocks whose power is taken, in MS pixels."""
_QUIETEST = 0.03
"""Quantile of the blocks' power that is noise: structure is never in all of them."""
_ENOUGH = 16
"""Blocks under which nothing is said of the noise."""


def noise_of(samples: Sequence[View], optics: Optics, place: Registration) -> Tensor:
    """Deviation of the white noise of each MS band, in the unit of the MS: (C,) float32.

    What remains of a band after a regression on the other bands and the PAN, all high-passed, is noise and a little
    texture of its own; its quietest blocks decide. 0 where too little is valid. `place` is where the MS lies.
    """
    blocks = torch.cat([_blocks(sample, optics, place) for sample in samples])
    bands = blocks.shape[1] - 1
    if len(blocks) < _ENOUGH:
        return torch.zeros(bands)
    covariance = torch.einsum("nip,njp->ij", blocks, blocks)
    deviations = []
    for band in range(bands):
        others = [other for other in range(bands + 1) if other != band]
        system, wanted = covariance[others][:, others], covariance[others, band, None]
        weights = torch.linalg.lstsq(system, wanted, driver="gelsd").solution[:, 0]
        own = blocks[:, band] - torch.einsum("j,njp->np", weights, blocks[:, others])
        deviations.append(own.square().mean(dim=1).quantile(_QUIETEST).sqrt())
    return torch.stack(deviations).float()


def _blocks(sample: View, optics: Optics, place: Registration) -> Tensor:
    """High-passed MS bands and PAN in blocks of valid pixels: (blocks, C + 1, pixels) float64."""
    if min(sample.mask.shape) < _BLOCK + 2:
        return torch.zeros(0, len(sample.ms) + 1, _BLOCK**2, dtype=torch.float64)
    pan = optics.seen(sample, place.displacement(sample.middle))
    images = torch.cat([sample.ms, pan[None]])[:, None].double()
    fine = F.conv2d(images, _MASK.double()[None, None])[:, 0]
    valid = -F.max_pool2d(-sample.mask[None].float(), 3, stride=1) > 0

    def cut(image: Tensor) -> Tensor:
        rows, cols = (size // _BLOCK for size in image.shape[1:])
        part = image[:, : rows * _BLOCK, : cols * _BLOCK].reshape(-1, rows, _BLOCK, cols, _BLOCK)
        return part.permute(1, 3, 0, 2, 4).reshape(rows * cols, -1, _BLOCK**2)

    return cut(fine)[cut(valid).all(dim=2)[:, 0]]
