"""Training examples from scenes: random windows at full resolution, and by the Wald protocol one ratio down."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Generator, Tensor

from crossdiff_cli.errors import TrainingError
from crossdiff_cli.geometry.grid import GridMapping
from crossdiff_cli.geometry.window import STRIDE
from crossdiff_cli.imaging.resample import EXPAND_RADIUS
from crossdiff_cli.imaging.sensor_model import SensorModel
from crossdiff_cli.model.spectral import Spectrum
from crossdiff_cli.training.training_scene import TrainingScene
from crossdiff_cli.training.truth import draw_truth_pair
from crossdiff_cli.training.wald import draw_noise, draw_wald_pair, misjudged, uniform

_MARGIN = EXPAND_RADIUS + 1
_TRIES = 50
_WAVELENGTH_ERRORS, _OTHER_WAVELENGTHS = (6.0, 0.1), (25.0, 0.3)
"""Standard deviations of the centre wavelength in nm, and of the logarithm of the width, of the bands of examples for
one sensor and for any: those of the few sensors that are trained on must not be learned by heart."""
_PROBES = 8
_SIDES = (96, 64, 48, 32)
"""Sides of patches that are tried where the wanted one does not fit, in PAN pixels."""


@dataclass(frozen=True, slots=True)
class Example:
    """A batch of windows of one scene, normalised; what `fuse.fuse` takes, and the truth where there is one."""

    pan: Tensor
    """(B, 1, H, W)."""
    ms: Tensor
    """(B, C, h, w)."""
    sensor_model: SensorModel
    spectrum: Spectrum
    reference: Tensor | None
    """(B, C, H, W), the HRMS."""

    def to(self, device: torch.device) -> "Example":
        """The same on another device."""
        return replace(
            self,
            pan=self.pan.to(device),
            ms=self.ms.to(device),
            spectrum=self.spectrum.to(device),
            reference=None if self.reference is None else self.reference.to(device),
        )


@dataclass(frozen=True, slots=True)
class PatchSampler:
    """Draws batches; the draw depends on the generator alone."""

    scenes: list[TrainingScene]
    size: int
    """Height and width of the windows on the (degraded) PAN grid, a multiple of the network's stride."""
    batch: int
    jitter_px: float = 0.1
    """Standard deviation of the residual misregistration that is simulated, PAN pixels."""
    augment: bool = True
    """Whether windows are flipped, their bands, wavelengths and radiometry varied, and Wald pairs get noise."""
    one_sensor: bool = False
    """Whether Wald pairs keep the ratio, MTFs and noise of their scene and all its bands; otherwise they vary."""

    def __post_init__(self) -> None:
        if self.size % STRIDE:
            raise ValueError(f"patch size {self.size} is no multiple of {STRIDE}")
        if not self.scenes:
            raise TrainingError("no scene to train on")

    def draw(self, generator: Generator, *, reduced: bool) -> Example:
        """One augmented batch of a random scene, at reduced resolution (with reference) or at full resolution.

        Scenes are drawn as `shares` says.
        """
        for _ in range(_TRIES):
            example = self.attempt(generator, reduced=reduced)
            if example is not None:
                return self._augmented(example, generator) if self.augment else example
        raise TrainingError(
            f"no window of {self.size} pixels in the scenes is valid",
            found=f"{len(self.scenes)} scenes, the first {self.scenes[0].name}",
        )

    def shares(self) -> Tensor:
        """How often each scene is drawn, (scenes,), summing to 1.

        A large scene more often than a small one, a sensor of many scenes more often than one of few, each by the
        square root: sensors alike made encoders worse (benchmarks/encoders.md).
        """
        alike = Counter(scene.sensor for scene in self.scenes)
        weights = torch.tensor([math.sqrt(scene.pixels / alike[scene.sensor]) for scene in self.scenes])
        return weights / weights.sum()

    def attempt(self, generator: Generator, *, reduced: bool) -> Example | None:
        """One batch of a random scene as it is; None where its windows are not valid, or the scene has no PAN."""
        scene = self.scenes[int(torch.multinomial(self.shares(), 1, generator=generator))]
        if scene.simulated and not reduced:
            return None
        if not reduced or scene.reference is not None:
            return _batch(scene, self.size, self.batch, _origins(scene, self.size, generator))
        if min(scene.ms_mask.shape) < self.size:
            return None
        if scene.simulated:
            pair = draw_truth_pair(scene, generator)
        else:
            pair = draw_wald_pair(scene, generator, one_sensor=self.one_sensor)
        example = _batch(pair, self.size, self.batch, _origins(pair, self.size, generator))
        if example is None or not self.augment:
            return example
        levels = draw_noise(scene.sensor_model, generator, one_sensor=self.one_sensor)
        return _noisy(example, *levels, generator)

    def _augmented(self, example: Example, generator: Generator) -> Example:
        return _augment(example, generator, self.jitter_px, all_bands=self.one_sensor)


def fitting_pairs(scenes: list[TrainingScene], largest: int, *, one_sensor: bool) -> tuple[int, bool]:
    """Return the side of the largest patch for Wald pairs, 0 for none, and whether the pairs keep their scene's ratio.

    They do where the scenes are of one sensor and large enough: at the ratio of the scene a patch needs more context
    than at 2, and a smaller patch would teach less than another ratio.
    """
    side = fitting_patch(scenes, largest, reduced=True, one_sensor=False)
    return side, one_sensor and fitting_patch(scenes, largest, reduced=True, one_sensor=True) == side > 0


def fitting_patch(scenes: list[TrainingScene], largest: int, *, reduced: bool, one_sensor: bool = False) -> int:
    """The side of the largest patch, up to `largest`, that fits into what of the scenes is not held out; 0 for none.

    It must fit in half of a few attempts, so that no draw of a long run fails. `reduced` asks for room one ratio down,
    as the supervised loss does; `one_sensor` is that of the sampler.
    """
    sides = [side for side in (largest, *_SIDES) if side <= largest]
    if reduced:
        room = max((min(scene.ms_mask.shape) - 10 * scene.spectrum.ratio for scene in scenes), default=0.0)
        sides = [side for side in sides if side <= room or any(scene.reference is not None for scene in scenes)]
    for side in sorted(set(sides), reverse=True):
        sampler, generator = PatchSampler(scenes, side, 1, one_sensor=one_sensor), Generator().manual_seed(0)
        fit = [sampler.attempt(generator, reduced=reduced) is not None for _ in range(_PROBES)]
        if 2 * sum(fit) >= _PROBES:
            return side
    return 0


def _noisy(example: Example, pan_noise: float, ms_noise: tuple[float, ...], generator: Generator) -> Example:
    """Add white noise of these standard deviations; the model of the example knows them, as `survey` would."""
    if not (pan_noise or any(ms_noise)):
        return example
    pan = example.pan + pan_noise * torch.randn(example.pan.shape, generator=generator)
    ms = example.ms + torch.tensor(ms_noise)[:, None, None] * torch.randn(example.ms.shape, generator=generator)
    quality = example.spectrum.quality
    if quality is not None:
        quality = replace(quality, ms_noise=torch.tensor(ms_noise), pan_noise=pan_noise)
    return replace(
        example,
        pan=pan,
        ms=ms,
        sensor_model=replace(example.sensor_model, pan_noise=pan_noise, ms_noise=ms_noise),
        spectrum=replace(example.spectrum, quality=quality),
    )


def windows_of(scene: TrainingScene, size: int, count: int) -> list[Example]:
    """Up to `count` valid windows of `size` pixels, apart from each other, the nearest to the middle first."""
    step = tuple(max(1, round(r)) for r in scene.sensor_model.grid.ratio)
    starts = [range(0, max(1, n - size + 1), s) for n, s in zip(scene.pan_mask.shape, step, strict=True)]
    valid = scene.pan_mask.nonzero()
    if not len(valid):
        return []
    middle = [float(c) - size / 2 for c in valid.double().mean(dim=0)]
    found: list[tuple[int, int]] = []
    examples = []
    for at in sorted(product(starts[0], starts[1]), key=lambda at: math.dist(at, middle)):
        if all(max(abs(at[0] - row), abs(at[1] - col)) >= size for row, col in found):
            example = _batch(scene, size, 1, [at])
            if example is not None:
                found.append(at)
                examples.append(example)
        if len(examples) == count:
            break
    return examples


def _batch(scene: TrainingScene, size: int, batch: int, origins: Iterable[tuple[int, int]]) -> Example | None:
    """Cut windows whose MS pixels lie alike under them, so that one sensor_model holds for all; few are cut again."""
    sensor_model, windows = scene.sensor_model, []
    height, width = scene.pan_mask.shape
    for origin in origins:
        rows = _ms_range(origin[0], size, sensor_model.grid.offset[0], sensor_model.grid.ratio[0])
        cols = _ms_range(origin[1], size, sensor_model.grid.offset[1], sensor_model.grid.ratio[1])
        if rows.start < 0 or cols.start < 0 or rows.stop > scene.ms_mask.shape[0] or cols.stop > scene.ms_mask.shape[1]:
            continue
        pan_rows, pan_cols = slice(origin[0], origin[0] + size), slice(origin[1], origin[1] + size)
        if pan_rows.stop > height or pan_cols.stop > width:
            continue
        if not scene.ms_mask[rows, cols].all() or not scene.pan_mask[pan_rows, pan_cols].all():
            continue
        offset = tuple(
            sensor_model.grid.offset[axis] + r.start * sensor_model.grid.ratio[axis] - origin[axis]
            for axis, r in enumerate((rows, cols))
        )
        windows.append((pan_rows, pan_cols, rows, cols, offset))
        if len(windows) == batch:
            break
    if not windows:
        return None
    windows = (windows * batch)[:batch]
    first = windows[0]
    shape = (first[2].stop - first[2].start, first[3].stop - first[3].start)
    alike = [w for w in windows if _alike(w[4], first[4]) and (w[2].stop - w[2].start, w[3].stop - w[3].start) == shape]
    reference = scene.reference
    return Example(
        torch.cat([scene.pan[:, :, w[0], w[1]] for w in alike]),
        torch.cat([scene.ms[:, :, w[2], w[3]] for w in alike]),
        replace(sensor_model, grid=replace(sensor_model.grid, offset=(float(first[4][0]), float(first[4][1])))),
        scene.spectrum,
        None if reference is None else torch.cat([reference[:, :, w[0], w[1]] for w in alike]),
    )


def _origins(scene: TrainingScene, size: int, generator: Generator) -> Iterator[tuple[int, int]]:
    """Random origins of one common phase to the MS grid."""
    height, width = scene.pan_mask.shape
    if height < size or width < size:
        return
    step = tuple(max(1, round(r)) for r in scene.sensor_model.grid.ratio)
    phase = [int(torch.randint(s, (1,), generator=generator)) for s in step]
    for _ in range(_TRIES * 2):
        origin = []
        for axis, length in enumerate((height, width)):
            count = max(1, (length - size - phase[axis]) // step[axis] + 1)
            origin.append(phase[axis] + step[axis] * int(torch.randint(count, (1,), generator=generator)))
        yield origin[0], origin[1]


def _ms_range(start: int, size: int, offset: float, ratio: float) -> slice:
    first = math.floor((start - offset) / ratio) - _MARGIN
    last = math.ceil((start + size - offset) / ratio) + _MARGIN
    return slice(first, last)


def _alike(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return max(abs(x - y) for x, y in zip(a, b, strict=True)) < 1e-3


def _augment(example: Example, generator: Generator, jitter_px: float, *, all_bands: bool) -> Example:
    """Flip, transpose, choose bands, jitter wavelengths, radiometry, registration and what is told of the quality."""
    pan, ms, reference = example.pan, example.ms, example.reference
    sensor_model, spectrum = example.sensor_model, example.spectrum
    bands = torch.arange(ms.shape[1])
    if not all_bands and uniform(generator) < 0.4:
        keep = int(torch.randint(1, len(bands) + 1, (1,), generator=generator))
        bands = torch.randperm(len(bands), generator=generator)[:keep]
    ms = ms[:, bands]
    gain = 1 + 0.1 * torch.randn(len(bands), 1, 1, generator=generator)
    shift = 0.1 * torch.randn(len(bands), 1, 1, generator=generator)
    ms = ms * gain + shift
    reference = None if reference is None else reference[:, bands] * gain + shift
    spectrum = spectrum.select_bands(bands)
    center_nm, width_share = _WAVELENGTH_ERRORS if all_bands else _OTHER_WAVELENGTHS
    center = spectrum.center_nm + center_nm * torch.randn(len(bands), generator=generator)
    width = spectrum.width_nm * torch.exp(width_share * torch.randn(len(bands), generator=generator))
    quality = spectrum.quality and misjudged(spectrum.quality, generator)
    whole = len(bands) == example.ms.shape[1]  # some of the bands alone do not make up the PAN
    sensor_model = sensor_model.select_bands(bands.tolist())
    intensity = sensor_model.intensity and sensor_model.intensity.rescaled(gain.flatten().tolist()) if whole else None
    ratio, offset, shifts = (
        list(sensor_model.grid.ratio),
        list(sensor_model.grid.offset),
        [list(apart) for apart in sensor_model.grid.band_shifts],
    )
    for axis in (0, 1):
        offset[axis] += jitter_px * float(torch.randn(1, generator=generator))
        if uniform(generator) < 0.5:
            dim = 2 + axis
            pan, ms = pan.flip(dim), ms.flip(dim)
            reference = None if reference is None else reference.flip(dim)
            offset[axis] = pan.shape[dim] - (offset[axis] + ms.shape[dim] * ratio[axis])
            for apart in shifts:
                apart[axis] = -apart[axis]
    if uniform(generator) < 0.5:
        pan, ms = pan.transpose(2, 3), ms.transpose(2, 3)
        reference = None if reference is None else reference.transpose(2, 3)
        ratio, offset, shifts = ratio[::-1], offset[::-1], [apart[::-1] for apart in shifts]
    band_shifts = tuple((row, col) for row, col in shifts)
    return Example(
        pan.contiguous(),
        ms.contiguous(),
        replace(
            sensor_model,
            grid=GridMapping((ratio[0], ratio[1]), (offset[0], offset[1]), band_shifts),
            intensity=intensity,
        ),
        replace(spectrum, center_nm=center, width_nm=width, quality=quality),
        reference,
    )
