"""Score a result against its PAN and MS, and a reference if there is one, window by window -> QualityReport."""

import math
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from crossdiff_cli.errors import SceneError
from crossdiff_cli.geometry.grid import GridMapping
from crossdiff_cli.quality.consistency import Consistency, on_ms_grid
from crossdiff_cli.quality.full_resolution import FullResolution
from crossdiff_cli.quality.inputs import Judged, judged_arrays
from crossdiff_cli.quality.qnr import quality_without_reference
from crossdiff_cli.quality.report import BandQuality, QualityReport, known
from crossdiff_cli.quality.windows import BLOCK, windows
from crossdiff_cli.quality.with_reference import WithReference

WINDOW = 512
"""Side of the windows a scene is read by, in PAN pixels, unless told otherwise."""

_TRUTH = ("sam", "ergas", "q2n", "scc", "psnr", "ssim", "overshoot")


def assess_arrays(
    fused: Tensor,
    pan: Tensor,
    ms: Tensor,
    ratio: float | tuple[float, float],
    offset: tuple[float, float],
    gains: Sequence[float],
    *,
    mask: Tensor | None = None,
    reference: Tensor | None = None,
) -> QualityReport:
    """Score a result in memory.

    Args:
        fused: (bands, rows, columns) on the PAN grid, in the unit of `ms`.
        pan: (1, rows, columns).
        ms: (bands, h, w).
        ratio: PAN pixels per MS pixel, one number or (rows, columns).
        offset: PAN coordinates (row, column) of the outer corner of MS pixel (0, 0), without registration shift.
        gains: Nyquist gain of each band, or one for all.
        mask: bool (rows, columns), True where result, PAN and MS are valid; None if everywhere.
        reference: as `fused`, the truth where it is known.

    Raises:
        SceneError: shapes that do not fit together, or nothing valid to judge.
    """
    pair = (float(ratio), float(ratio)) if isinstance(ratio, int | float) else ratio
    return assess(judged_arrays(fused, pan, ms, GridMapping(pair, offset), gains, mask, reference))


def assess(judged: Judged, window: int = WINDOW) -> QualityReport:
    """Score a result that is read window by window.

    Args:
        judged: the result and what it is judged by.
        window: side of the windows in PAN pixels, a multiple of 32; the figures do not depend on it.

    Raises:
        SceneError: nothing valid to judge.
    """
    full, consistency = FullResolution(judged), Consistency(judged.grid.ratio)
    by_table = judged.table_gains and replace(judged, gains=judged.table_gains, table_gains=None)
    consistency_table = Consistency(judged.grid.ratio)
    truth = WithReference(judged, judged.reference, window) if judged.reference else None
    valid = 0
    for core in windows(judged.shape, window):
        valid += full.update(core)
        if truth:
            truth.update(core)
    if not valid:
        raise SceneError(
            "no pixel is valid in both the result and the PAN",
            found=f"0 of {judged.shape[0]} x {judged.shape[1]}",
            cure="check the nodata values",
        )
    for core in windows(judged.ms_shape, max(BLOCK, round(window / max(judged.grid.ratio)) // BLOCK * BLOCK)):
        if degraded := on_ms_grid(judged, core):
            consistency.update(*degraded)
        if by_table and (degraded := on_ms_grid(by_table, core)):
            consistency_table.update(*degraded)
    report = _report(judged, full, consistency, truth, valid / math.prod(judged.shape))
    if not by_table:
        return report
    d_lambda = full.d_lambda_table.compute()
    return replace(
        report,
        d_lambda_table=known(d_lambda),
        hqnr_table=known(quality_without_reference(d_lambda, full.d_s.compute())),
        r_ergas_table=known(consistency_table.r_ergas()),
    )


def _report(
    judged: Judged, full: FullResolution, consistency: Consistency, truth: WithReference | None, valid: float
) -> QualityReport:
    d_lambda, d_s = full.d_lambda.compute(), full.d_s.compute()
    d_lambda_inner, d_s_inner = full.d_lambda.compute(inner=True), full.d_s.compute(inner=True)
    by_band = (consistency.error_per_band(), consistency.q_per_band(), full.d_s.per_band(), full.d_rho.per_band())
    bands = zip(*(column.expand(len(judged.gains)).tolist() for column in by_band), strict=True)
    return QualityReport(
        ratio=judged.grid.ratio,
        valid=valid,
        d_lambda=known(d_lambda),
        d_s=known(d_s),
        hqnr=known(quality_without_reference(d_lambda, d_s)),
        d_lambda_table=None,
        hqnr_table=None,
        qnr=known(quality_without_reference(full.inter_band.compute(), d_s)),
        d_lambda_inner=known(d_lambda_inner),
        d_s_inner=known(d_s_inner),
        hqnr_inner=known(quality_without_reference(d_lambda_inner, d_s_inner)),
        d_rho=known(full.d_rho.compute()),
        r_ergas=known(consistency.r_ergas()),
        r_ergas_table=None,
        r_sam=known(consistency.r_sam()),
        r_q2n=known(consistency.r_q2n()),
        **{name: known(getattr(truth, name).compute()) if truth else None for name in _TRUTH},
        bands=tuple(BandQuality(*band) for band in bands),
    )
