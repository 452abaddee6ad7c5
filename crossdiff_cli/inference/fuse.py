"""One window, from normalised PAN and MS to normalised HRMS: expand, degrade, network, back-projection."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from crossdiff_cli.imaging.filters import box_sum
from crossdiff_cli.imaging.resample import EXPAND_RADIUS, Pixels, degrade, expand, mtf_radius, span
from crossdiff_cli.model.crossdiff import CrossDiff
from crossdiff_cli.model.region import Part, Region
from crossdiff_cli.model.spectral import Spectrum

BETA_RADIUS = 3
"""Half-width, in MS pixels, of the window of the local regression of MS on PAN."""
_BETA_SHRINKAGE = 0.02
_COARSE_RADIUS = 1
"""Half-width of the mean that is always believed, in pixels of the PAN, or of the MS in back-projection."""
_POWER_RADIUS = 2
"""Half-width of the window in which the rest has to be stronger than noise."""
_FINE_NOISE = 1 - 1 / (2 * _COARSE_RADIUS + 1) ** 2
"""Share of the power of white noise that is not in such a mean."""
_OVER = 2.0
"""Times the power of the noise of the MS that is not believed: back-projection makes larger what it is wrong about."""
ROUNDS = 2
"""Back-projections of a result: more bring less and cost the same (benchmarks/choices.md)."""
STEPS = (1.0, 2.0)
"""Of back-projection, in turn. The first takes out what flat areas are wrong by; the second goes farther in fine
structure, of which a difference on the MS grid shows only a part. Neither makes any error larger."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the MS window of a scene lies on its PAN window."""

    ratio: Pixels
    """PAN pixels per MS pixel, (rows, columns)."""
    offset: Pixels
    """PAN coordinates of the outer corner of MS pixel (0, 0), (row, column); includes the registration shift."""
    gains: tuple[float, ...]
    """Nyquist gain of each band."""
    shifts: tuple[Pixels, ...] = ()
    """How far each band lies from `offset`, in PAN pixels, (row, column); empty where all lie alike."""
    noise: tuple[float, ...] = ()
    """Deviation of the white noise of each MS band, normalised; empty where nothing is known of it."""
    pan_noise: float = 0.0
    """That of the PAN, normalised; 0 where nothing is known of it."""

    def within(self, part: Region) -> "Sampling":
        """The same on a part of the PAN window."""
        return replace(self, offset=(self.offset[0] - part.top, self.offset[1] - part.left))

    def halved(self) -> "Sampling":
        """The same for an image at half the PAN grid."""

        def half(pair: Pixels) -> Pixels:
            return pair[0] / 2, pair[1] / 2

        return replace(
            self, ratio=half(self.ratio), offset=half(self.offset), shifts=tuple(half(shift) for shift in self.shifts)
        )

    def of(self, bands: Sequence[int]) -> "Sampling":
        """That of some of the bands."""
        return replace(
            self,
            gains=tuple(self.gains[band] for band in bands),
            shifts=tuple(self.shifts[band] for band in bands) if self.shifts else (),
            noise=tuple(self.noise[band] for band in bands) if self.noise else (),
        )

    def alike(self) -> list[tuple[Pixels, list[int]]]:
        """Bands that lie alike, with their common offset."""
        groups: dict[Pixels, list[int]] = {}
        for band, (row, col) in enumerate(self.shifts or ((0.0, 0.0),) * len(self.gains)):
            groups.setdefault((self.offset[0] + row, self.offset[1] + col), []).append(band)
        return list(groups.items())


def to_ms(image: Tensor, shape: tuple[int, int], sampling: Sampling) -> Tensor:
    """Degrade each band of `image` (B, C, H, W) by its MTF to where it lies on the MS grid: (B, C, *shape)."""
    groups = sampling.alike()
    if len(groups) == 1:
        return degrade(image, shape, sampling.ratio, groups[0][0], sampling.gains)
    out = image.new_empty(*image.shape[:2], *shape)
    for offset, bands in groups:
        some = span(bands)
        out[:, some] = degrade(image[:, some], shape, sampling.ratio, offset, [sampling.gains[b] for b in bands])
    return out


def to_pan(ms: Tensor, shape: tuple[int, int], sampling: Sampling) -> Tensor:
    """Interpolate each band of `ms` (B, C, h, w) from where it lies to the PAN grid: (B, C, *shape)."""
    groups = sampling.alike()
    if len(groups) == 1:
        return expand(ms, shape, sampling.ratio, groups[0][0])
    out = ms.new_empty(*ms.shape[:2], *shape)
    for offset, bands in groups:
        some = span(bands)
        out[:, some] = expand(ms[:, some], shape, sampling.ratio, offset)
    return out


def halo(model: CrossDiff, ratio: Pixels, gains: Sequence[float], rounds: int) -> int:
    """Return how many PAN pixels around a pixel can change its fused value: the halo a tile needs."""
    largest = max(ratio)
    consistency = _consistency_radius(ratio, gains)
    beta = consistency + math.ceil((BETA_RADIUS + 1) * largest) + 4  # found at half of the grid and interpolated
    ms_up = math.ceil(EXPAND_RADIUS * largest)
    around = _COARSE_RADIUS + _POWER_RADIUS
    return around + max(model.radius + ms_up, model.head.fine_radius + beta) + rounds * consistency


def _consistency_radius(ratio: Pixels, gains: Sequence[float]) -> int:
    """Reach of a back-projection: `degrade`, `believed` and `expand`, in PAN pixels."""
    largest = max(ratio)
    around = math.ceil((_COARSE_RADIUS + _POWER_RADIUS) * largest)
    return max(mtf_radius(gain, largest) for gain in gains) + 1 + math.ceil(EXPAND_RADIUS * largest) + around


def local_gain(ms: Tensor, pan_ms: Tensor) -> Tensor:
    """Regress each MS band on the PAN in a small window: cov(ms, pan) / var(pan), shrunk to 1 where the PAN is flat.

    Args:
        ms: (B, C, h, w), normalised.
        pan_ms: (B, C, h, w), the normalised PAN degraded to the MS grid by each band's MTF.

    Returns:
        (B, C, h, w), clipped to [-1, 3] (context-based injection, Aiazzi et al. 2002).
    """
    mean_pan = _local_mean(pan_ms, BETA_RADIUS)
    covariance = _local_mean(ms * pan_ms, BETA_RADIUS) - _local_mean(ms, BETA_RADIUS) * mean_pan
    variance = _local_mean(pan_ms * pan_ms, BETA_RADIUS) - mean_pan * mean_pan
    return ((covariance + _BETA_SHRINKAGE) / (variance.clamp_min(0) + _BETA_SHRINKAGE)).clamp(-1.0, 3.0)


def prepare(pan: Tensor, ms: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor, Tensor]:
    """Return (pan_low, ms_up, beta) from `pan` (B, 1, H, W) and `ms` (B, C, h, w).

    The first two are (B, C, H, W), the local gain (B, C, H/2, W/2).
    """
    shape = (pan.shape[2], pan.shape[3])
    pan_ms = _pan_on_ms(pan, ms, sampling)
    pan_low, ms_up = (to_pan(x, shape, sampling) for x in (pan_ms, ms))
    return pan_low, ms_up, to_pan(local_gain(ms, pan_ms), (shape[0] // 2, shape[1] // 2), sampling.halved())


def _pan_on_ms(pan: Tensor, ms: Tensor, sampling: Sampling) -> Tensor:
    """The PAN at the MS grid by the MTF and at the place of each band: (B, C, h, w)."""
    kinds = list(zip(sampling.gains, sampling.shifts or sampling.gains, strict=True))
    distinct = list(dict.fromkeys(kinds))
    first = [kinds.index(kind) for kind in distinct]
    pan_ms = to_ms(pan.expand(-1, len(first), -1, -1), (ms.shape[2], ms.shape[3]), sampling.of(first))
    return pan_ms[:, [distinct.index(kind) for kind in kinds]]


def back_project(hrms: Tensor, ms: Tensor, sampling: Sampling, rounds: int) -> Tensor:
    """Make the result consistent with the MS: out += step * expand(believed(ms - degrade(out))), `rounds` times.

    An iteration whose steps vary (Richardson 1911): degrade after expand has eigenvalues e in [0, 1], 1 for flat areas
    and the least at the Nyquist frequency of the MS; steps of 1 and 2 in turn leave (1 - e)(1 - 2 e) of an error.
    """
    shape = (hrms.shape[2], hrms.shape[3])
    for turn, step in enumerate(_steps(rounds)):
        seen = to_ms(hrms, (ms.shape[2], ms.shape[3]), sampling)
        hrms = hrms + step * to_pan(believed(ms - seen, sampling, turn), shape, sampling)
    return hrms


def believed(left: Tensor, sampling: Sampling, turn: int) -> Tensor:
    """What of a difference from the MS, (B, C, h, w) normalised, is no noise, before back-projection number `turn`.

    Without it back-projection, a deconvolution, sharpens the noise with everything else.
    """
    if not any(sampling.noise):
        return left
    kept = [residual_noise_power(sampling.ratio, gain, turn) for gain in sampling.gains]
    power = [_OVER * share * deviation**2 for share, deviation in zip(kept, sampling.noise, strict=True)]
    return _above_noise(left, left.new_tensor(power)[:, None, None])


def cleaned(pan: Tensor, sampling: Sampling) -> Tensor:
    """The PAN, (B, 1, H, W) normalised, without what is no stronger than its noise: it is no detail of any band."""
    if not sampling.pan_noise:
        return pan
    return _above_noise(pan, pan.new_tensor(_FINE_NOISE * sampling.pan_noise**2))


def _above_noise(image: Tensor, noise: Tensor) -> Tensor:
    """The mean over 3 x 3 pixels, and of the rest the share by which its local power is above that of noise.

    An empirical Wiener filter (Lee 1980); `noise` is the power of noise in that rest, by band.
    """
    coarse = _local_mean(image, _COARSE_RADIUS)
    fine = image - coarse
    return coarse + fine * (1 - noise / _local_mean(fine.square(), _POWER_RADIUS).clamp_min(1e-12)).clamp_min(0)


@functools.lru_cache(maxsize=64)
def residual_noise_power(ratio: Pixels, nyquist_gain: float, iteration: int) -> float:
    """Return the power of unit white MS noise in the high-pass residual before `iteration` of back-projection.

    It is the energy of the impulse response of that residual, which is linear in the MS.
    """
    size = 48
    residual = torch.zeros(1, 1, size, size)
    residual[..., size // 2, size // 2] = 1.0
    sampling, shape = Sampling(ratio, (0.0, 0.0), (nyquist_gain,)), (round(size * ratio[0]), round(size * ratio[1]))
    for step in (1.0, *_steps(iteration)):
        residual = residual - to_ms(to_pan(step * residual, shape, sampling), (size, size), sampling)
    fine = residual - _local_mean(residual, _COARSE_RADIUS)
    return float(fine.double().square().sum())


def _local_mean(x: Tensor, radius: int) -> Tensor:
    """Mean over windows of 2 radius + 1 pixels, the border repeated: (B, C, h, w)."""
    total = box_sum(F.pad(x, [radius] * 4, mode="replicate"), radius)
    return total[..., radius:-radius, radius:-radius] / (2 * radius + 1) ** 2


def _steps(rounds: int) -> list[float]:
    return [STEPS[turn % len(STEPS)] for turn in range(rounds)]


def fuse(
    model: CrossDiff,
    pan: Tensor,
    ms: Tensor,
    sampling: Sampling,
    spectrum: Spectrum,
    rounds: int,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Fuse a window: `pan` (B, 1, H, W) and `ms` (B, C, h, w), normalised; H and W multiples of the network's stride.

    `dtype` is the precision of the network; everything around it runs in float32.

    Returns:
        (B, C, H, W), normalised, float32.
    """
    pan = cleaned(pan, sampling)
    pan_low, ms_up, beta = prepare(pan, ms, sampling)
    return back_project(model(pan, pan_low, ms_up, beta, spectrum, dtype), ms, sampling, rounds)


def fuse_core(
    model: CrossDiff,
    pan: Tensor,
    ms: Tensor,
    sampling: Sampling,
    spectrum: Spectrum,
    rounds: int,
    core: Region,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """As `fuse`, for the core of a window alone: no stage is computed farther out than the next one reaches.

    Returns:
        The core, (B, C, rows, columns), equal to that of `fuse` where the window reaches `halo` beyond it; and what the
        result, degraded, leaves of the MS: (B, C, h, w), of meaning for MS pixels whose centres lie in the core.
    """
    pan = cleaned(pan, sampling)
    window = Region.whole(pan)
    keep = core.grown(max(rounds, 1) * _consistency_radius(sampling.ratio, sampling.gains), window)
    seen = keep.grown(model.radius, window)
    pan_ms = _pan_on_ms(pan, ms, sampling)

    def held(whole: Tensor) -> Part:
        return lambda part: part.of(whole)

    def expanded(coarse: Tensor, *, halved: bool = False) -> Part:
        def image(part: Region) -> Tensor:
            rows, columns = part.shape
            here = sampling.within(seen).within(part)
            if halved:
                return to_pan(coarse, (rows // 2, columns // 2), here.halved())
            return to_pan(coarse, (rows, columns), here)

        return image

    # Every stage asks for the PAN and the MS, the last one alone for the others.
    sharp, up = held(seen.of(pan)), held(to_pan(ms, seen.shape, sampling.within(seen)))
    low, beta = expanded(pan_ms), expanded(local_gain(ms, pan_ms), halved=True)
    hrms = model.part(sharp, low, up, beta, spectrum, seen.within(seen), keep.within(seen), dtype)
    kept, inner = sampling.within(keep), core.within(keep)
    coarse = (ms.shape[2], ms.shape[3])
    left = ms - to_ms(hrms, coarse, kept)
    out = inner.of(hrms).clone()
    del hrms
    for turn, step in enumerate(_steps(rounds)):
        # Both operators are linear: what the update takes away is known without the result.
        update = to_pan(step * believed(left, kept, turn), keep.shape, kept)
        out += inner.of(update)
        left -= to_ms(update, coarse, kept)
    return out, left
