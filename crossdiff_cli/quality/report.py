"""QualityReport: the figures of one result, as a record, a dict for `--json` and a table for people."""

import math
from dataclasses import dataclass, fields

TRAINED_ON = ("d_rho", "r_ergas", "r_sam", "r_q2n")
"""Figures that the training loss of the network contains a close relative of; reports of its results say so."""


@dataclass(frozen=True, slots=True)
class BandQuality:
    """How one band fares; NaN where nothing valid was left.

    Attributes:
        r_error: RMSE of the degraded result against the MS, as a share of the mean of the MS band.
        r_q: Q index of the same.
        d_s: share of the band in D_s.
        d_rho: one minus its mean local correlation with PAN.
    """

    r_error: float
    r_q: float
    d_s: float
    d_rho: float


@dataclass(frozen=True, slots=True)
class QualityReport:
    """What is known of how good a result is. A figure is None where it does not apply or nothing valid was left.

    Attributes:
        ratio: PAN pixels per MS pixel, (rows, columns).
        valid: share of the pixels of the result that are valid.
        d_lambda: Khan's spectral distortion, 0 is best.
        d_s: spatial distortion, 0 is best.
        hqnr: (1 - D_lambda)(1 - D_s), 1 is best.
        d_lambda_table: D_lambda by the MTF of the sensor table; None where that is what `d_lambda` goes by.
        hqnr_table: HQNR with it.
        qnr: the same with the inter-band D_lambda of Alparone, 1 is best.
        d_lambda_inner: D_lambda without the blocks along the border of the scene.
        d_s_inner: D_s without them.
        hqnr_inner: HQNR without them.
        d_rho: one minus the local correlation with PAN, 0 is best.
        r_ergas: ERGAS of the degraded result against the MS, 0 is best.
        r_ergas_table: the same by the MTF of the sensor table; None where that is what `r_ergas` goes by.
        r_sam: SAM of the same in degrees, 0 is best.
        r_q2n: Q2n of the same, 1 is best.
        sam: spectral angle against the reference in degrees, 0 is best.
        ergas: relative error against the reference, 0 is best.
        q2n: hypercomplex quality index against the reference, 1 is best.
        scc: correlation of the Laplacians with the reference, 1 is best.
        psnr: decibels against the reference; infinite if identical.
        ssim: structural similarity to the reference, 1 is best.
        overshoot: mean distance from the range of the reference nearby, in % of each band's deviation, 0 is best.
        bands: the same by band, in file order.
    """

    ratio: tuple[float, float]
    valid: float
    d_lambda: float | None
    d_s: float | None
    hqnr: float | None
    d_lambda_table: float | None
    hqnr_table: float | None
    qnr: float | None
    d_lambda_inner: float | None
    d_s_inner: float | None
    hqnr_inner: float | None
    d_rho: float | None
    r_ergas: float | None
    r_ergas_table: float | None
    r_sam: float | None
    r_q2n: float | None
    sam: float | None
    ergas: float | None
    q2n: float | None
    scc: float | None
    psnr: float | None
    ssim: float | None
    overshoot: float | None
    bands: tuple[BandQuality, ...]

    def as_dict(self) -> dict[str, object]:
        """The finite figures that apply, under the keys of `--json`; `bands` is a list of dicts."""
        values = {name: getattr(self, name) for name in _FIGURES}
        figures = {name: value for name, value in values.items() if value is not None and math.isfinite(value)}
        ratio = self.ratio[0] if self.ratio[0] == self.ratio[1] else list(self.ratio)
        bands = [
            {f.name: value for f in fields(band) if math.isfinite(value := getattr(band, f.name))}
            for band in self.bands
        ]
        return {"ratio": ratio, "valid": self.valid, **figures, "bands": bands}

    def __str__(self) -> str:
        """A table: one figure a line, then one band a line."""
        lines = [
            f"{label:<14} {_shown(getattr(self, name)):>9}  {remark}"
            for name, (label, remark) in _FIGURES.items()
            if getattr(self, name) is not None
        ]
        lines.append(f"{'valid':<14} {self.valid:>9.2%}  of the pixels")
        lines.append(f"{'band':<14} {'R-error':>9} {'R-Q':>8} {'D_s':>8} {'D_rho':>8}")
        for number, band in enumerate(self.bands, 1):
            lines.append(f"{number:<14} {band.r_error:>9.2%} {band.r_q:>8.4f} {band.d_s:>8.4f} {band.d_rho:>8.4f}")
        return "\n".join(lines)


def known(value: float) -> float | None:
    """None for NaN, the mark of a figure that nothing valid went into."""
    return None if math.isnan(value) else value


def _shown(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "inf"


_FIGURES = {
    "d_lambda": ("D_lambda", "0 is best; colour at the MS scale against the MS"),
    "d_s": ("D_s", "0 is best; detail against PAN"),
    "hqnr": ("HQNR", "1 is best; both, and it can be won by not sharpening: read it with D_rho"),
    "d_lambda_table": ("D_lambda table", "by the MTF of the sensor table, which is not what the scene shows"),
    "hqnr_table": ("HQNR table", "by the MTF of the sensor table"),
    "qnr": ("QNR", "1 is best; with the older spectral term"),
    "d_lambda_inner": ("D_lambda*", "without the blocks along the border"),
    "d_s_inner": ("D_s*", "without the blocks along the border"),
    "hqnr_inner": ("HQNR*", "without the blocks along the border"),
    "d_rho": ("D_rho", "0 is best; sharpness as PAN has it, blind to colour"),
    "r_ergas": ("R-ERGAS", "0 is best; degraded result against the MS"),
    "r_ergas_table": ("R-ERGAS table", "by the MTF of the sensor table"),
    "r_sam": ("R-SAM", "0 is best; degrees, degraded result against the MS"),
    "r_q2n": ("R-Q2n", "1 is best; degraded result against the MS"),
    "sam": ("SAM", "0 is best; degrees against the reference"),
    "ergas": ("ERGAS", "0 is best; against the reference"),
    "q2n": ("Q2n", "1 is best; against the reference"),
    "scc": ("SCC", "1 is best; fine detail against the reference"),
    "psnr": ("PSNR", "dB against the reference"),
    "ssim": ("SSIM", "1 is best; against the reference"),
    "overshoot": ("overshoot", "0 is best; % of the deviation outside the range of the reference nearby"),
}
