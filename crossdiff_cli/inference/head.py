"""The fusion head bound to a scene."""

import torch
import torch.nn.functional as F
from torch import Tensor

from crossdiff_cli.inference.layers import Conv, MakeBlock, stacked, upsample2
from crossdiff_cli.model.fusion import FusionHead, Gate
from crossdiff_cli.model.sensor_stage import SensorStage
from crossdiff_cli.model.spectral import BandOutput, Spectrum


class BoundHead:
    """A `FusionHead` for one set of bands."""

    def __init__(self, head: FusionHead, spectrum: Spectrum, dtype: torch.dtype, make_block: MakeBlock) -> None:
        """Fold `head`; with features of encoders it works in their precision, else in float32."""
        self.dtype = dtype = torch.float32 if head.gates is None else dtype
        condition = head.conditioning(torch.ones(1, device=spectrum.center_nm.device), spectrum)
        bias = head.pan_stem.bias
        assert bias is not None
        if head.decoded is not None:
            assert head.decoded.bias is not None
            bias = bias + head.decoded.bias
        kernels = head.band_stem.beside(head.pan_stem, spectrum)
        self._stem = Conv(kernels, bias, dtype, stride=2, padding=2)
        self._decoded = None if head.decoded is None else Conv(head.decoded.weight, None, dtype)
        self._gates = [] if head.gates is None else [_BoundGate(gate, dtype) for gate in head.gates]  # type: ignore[arg-type]
        self._ups = [Conv.of(up, dtype) for up in head.ups]
        self._blocks = [make_block(block, condition, dtype) for block in head.blocks]  # type: ignore[arg-type]
        self._out = BandMaps(head.out, spectrum, dtype)
        stage = head.stage if head.stage is not None and head.stage.fits(spectrum.center_nm) else None
        self._stage = None if stage is None else _BoundStage(stage, spectrum, dtype)

    def coarse_features(self, p2m: list[Tensor], m2p: list[Tensor] | None) -> Tensor:
        """Return the levels below the first, of all pyramids: (1, widths[0], H/4, W/4)."""
        h: Tensor | None = None
        for level in reversed(range(1, len(self._gates))):
            room = None if h is None else upsample2(h)
            h = self._gates[level](p2m[level], None if m2p is None else m2p[level], room)
            h = self._ups[level - 1](self._blocks[level](h))
        assert h is not None
        return h

    def stem(self, pan: Tensor, detail: Tensor, ms_up: Tensor) -> Tensor:
        """First layer on images of the PAN grid, as in `FusionHead.forward`: (1, widths[0], H/2, W/2)."""
        return self._stem(stacked([ms_up, pan, detail.mean(dim=1, keepdim=True)], self.dtype))

    def add_encoded(self, h: Tensor, p2m: Tensor, m2p: Tensor | None, decoded: Tensor, coarse: Tensor) -> Tensor:
        """Add to `h`, in place, the first level of the pyramids, what is decoded from all, and the coarse features."""
        assert self._decoded is not None
        h = self._gates[0](p2m, m2p, self._decoded.onto(decoded, h))
        return h.add_(upsample2(coarse))

    def maps(self, h: Tensor, beta: Tensor, prediction: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return gain and residual, (1, C, H/2, W/2) each, float32.

        Args:
            h: sum of `stem` and `add_encoded`, which is overwritten.
            beta: (1, C, H/2, W/2), local regression gain.
            prediction: (1, 2, C, H/2, W/2), what P2M predicts; None without encoders.
        """
        g, c, w, residual = self._out(F.silu(self._blocks[0](h), inplace=True)).unbind(dim=1)
        gain = g.add_(1).addcmul_(c, beta.sub_(1))
        if prediction is not None:
            predicted_gain, predicted_residual = prediction.unbind(dim=1)
            w.add_(1)
            gain.addcmul_(w, predicted_gain)
            residual.addcmul_(w, predicted_residual)
        return gain, residual

    def inject(self, gain: Tensor, residual: Tensor, detail: Tensor, ms_up: Tensor, pan: Tensor) -> Tensor:
        """Return what the network makes of a part at the PAN's own resolution, (1, C, H, W), sensor stage included."""
        hrms = upsample2(residual).addcmul_(upsample2(gain), detail).add_(ms_up)
        return hrms if self._stage is None else self._stage(hrms, ms_up, detail, pan)


class _BoundGate:
    """A `Gate`: each of its halves made and used in turn, as both at once would be the largest image of all."""

    def __init__(self, gate: Gate, dtype: torch.dtype) -> None:
        assert gate.p2m.bias is not None
        halves = zip(gate.p2m.weight.chunk(2), gate.p2m.bias.chunk(2), strict=True)
        self._p2m = [Conv(weight, bias, dtype) for weight, bias in halves]
        self._m2p = None if gate.m2p is None else [Conv(weight, None, dtype) for weight in gate.m2p.weight.chunk(2)]

    def __call__(self, p2m: Tensor, m2p: Tensor | None, onto: Tensor | None) -> Tensor:
        """(1, width_in, H, W) to (1, width, H, W), or added to `onto` in place."""
        value, gate = (self._half(half, p2m, m2p) for half in range(2))
        gate.sigmoid_()
        return value.mul_(gate) if onto is None else onto.addcmul_(value, gate)

    def _half(self, half: int, p2m: Tensor, m2p: Tensor | None) -> Tensor:
        out = self._p2m[half](p2m)
        return out if self._m2p is None or m2p is None else self._m2p[half].onto(m2p, out)


class BandMaps:
    """A `BandOutput` for one set of bands: float32, map after map, the layout of what follows."""

    def __init__(self, out: BandOutput, spectrum: Spectrum, dtype: torch.dtype, factor: float = 1.0) -> None:
        """Fold `out`, its maps times `factor`."""
        self._maps = out.maps
        self._weight = (factor * out.weight(spectrum).detach()).to(dtype)

    def __call__(self, features: Tensor) -> Tensor:
        """(1, width, H/2, W/2) to (1, maps, C, H/2, W/2)."""
        shape = features.shape[2:]
        # A convolution would answer channels-last: turning its maps round took longer than making them.
        maps = self._weight @ features.permute(0, 2, 3, 1).reshape(-1, features.shape[1]).T
        return maps.float().view(1, self._maps, -1, *shape)


class _BoundStage:
    """A `SensorStage` for bands in the order of a scene."""

    def __init__(self, stage: SensorStage, spectrum: Spectrum, dtype: torch.dtype) -> None:
        self._order = spectrum.center_nm.argsort()
        self._back = self._order.argsort()
        self._dtype = dtype
        self._stem, self._out = Conv.of(stage.stem, dtype), Conv.of(stage.out, dtype)
        self._blocks = [Conv.of(conv, dtype) for conv in stage.blocks]

    def __call__(self, hrms: Tensor, ms_up: Tensor, detail: Tensor, pan: Tensor) -> Tensor:
        images = [image[:, self._order] for image in (hrms - ms_up, ms_up, detail)]
        h = self._stem(stacked([*images, pan], self._dtype))
        for first, second in zip(self._blocks[0::2], self._blocks[1::2], strict=True):
            h = second.onto(F.silu(first(F.silu(h)), inplace=True), h)
        return hrms.add_(self._out(F.silu(h, inplace=True))[:, self._back])
