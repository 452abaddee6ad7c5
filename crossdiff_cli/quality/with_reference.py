"""The metrics against a reference, fed one window at a time: SAM, ERGAS, Q2n, SCC, PSNR, SSIM, overshoot."""

import math

from crossdiff_cli.geometry.window import Window
from crossdiff_cli.quality import overshoot, scc, ssim
from crossdiff_cli.quality.ergas import Ergas
from crossdiff_cli.quality.inputs import Judged, Reader, read
from crossdiff_cli.quality.psnr import Psnr
from crossdiff_cli.quality.q2n import Q2n
from crossdiff_cli.quality.sam import Sam
from crossdiff_cli.quality.windows import grow, windows


class WithReference:
    """Reads each window of the result and of the reference and feeds the metrics what is valid of it."""

    def __init__(self, judged: Judged, reference: Reader, window: int) -> None:
        """`window` is the side of the windows by which the range of the reference is found, if it is not known."""
        self._judged, self._reference = judged, reference
        span = judged.data_range or _data_range(reference, judged.shape, window)
        self.sam, self.ergas, self.q2n = Sam(), Ergas(judged.grid.ratio), Q2n()
        self.scc, self.psnr, self.ssim = scc.Scc(), Psnr(span), ssim.Ssim(span)
        self.overshoot = overshoot.Overshoot()

    def update(self, core: Window) -> None:
        """Judge one window."""
        shape = self._judged.shape
        tail = max(scc.SUPPORT, ssim.SIZE) - 1
        outer = grow(core, (0, 0), (tail, tail), shape)
        fused, mask = read(self._judged.fused, outer)
        reference, reference_mask = read(self._reference, outer)
        mask = mask & reference_mask
        for sliding, side in (
            (self.scc, scc.SUPPORT), (self.ssim, ssim.SIZE), (self.overshoot, overshoot.SUPPORT),
        ):  # fmt: skip
            overlap = grow(core, (0, 0), (side - 1, side - 1), shape).within(outer)
            sliding.update(fused[:, *overlap], reference[:, *overlap], mask[overlap])
        inside = core.within(outer)
        for metric in (self.sam, self.ergas, self.psnr, self.q2n):
            metric.update(fused[:, *inside], reference[:, *inside], mask[inside])


def _data_range(reference: Reader, shape: tuple[int, int], window: int) -> float:
    """Highest minus lowest valid value of the reference."""
    low, high = math.inf, -math.inf
    for core in windows(shape, window):
        image, mask = read(reference, core)
        if mask.any():
            low, high = min(low, float(image[:, mask].min())), max(high, float(image[:, mask].max()))
    return high - low if high > low else 1.0
