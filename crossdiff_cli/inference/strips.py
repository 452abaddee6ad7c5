"""The network bound to a scene, stage by stage, each only where the next one reads it: little memory on any device."""

import math

import torch
from torch import Tensor

from crossdiff_cli.geometry.window import STRIDE, Window
from crossdiff_cli.imaging.back_projection import back_project, back_projection_radius, denoise_pan
from crossdiff_cli.imaging.injection import local_gain
from crossdiff_cli.imaging.intensity import correct_intensity
from crossdiff_cli.imaging.sensor_model import Expansion, SensorModel, pan_on_ms_grid, to_ms
from crossdiff_cli.inference.encoder import BoundEncoder
from crossdiff_cli.inference.head import BandMaps, BoundHead
from crossdiff_cli.inference.layers import Block, MakeBlock, stacked
from crossdiff_cli.inference.workspace import Workspace
from crossdiff_cli.model.crossdiff import TOWARDS_X_0, CrossDiff
from crossdiff_cli.model.spectral import Spectrum

STRIP = 384
"""Rows of the PAN grid that the stages near its resolution compute at once, so that their images stay small."""
_WHOLE = 2**30


class StripNetwork:
    """A `CrossDiff` for one set of bands, on one device and in one precision."""

    def __init__(
        self,
        model: CrossDiff,
        spectrum: Spectrum,
        dtype: torch.dtype,
        *,
        make_block: MakeBlock = Block,
        whole: bool = False,
    ) -> None:
        """Fold `model`, of which a copy is taken.

        Args:
            model: on the device of the spectrum.
            spectrum: of the bands, and the ratio.
            dtype: precision of the convolutions; what is done at the PAN's own resolution stays in float32.
            make_block: folds the residual blocks.
            whole: make no strips: the fewest operators, for a device that waits for each.
        """
        self.dtype = dtype
        self._rows = _WHOLE if whole else STRIP
        self._workspace = Workspace()
        self._radius = model.receptive_field_radius
        self._head_radius, self._inject_radius = model.head.receptive_field_radius, model.head.inject_radius
        with torch.inference_mode():
            self._head = BoundHead(model.head, spectrum, dtype, make_block)
            self._p2m = self._m2p = self._prediction = None
            if model.p2m is not None and model.m2p is not None:
                assert model.p2m.ms_out is not None
                p2m_time, m2p_time = model.feature_timesteps(spectrum.center_nm[None])
                self._p2m = BoundEncoder(model.p2m, p2m_time, spectrum, dtype, make_block)
                if model.architecture.m2p_features:
                    self._m2p = BoundEncoder(model.m2p, m2p_time, spectrum, dtype, make_block)
                factor = TOWARDS_X_0[model.architecture.prediction_type]
                self._prediction = BandMaps(model.p2m.ms_out, spectrum, dtype, factor)

    def fuse(
        self, pan: Tensor, ms: Tensor, sensor_model: SensorModel, core: Window, iterations: int
    ) -> tuple[Tensor, Tensor]:
        """Fuse the core of a window.

        Args:
            pan: (1, 1, H, W), normalised; H and W are multiples of the network's stride.
            ms: (1, C, h, w), normalised.
            sensor_model: of the window.
            core: rows and columns to return, counted from the corner of the window.
            iterations: of back-projection.

        Returns:
            The core, (1, C, rows, columns), equal to that of `CrossDiff.fuse` where the window reaches `CrossDiff.halo`
            beyond it; and the MS residual of the result, (1, C, h, w), of meaning for MS pixels whose centres lie in
            the core. The next call in the same thread overwrites them.
        """
        pan = denoise_pan(pan, sensor_model, self._rows)
        window = Window(0, 0, pan.shape[2], pan.shape[3])
        reach = back_projection_radius(sensor_model.grid.ratio, sensor_model.nyquist_gains, max(iterations, 1))
        keep = core.grown_within(reach, window)
        coarse = (ms.shape[2], ms.shape[3])
        pan_ms = pan_on_ms_grid(pan, coarse, sensor_model)
        corrected = correct_intensity(
            ms, pan_ms, sensor_model.intensity, sensor_model.ms_noise, sensor_model.saturation
        )
        hrms = self._predict(pan, corrected, pan_ms, sensor_model, window, keep)
        kept, inner = sensor_model.crop(keep), core.relative_to(keep)
        hrms = back_project(hrms, keep.crop(pan), corrected, pan_ms, kept, iterations, rows=self._rows)
        return inner.crop(hrms), ms - to_ms(hrms, coarse, kept)

    def _predict(
        self, pan: Tensor, ms: Tensor, pan_ms: Tensor, sensor_model: SensorModel, window: Window, keep: Window
    ) -> Tensor:
        """Return the part `keep` of what the network makes of a window, (1, C, rows, columns), float32.

        It is that of `CrossDiff.forward` where `keep` lies the receptive field inside the window.
        """
        seen = keep.grown_within(self._radius, window)
        inner = keep.grown_within(self._head_radius, seen)
        ms_up, pan_low = (Expansion(image, window.width, sensor_model) for image in (ms, pan_ms))
        beta = Expansion(local_gain(ms, pan_ms), window.width // 2, sensor_model.at_half_resolution())

        def images(part: Window) -> Tensor:
            return stacked([ms_up(part), part.crop(pan)], self.dtype)

        p2m: list[Tensor] = []
        m2p: list[Tensor] | None = None
        coarse: Tensor | None = None
        if self._p2m is not None:
            p2m = self._p2m.encode(images, seen, inner, self._rows, self._workspace, "p2m")
            if self._m2p is not None:
                m2p = self._m2p.encode(images, seen, inner, self._rows, self._workspace, "m2p")
            coarse = self._head.coarse_features(p2m, m2p)
        # The room of the encoder's largest intermediate image, which is no longer needed.
        shape = (1, ms.shape[1], *keep.shape)
        out = self._workspace.flat("below 0", math.prod(shape), pan.dtype, pan.device).view(shape)
        for strip in keep.strips(self._rows):
            # Upsampling the coarsest level reaches one of its pixels farther than the stage itself.
            outer = strip.grown_within(self._inject_radius + STRIDE, inner)
            sharp, up = outer.crop(pan), ms_up(outer)
            detail = sharp - pan_low(outer)
            h, prediction = self._head.stem(sharp, detail, up), None
            if coarse is not None:
                h, prediction = self._add_encoded(h, p2m, m2p, coarse, outer.relative_to(inner))
            gain, residual = self._head.maps(h, beta(outer.halved()), prediction)
            fused = self._head.inject(gain, residual, detail, up, sharp)
            strip.relative_to(keep).crop(out).copy_(strip.relative_to(outer).crop(fused))
        return out

    def _add_encoded(
        self, h: Tensor, p2m: list[Tensor], m2p: list[Tensor] | None, coarse: Tensor, part: Window
    ) -> tuple[Tensor, Tensor]:
        """Add what the encoders say of a part of the pyramids to `h`; and return what P2M predicts there."""
        assert self._p2m is not None and self._prediction is not None

        def cut(pyramid: list[Tensor]) -> list[Tensor]:
            return [part.crop(x, 2 ** (level + 1)) for level, x in enumerate(pyramid)]

        mine, finest = cut(p2m), None
        decoded = both = self._p2m.decode(mine)
        if self._m2p is not None and m2p is not None:
            other = cut(m2p)
            finest, both = other[0], torch.cat([decoded, self._m2p.decode(other)], dim=1)
        prediction = self._prediction(decoded)
        return self._head.add_encoded(h, mine[0], finest, both, part.crop(coarse, 4)), prediction
