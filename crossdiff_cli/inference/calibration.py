"""Calibration of the int8 network: activation ranges from a synthetic window with the statistics of scenes."""

import logging
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from crossdiff_cli.geometry.grid import GridMapping
from crossdiff_cli.geometry.window import Window
from crossdiff_cli.imaging.sensor_model import SensorModel, to_ms
from crossdiff_cli.inference.int8 import Int8Block
from crossdiff_cli.inference.strips import StripNetwork
from crossdiff_cli.model.crossdiff import CrossDiff
from crossdiff_cli.model.spectral import Spectrum

_log = logging.getLogger(__name__)

_SIZE, _RATIO = 192, 4
_LARGEST_ERROR = 0.02
"""Largest RMS error, in band deviations, that int8 may cause; the shipped weights make a sixteenth of it."""


def quantised(model: CrossDiff, spectrum: Spectrum, gains: Sequence[float]) -> StripNetwork | None:
    """Bind `model` with its residual blocks in int8; None, with a warning, where that fails or errs too much.

    The ranges follow from the weights and the bands alone, so that every part of a scene is treated alike.

    Args:
        model: on the CPU, channels-last.
        spectrum: of the bands that it is to fuse.
        gains: their Nyquist gains.
    """
    network = StripNetwork(model, spectrum, torch.float32, make_block=Int8Block)
    try:
        error = _calibrate(network, gains)
    except RuntimeError as failure:  # the operators are not part of what PyTorch promises to keep
        _log.warning("this PyTorch has no int8 as it is needed (%s): float32 is used", str(failure).splitlines()[0])
        return None
    if not error < _LARGEST_ERROR:  # nor where it is NaN
        _log.warning("int8 would be wrong by %.2g of a band's deviation with these weights: float32 is used", error)
        return None
    return network


def _calibrate(network: StripNetwork, gains: Sequence[float]) -> float:
    """Let the blocks observe the range of their images; return the RMS error of int8, in band deviations."""
    sensor_model = SensorModel(GridMapping((_RATIO, _RATIO), (0.0, 0.0)), tuple(gains))
    pan, ms = _window(sensor_model)
    whole = Window(0, 0, _SIZE, _SIZE)
    with torch.inference_mode():
        exact, rounded = (network.fuse(pan, ms, sensor_model, whole, iterations=0)[0].clone() for _ in range(2))
    return float((rounded - exact).square().mean().sqrt())


def _window(sensor_model: SensorModel) -> tuple[Tensor, Tensor]:
    """PAN (1, 1, H, W) and MS (1, C, h, w), normalised: edges at every scale above, noise below."""
    generator = torch.Generator().manual_seed(0)
    images = torch.zeros(1, len(sensor_model.nyquist_gains) + 1, _SIZE, _SIZE)
    for octave in range(6):
        size = _SIZE >> octave
        common, own = (torch.randn(1, n, size, size, generator=generator) for n in (1, images.shape[1]))
        images += 2 ** (octave / 2) * F.interpolate(common + 0.5 * own, size=(_SIZE, _SIZE))
    images = images[:, :, : _SIZE // 2]
    noise = torch.randn(images.shape, generator=generator)
    images = torch.cat([x / x.std(dim=(2, 3), keepdim=True) for x in (images, noise)], dim=2)
    ms = to_ms(images[:, 1:].contiguous(), (_SIZE // _RATIO, _SIZE // _RATIO), sensor_model)
    ms[:, :, _SIZE // _RATIO // 2 :] *= 3  # noise, once it is degraded, has little left
    return images[:, :1].contiguous(), ms
