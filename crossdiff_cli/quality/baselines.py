"""The classical methods that a result is compared with: EXP, Brovey, GSA, MTF-GLP-FS, MTF-GLP-HPM-R, BDSD.

As defined in the toolbox of Vivone et al. (2021, doi 10.1109/MGRS.2020.3019315), on any ratio and offset: `mtf.expand`
takes the place of the 23-tap interpolation, `mtf.degrade` that of filtering and decimation. Every method takes

    pan     (1, rows, columns)
    ms      (bands, h, w)
    ratio   PAN pixels per MS pixel, (rows, columns)
    offset  PAN coordinates (row, column) of the outer corner of MS pixel (0, 0)
    gains   Nyquist gain of each band, or one for all
    mask    bool (rows, columns), the valid pixels of the PAN grid, whose statistics count; None if all

and returns (bands, rows, columns) in float64.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from types import MappingProxyType

import torch
from torch import Tensor

from crossdiff_cli.geometry.grid import GridMapping
from crossdiff_cli.imaging.regression import least_squares
from crossdiff_cli.imaging.resample import EXPAND_RADIUS, degrade, expand, low_pass, mtf_radius
from crossdiff_cli.quality.inputs import ms_mask
from crossdiff_cli.quality.windows import shrink

Axes = tuple[float, float]
Method = Callable[[Tensor, Tensor, Axes, Axes, Sequence[float], Tensor | None], Tensor]


def exp(
    pan: Tensor, ms: Tensor, ratio: Axes, offset: Axes, gains: Sequence[float], mask: Tensor | None = None
) -> Tensor:
    """EXP: the MS interpolated to the PAN grid, not sharpened."""
    return _pair(pan, ms, ratio, offset, gains, mask).ms_up


def brovey(
    pan: Tensor, ms: Tensor, ratio: Axes, offset: Axes, gains: Sequence[float], mask: Tensor | None = None
) -> Tensor:
    """Brovey: each band times PAN over the mean of the bands, PAN brought to its mean and deviation first."""
    pair = _pair(pan, ms, ratio, offset, gains, mask)
    intensity = pair.ms_up.mean(0, keepdim=True)
    scale = (_variance(intensity, pair.fine) / _variance(pair.pan, pair.fine)).sqrt()
    matched = (pair.pan - _mean(pair.pan, pair.fine)) * scale + _mean(intensity, pair.fine)
    return pair.ms_up * _quotient(matched, intensity)


def gsa(
    pan: Tensor, ms: Tensor, ratio: Axes, offset: Axes, gains: Sequence[float], mask: Tensor | None = None
) -> Tensor:
    """GSA (Aiazzi et al. 2007): the intensity is the regression of PAN on the MS, made at the scale of the MS."""
    pair = _pair(pan, ms, ratio, offset, gains, mask)
    bands = torch.cat([pair.ms, torch.ones_like(pair.ms[:1])])
    weights = least_squares(bands[:, pair.coarse].T, _pan_on_ms_grid(pair)[:, pair.coarse].T)
    intensity = (pair.ms_up * weights[:-1, :, None]).sum(0, keepdim=True)
    injection = _covariance(pair.ms_up, intensity, pair.fine) / _variance(intensity, pair.fine)
    detail = pair.pan - _mean(pair.pan, pair.fine) - intensity + _mean(intensity, pair.fine)
    return pair.ms_up + injection * detail


def mtf_glp_fs(
    pan: Tensor, ms: Tensor, ratio: Axes, offset: Axes, gains: Sequence[float], mask: Tensor | None = None
) -> Tensor:
    """MTF-GLP-FS (Vivone et al. 2018, doi 10.1109/TIP.2018.2819501): detail times its regression at full scale."""
    pair = _pair(pan, ms, ratio, offset, gains, mask)
    low = _low_pan(pair)
    gain = _covariance(pair.ms_up, pair.pan, pair.fine) / _covariance(low, pair.pan, pair.fine)
    return pair.ms_up + gain * (pair.pan - low)


def mtf_glp_hpm_r(
    pan: Tensor, ms: Tensor, ratio: Axes, offset: Axes, gains: Sequence[float], mask: Tensor | None = None
) -> Tensor:
    """MTF-GLP-HPM-R (Vivone et al. 2018, doi 10.1109/LGRS.2017.2779479): modulation by PAN fitted to the band."""
    pair = _pair(pan, ms, ratio, offset, gains, mask)
    low = _low_pan(pair)
    gain = _covariance(pair.ms_up, low, pair.fine) / _variance(low, pair.fine)
    haze = _mean(pair.ms_up, pair.fine) / gain - _mean(pair.pan, pair.fine)
    return pair.ms_up * _quotient(pair.pan + haze, low + haze)


def bdsd(
    pan: Tensor, ms: Tensor, ratio: Axes, offset: Axes, gains: Sequence[float], mask: Tensor | None = None
) -> Tensor:
    """BDSD (Garzelli et al. 2008), one block: detail as the linear form of MS and PAN that fits best one scale down."""
    pair = _pair(pan, ms, ratio, offset, gains, mask)
    ms_low = low_pass(pair.ms[None], pair.gains, ratio)[0]
    blur = (_blur_radius(pair.gains, ratio[0]), _blur_radius(pair.gains, ratio[1]))
    inside = shrink(pair.coarse, blur)
    use = inside if inside.any() else pair.coarse
    regressors = torch.cat([ms_low, _pan_on_ms_grid(pair)])
    weights = least_squares(regressors[:, use].T, (pair.ms - ms_low)[:, use].T)
    return pair.ms_up + torch.einsum("kb,kij->bij", weights, torch.cat([pair.ms_up, pair.pan]))


BASELINES: Mapping[str, Method] = MappingProxyType(
    {
        "EXP": exp,
        "Brovey": brovey,
        "GSA": gsa,
        "MTF-GLP-FS": mtf_glp_fs,
        "MTF-GLP-HPM-R": mtf_glp_hpm_r,
        "BDSD": bdsd,
    }
)
"""The methods by the names that the field gives them."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """What all methods start from, in float64, zeros where not finite.

    Attributes:
        pan: (1, rows, columns).
        ms: (bands, h, w).
        ms_up: (bands, rows, columns), the MS interpolated.
        fine: bool (rows, columns), where `ms_up` and a low-passed PAN come from valid pixels alone.
        coarse: bool (h, w), where the MS and PAN brought to its grid do.
        ratio: as given.
        offset: as given.
        gains: one for each band.
    """

    pan: Tensor
    ms: Tensor
    ms_up: Tensor
    fine: Tensor
    coarse: Tensor
    ratio: Axes
    offset: Axes
    gains: tuple[float, ...]


def _pair(pan: Tensor, ms: Tensor, ratio: Axes, offset: Axes, gains: Sequence[float], mask: Tensor | None) -> _Pair:
    shape, grid = (pan.shape[1], pan.shape[2]), GridMapping(ratio, offset)
    valid = torch.ones(shape, dtype=torch.bool) if mask is None else mask
    each = tuple(gains) * len(ms) if len(gains) == 1 else tuple(gains)
    blur = (_blur_radius(each, ratio[0]), _blur_radius(each, ratio[1]))
    reach = (blur[0] + ceil((EXPAND_RADIUS + 1) * ratio[0]), blur[1] + ceil((EXPAND_RADIUS + 1) * ratio[1]))
    # A mask of thin shreds leaves nothing that is clean: then what is valid has to do.
    fine, coarse = shrink(valid, reach), ms_mask(shrink(valid, blur), (ms.shape[1], ms.shape[2]), grid)
    fine, coarse = (fine, coarse) if fine.any() and coarse.any() else (valid, torch.ones_like(coarse))
    pan, ms = (image.double().masked_fill(~image.isfinite(), 0.0) for image in (pan, ms))
    return _Pair(pan, ms, expand(ms[None], shape, ratio, offset)[0], fine, coarse, ratio, offset, each)


def _blur_radius(gains: Sequence[float], ratio: float) -> int:
    return max(mtf_radius(gain, ratio) for gain in gains) + 1


def _pan_on_ms_grid(pair: _Pair) -> Tensor:
    """PAN reduced by the mean MTF of the bands: (1, h, w)."""
    average = sum(pair.gains) / len(pair.gains)
    return degrade(pair.pan[None], (pair.ms.shape[1], pair.ms.shape[2]), pair.ratio, pair.offset, [average])[0]


def _low_pan(pair: _Pair) -> Tensor:
    """PAN reduced by the MTF of each band and interpolated back: (bands, rows, columns)."""
    copies = pair.pan.expand_as(pair.ms_up)
    reduced = degrade(copies[None], (pair.ms.shape[1], pair.ms.shape[2]), pair.ratio, pair.offset, pair.gains)
    return expand(reduced, (pair.pan.shape[1], pair.pan.shape[2]), pair.ratio, pair.offset)[0]


def _mean(image: Tensor, valid: Tensor) -> Tensor:
    return image[:, valid].mean(1)[:, None, None]


def _covariance(image: Tensor, other: Tensor, valid: Tensor) -> Tensor:
    """Covariance of the bands of two images, one of which may have a single band: (bands, 1, 1)."""
    x, y = image[:, valid], other[:, valid]
    return ((x - x.mean(1, keepdim=True)) * (y - y.mean(1, keepdim=True))).mean(1)[:, None, None]


def _variance(image: Tensor, valid: Tensor) -> Tensor:
    return _covariance(image, image, valid)


def _quotient(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The ratio of two images, one where the divisor vanishes."""
    return torch.where(denominator != 0, numerator / denominator, 1.0)
