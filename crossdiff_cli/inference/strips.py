"""A window fused stage by stage, each only where the next one reads it: little memory on any device."""

from collections.abc import Callable

import torch
from torch import Tensor

from crossdiff_cli.geometry.window import STRIDE, Window
from crossdiff_cli.imaging.back_projection import back_project, back_projection_radius, denoise_pan
from crossdiff_cli.imaging.injection import local_gain
from crossdiff_cli.imaging.sensor_model import SensorModel, pan_on_ms_grid, to_ms, to_pan
from crossdiff_cli.model.blocks import ResBlock, compact, convolve
from crossdiff_cli.model.crossdiff import CrossDiff
from crossdiff_cli.model.spectral import Spectrum
from crossdiff_cli.model.unet import STEM_RADIUS, UNet

STRIP = 384
"""Rows of the PAN grid that the stages near its resolution compute at once, so that their images stay small."""

Part = Callable[[Window], Tensor]
"""An image of a window that is made where it is asked for: (B, C, rows, columns), channels-last."""


def fuse_core(
    model: CrossDiff,
    pan: Tensor,
    ms: Tensor,
    sensor_model: SensorModel,
    spectrum: Spectrum,
    iterations: int,
    core: Window,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Fuse the core of a window; each stage is computed only where the next one reads it.

    Args:
        model: on the device of the images.
        pan: (1, 1, H, W), normalised; H and W are multiples of the network's stride.
        ms: (1, C, h, w), normalised.
        sensor_model: of the window.
        spectrum: of the bands.
        iterations: of back-projection.
        core: rows and columns to return, counted from the corner of the window.
        dtype: precision of the convolutions.

    Returns:
        The core, (1, C, rows, columns), equal to that of `CrossDiff.fuse` where the window reaches `CrossDiff.halo`
        beyond it; and the MS residual of the result, (1, C, h, w), of meaning for MS pixels whose centres lie in the
        core.
    """
    pan = denoise_pan(pan, sensor_model)
    window = Window(0, 0, pan.shape[2], pan.shape[3])
    reach = back_projection_radius(sensor_model.grid.ratio, sensor_model.nyquist_gains, max(iterations, 1))
    keep = core.grown_within(reach, window)
    seen = keep.grown_within(model.receptive_field_radius, window)
    coarse = (ms.shape[2], ms.shape[3])
    pan_ms = pan_on_ms_grid(pan, coarse, sensor_model)

    # Every stage asks for the PAN and the MS, the last one alone for the others.
    around = sensor_model.crop(seen)
    sharp, up = _held(seen.crop(pan)), _held(to_pan(ms, seen.shape, around))
    low, beta = _expanded(pan_ms, around), _expanded(local_gain(ms, pan_ms), around, halved=True)
    hrms = _network(model, sharp, low, up, beta, spectrum, seen.relative_to(seen), keep.relative_to(seen), dtype)
    kept, inner = sensor_model.crop(keep), core.relative_to(keep)
    hrms = back_project(hrms, keep.crop(pan), ms, pan_ms, kept, iterations)
    return inner.crop(hrms).clone(), ms - to_ms(hrms, coarse, kept)


def _held(whole: Tensor) -> Part:
    return lambda part: part.crop(whole)


def _expanded(image: Tensor, sensor_model: SensorModel, *, halved: bool = False) -> Part:
    """Interpolate an image on the MS grid to a part of the PAN grid, or to half of its resolution."""

    def made(part: Window) -> Tensor:
        rows, columns = part.shape
        here = sensor_model.crop(part)
        if halved:
            return to_pan(image, (rows // 2, columns // 2), here.at_half_resolution())
        return to_pan(image, (rows, columns), here)

    return made


def _network(
    model: CrossDiff,
    pan: Part,
    pan_low: Part,
    ms_up: Part,
    beta: Part,
    spectrum: Spectrum,
    window: Window,
    keep: Window,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return the part `keep` of what the network makes of a window.

    Each stage is computed where later ones need it, and the large ones in strips. The result is that of
    `CrossDiff.forward` where `keep` lies its receptive field inside the window.

    Returns:
        (B, C, rows, columns) of `keep`, float32.
    """
    inner = keep.grown_within(model.head.receptive_field_radius, window)
    p2m: list[Tensor] = []
    m2p: list[Tensor] | None = None
    coarse: Tensor | None = None
    if model.p2m is not None and model.m2p is not None:
        p2m_time, m2p_time = model.feature_timesteps(spectrum.center_nm[None])
        images = compact(torch.cat([ms_up(window), pan(window)], dim=1), dtype)
        p2m = _encode(model.p2m, images, p2m_time, spectrum, window, inner)
        if model.architecture.m2p_features:
            m2p = _encode(model.m2p, images, m2p_time, spectrum, window, inner)
        del images
        coarse = model.head.coarse_features(p2m, m2p, spectrum)
    out: Tensor | None = None
    for strip in keep.strips(STRIP):
        # Upsampling the coarsest level reaches one of its pixels farther than the stage itself.
        outer = strip.grown_within(model.head.inject_radius + STRIDE, inner)
        local = outer.relative_to(inner)
        detail, up = pan(outer) - pan_low(outer), ms_up(outer)
        gain, residual = _maps(model, p2m, m2p, coarse, local, pan(outer), detail, up, beta(outer), spectrum)
        fused = model.head.inject(gain, residual, detail, up)
        fused = model.head.refine(fused, up, detail, pan(outer), spectrum, dtype)
        out = fused.new_empty(*fused.shape[:2], *keep.shape) if out is None else out
        strip.relative_to(keep).crop(out).copy_(strip.relative_to(outer).crop(fused))
    assert out is not None
    return out


def _maps(
    model: CrossDiff,
    p2m: list[Tensor],
    m2p: list[Tensor] | None,
    coarse: Tensor | None,
    part: Window,
    pan: Tensor,
    detail: Tensor,
    ms_up: Tensor,
    beta: Tensor,
    spectrum: Spectrum,
) -> tuple[Tensor, Tensor]:
    """What `FusionHead.inject` starts from; all else that is made of the `part` of the pyramids is gone with this."""
    if coarse is None:
        return model.head.injection_maps(None, None, pan, detail, ms_up, beta, spectrum)

    def cut(pyramid: list[Tensor]) -> list[Tensor]:
        return [compact(part.crop(x, 2 ** (level + 1))) for level, x in enumerate(pyramid)]

    features = model.decoded(cut(p2m), None if m2p is None else cut(m2p), spectrum)
    return model.head.injection_maps(features, part.crop(coarse, 4), pan, detail, ms_up, beta, spectrum)


def _encode(
    unet: UNet, images: Tensor, timestep: Tensor, spectrum: Spectrum, window: Window, inner: Window
) -> list[Tensor]:
    """Encode a window strip by strip and return the pyramid of `inner`; memory is bounded by the strip.

    Every level is computed where it is returned and where the levels after it look.

    Args:
        unet: the encoder.
        images: of the window, (1, C + 1, H, W): MS and PAN, as `compact` gives them.
        timestep: (1,), as a fraction of T.
        spectrum: wavelengths of the C bands and the ratio.
        window: what is given.
        inner: what is asked for.
    """
    embedding = unet.conditioning(timestep, spectrum)
    kernels = unet.band_stem.beside(unet.pan_stem, spectrum)
    below: Tensor | None = None
    pyramid = []
    source = window
    for level, area in enumerate(_areas(unet, inner, window)):
        scale, last = 2 ** (level + 1), level == len(unet.levels) - 1
        above, below, kept = below, None, None
        for strip in area.strips(STRIP * 2**level):
            outer = strip.grown_within(_reach(unet, level), source)
            local = outer.relative_to(source)
            h = unet.stem(local.crop(images), kernels) if above is None else local.crop(above, scale)
            h = strip.relative_to(outer).crop(unet.stage(level, h, embedding), scale)
            kept = empty_like_part(h, inner, scale) if kept is None else kept
            shared = strip.intersection(inner)
            if shared is not None:
                shared.relative_to(inner).crop(kept, scale).copy_(shared.relative_to(strip).crop(h, scale))
            if not last:
                h = convolve(unet.downs[level], h)
                below = empty_like_part(h, area, 2 * scale) if below is None else below
                strip.relative_to(area).crop(below, 2 * scale).copy_(h)
        assert kept is not None
        pyramid.append(kept)
        source = area
    return pyramid


def _areas(unet: UNet, inner: Window, window: Window) -> list[Window]:
    """Return where each level has to be known, so that all are in `inner`."""
    areas = [inner]
    for level in reversed(range(1, len(unet.blocks))):
        areas.insert(0, areas[0].grown_within(_reach(unet, level), window))
    return areas


def _reach(unet: UNet, level: int) -> int:
    """Return the reach of the blocks of a level, and of the stem before the first, in PAN pixels."""
    return 2 ** (level + 1) * ResBlock.RADIUS * unet.blocks[level] + (0 if level else STEM_RADIUS)


def empty_like_part(image: Tensor, part: Window, scale: int) -> Tensor:
    """Room for a part, at 1 / `scale` of the PAN grid, of what `image` is a piece of."""
    rows, columns = part.shape
    shape = (len(image), image.shape[1], rows // scale, columns // scale)
    return torch.empty(shape, dtype=image.dtype, device=image.device, memory_format=torch.channels_last)
