"""Simulate a PAN from the bands of a sharp multispectral image."""

import torch
from torch import Generator, Tensor

_PAN_LOW_NM, _PAN_HIGH_NM = (430.0, 530.0), (680.0, 920.0)
"""Ranges that the ends of the PAN band are drawn from."""
_OUTSIDE = 0.02
"""Response of the PAN to a band beyond its range."""


def draw_pan_range(generator: Generator) -> Tensor:
    """Draw the lower and upper wavelength of a PAN band: (2,), in nm."""
    ends = torch.tensor([_PAN_LOW_NM, _PAN_HIGH_NM])
    return ends[:, 0] + (ends[:, 1] - ends[:, 0]) * torch.rand(2, generator=generator)


def draw_mixture(hrms: Tensor, center_nm: Tensor, pan_nm: Tensor, generator: Generator) -> Tensor:
    """Mix the bands of `hrms` (1, C, H, W) by a random response of the PAN within its range: (1, 1, H, W)."""
    seen = ((center_nm > pan_nm[0]) & (center_nm < pan_nm[1])).float() + _OUTSIDE
    response = seen * torch.exp(0.5 * torch.randn(len(center_nm), generator=generator))
    return (hrms * (response / response.sum())[:, None, None]).sum(dim=1, keepdim=True)


def draw_function(hrms: Tensor, generator: Generator, hidden: int = 4) -> Tensor:
    """Return a random smooth function of the spectrum of each pixel: what a PAN sees between the bands.

    Args:
        hrms: (1, C, H, W), normalised.
        generator: of the draw.
        hidden: number of hyperbolic tangents that it is the sum of.

    Returns:
        (1, 1, H, W) with mean 0 and standard deviation 1.
    """
    inner = torch.randn(hidden, hrms.shape[1], generator=generator) / hrms.shape[1] ** 0.5
    outer = torch.randn(1, hidden, generator=generator)
    bias = 0.5 * torch.randn(hidden, 1, 1, generator=generator)
    return standardised(
        torch.einsum("oh,bhij->boij", outer, torch.tanh(torch.einsum("hc,bcij->bhij", inner, hrms) + bias))
    )


def standardised(image: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return an image (..., H, W) with mean 0 and standard deviation 1 over the pixels of `mask` (H, W)."""
    valid = image if mask is None else image[..., mask]
    return (image - valid.mean()) / valid.std().clamp_min(1e-6)
