"""`bind`: the network made ready for one scene, by the backend that suits device and precision."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from crossdiff_cli.geometry.window import Window
from crossdiff_cli.imaging.sensor_model import SensorModel, to_ms
from crossdiff_cli.inference.calibration import quantised
from crossdiff_cli.inference.strips import StripNetwork
from crossdiff_cli.model.crossdiff import CrossDiff
from crossdiff_cli.model.device import PRECISIONS
from crossdiff_cli.model.spectral import Spectrum
from crossdiff_cli.options import Backend


class BoundNetwork(Protocol):
    """A network for the bands of one scene."""

    def fuse(
        self, pan: Tensor, ms: Tensor, sensor_model: SensorModel, core: Window, iterations: int
    ) -> tuple[Tensor, Tensor]:
        """Return the core of a window, and the MS residual of the result: `StripNetwork.fuse` says how."""


class ReferenceNetwork:
    """The module itself, on the whole window: what every other backend is judged by."""

    def __init__(self, model: CrossDiff, spectrum: Spectrum, dtype: torch.dtype) -> None:
        """`model` is on the device of the spectrum; its convolutions work in `dtype`."""
        self._model, self._spectrum, self._dtype = model, spectrum, dtype

    def fuse(
        self, pan: Tensor, ms: Tensor, sensor_model: SensorModel, core: Window, iterations: int
    ) -> tuple[Tensor, Tensor]:
        """As `StripNetwork.fuse`."""
        hrms = self._model.fuse(pan, ms, sensor_model, self._spectrum, iterations, self._dtype)
        return core.crop(hrms), ms - to_ms(hrms, (ms.shape[2], ms.shape[3]), sensor_model)


def bind(
    model: CrossDiff,
    spectrum: Spectrum,
    gains: Sequence[float],
    device: torch.device,
    dtype: torch.dtype,
    backend: Backend = "auto",
) -> tuple[BoundNetwork, str]:
    """Bind a network to the bands of a scene; later changes of `model` are not seen but by the reference.

    Args:
        model: on `device`.
        spectrum: of the bands, and the ratio.
        gains: Nyquist gain of each band.
        device: to compute on.
        dtype: precision of the convolutions; int8 for residual blocks alone, the others then work in float32.
        backend: `reference` computes whole windows by the module itself, `strips` windows strip by strip with little
            memory, `whole` the same in one piece, with the fewest operators; `auto` takes `whole` on a GPU, else
            `strips`.

    Returns:
        The bound network and the name of its precision: fp32 where int8 was asked for and does not do.
    """
    spectrum = spectrum.to(device)
    if backend == "reference":
        dtype = torch.float32 if dtype == torch.int8 else dtype
        return ReferenceNetwork(model, spectrum, dtype), PRECISIONS[dtype]
    if dtype == torch.int8:
        network = quantised(model, spectrum, gains)
        if network is not None:
            return network, PRECISIONS[dtype]
        dtype = torch.float32
    whole = backend == "whole" or (backend == "auto" and device.type == "cuda")
    return StripNetwork(model, spectrum, dtype, whole=whole), PRECISIONS[dtype]
