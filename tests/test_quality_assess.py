"""assess: dense re-derivations, independence of the windows, masks, faults that must show, errors, real scenes."""

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from crossdiff_cli.errors import SceneError
from crossdiff_cli.geometry.grid import GridMapping
from crossdiff_cli.geometry.window import Window
from crossdiff_cli.imaging.resample import degrade, expand, mtf_kernel
from crossdiff_cli.quality.assess import assess, assess_arrays
from crossdiff_cli.quality.blocks import block_moments
from crossdiff_cli.quality.d_rho import DRho
from crossdiff_cli.quality.inputs import Judged, Reader, judged_arrays
from crossdiff_cli.quality.q2n import Q2n, block_q2n
from crossdiff_cli.quality.report import QualityReport

GAINS = (0.34, 0.32, 0.30, 0.22)
RATIO = (4.0, 4.0)
FULL = ("d_lambda", "d_s", "hqnr", "qnr", "d_lambda_inner", "d_s_inner", "hqnr_inner", "d_rho")
REDUCED = ("r_ergas", "r_sam", "r_q2n")
TRUTH = ("sam", "ergas", "q2n", "scc", "psnr", "ssim", "overshoot")

Scene = tuple[Tensor, Tensor, Tensor]


def scene(
    rows: int = 256, columns: int = 256, ratio: tuple[float, float] = RATIO, offset: tuple[float, float] = (0.0, 0.0)
) -> Scene:
    """Coloured fields with texture: the truth (4 bands), PAN and MS, in DN."""
    generator = torch.Generator().manual_seed(3)
    colours = 150 + 500 * torch.rand(4, 40, generator=generator, dtype=torch.float64)
    fields = torch.randint(0, 40, (rows // 8 + 2, columns // 8 + 2), generator=generator)
    fields = fields.repeat_interleave(8, 0)[3 : rows + 3].repeat_interleave(8, 1)[:, 5 : columns + 5]
    texture = torch.randn(1, rows, columns, generator=generator, dtype=torch.float64)
    truth = colours[:, fields] * (1 + 0.1 * texture)
    pan = torch.einsum("b,brc->rc", torch.tensor([0.2, 0.3, 0.3, 0.2], dtype=torch.float64), truth)[None]
    shape = (int((rows - offset[0]) / ratio[0]), int((columns - offset[1]) / ratio[1]))
    return truth, pan, degrade(truth[None], shape, ratio, offset, GAINS)[0]


def figures(report: QualityReport) -> dict[str, float]:
    flat = {name: getattr(report, name) for name in (*FULL, *REDUCED, *TRUTH) if getattr(report, name) is not None}
    for i, band in enumerate(report.bands):
        flat |= {f"{name}[{i}]": getattr(band, name) for name in ("r_error", "r_q", "d_s", "d_rho")}
    return flat


def blocks(image: np.ndarray) -> list[np.ndarray]:
    return [
        image[r : r + 32, c : c + 32].ravel()
        for r in range(0, image.shape[0], 32)
        for c in range(0, image.shape[1], 32)
    ]


def dense_q(x: np.ndarray, y: np.ndarray) -> float:
    values = []
    for a, b in zip(blocks(x), blocks(y), strict=True):
        cov = np.cov(a, b)
        values.append(4 * cov[0, 1] * a.mean() * b.mean() / (cov[0, 0] + cov[1, 1]) / (a.mean() ** 2 + b.mean() ** 2))
    return float(np.mean(values))


def dense_reduce(pan: np.ndarray, ratio: int) -> np.ndarray:
    """imresize(pan, 1 / ratio, 'bicubic') with antialiasing, one output pixel at a time."""

    def cubic(x: float) -> float:
        x = abs(x)
        if x <= 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x <= 2 else 0.0

    def along(image: np.ndarray) -> np.ndarray:
        mirrored = np.concatenate([image[::-1], image, image[::-1]])
        n = len(image)
        out = np.zeros((n // ratio, image.shape[1]))
        for k in range(n // ratio):
            centre = (k + 0.5) * ratio - 0.5
            taps = range(math.ceil(centre - 2 * ratio), math.floor(centre + 2 * ratio) + 1)
            weights = np.array([cubic((tap - centre) / ratio) for tap in taps])
            out[k] = weights @ mirrored[[n + tap for tap in taps]] / weights.sum()
        return out

    return along(along(pan).T).T


def test_full_resolution_agrees_with_a_dense_derivation() -> None:
    truth, pan, ms = scene(128, 96)
    fused = truth + 30 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    report = assess_arrays(fused, pan, ms, 4, (0.0, 0.0), GAINS)
    ms_up = expand(ms[None], (128, 96), RATIO, (0.0, 0.0))[0]

    pan_low = torch.from_numpy(dense_reduce(pan[0].numpy(), 4))
    pan_low = expand(pan_low[None, None], (128, 96), RATIO, (0.0, 0.0))[0, 0]
    d_s = [
        abs(dense_q(f.numpy(), pan[0].numpy()) - dense_q(m.numpy(), pan_low.numpy()))
        for f, m in zip(fused, ms_up, strict=True)
    ]
    assert [band.d_s for band in report.bands] == pytest.approx(d_s, rel=1e-6)
    assert report.d_s == pytest.approx(np.mean(d_s), rel=1e-6)

    low = np.stack([fused[b].numpy() for b in range(4)])
    for b, gain in enumerate(GAINS):
        kernel = mtf_kernel(gain, 4.0).numpy()
        half = len(kernel) // 2
        for axis in (0, 1):
            padded = np.pad(low[b], [(half, half) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
            low[b] = np.apply_along_axis(np.convolve, axis, padded, kernel, "valid")
    q2n = Q2n()
    q2n.update(torch.from_numpy(low), ms_up, torch.ones(128, 96, dtype=torch.bool))
    assert report.d_lambda == pytest.approx(1 - q2n.compute(), rel=1e-5)
    assert report.hqnr == pytest.approx((1 - report.d_lambda) * (1 - report.d_s), rel=1e-12)

    change = [
        abs(dense_q(fused[i].numpy(), fused[j].numpy()) - dense_q(ms_up[i].numpy(), ms_up[j].numpy()))
        for i in range(4)
        for j in range(i)
    ]
    assert report.qnr == pytest.approx((1 - np.mean(change)) * (1 - report.d_s), rel=1e-9)

    rho = [
        np.corrcoef(fused[b, r : r + 4, c : c + 4].ravel(), pan[0, r : r + 4, c : c + 4].ravel())[0, 1]
        for b in range(4)
        for r in range(125)
        for c in range(93)
    ]
    assert report.d_rho == pytest.approx(1 - np.mean(rho), rel=1e-9)


def test_a_flat_band_follows_the_pan_nowhere():
    """Its correlation is 0 / 0; what counts is none. A PAN that is flat has nothing to be followed."""
    pan = torch.rand(1, 16, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fused, mask = torch.cat([torch.full_like(pan, 3.0), 2 * pan]), torch.ones(16, 24, dtype=torch.bool)
    figure = DRho((4, 4))
    figure.update(fused, pan, mask)
    assert figure.per_band().tolist() == pytest.approx([1.0, 0.0], abs=1e-9)
    flat = DRho((4, 4))
    flat.update(fused, torch.ones_like(pan), mask)
    assert math.isnan(flat.compute())


def test_consistency_agrees_with_a_dense_derivation() -> None:
    truth, pan, ms = scene()
    fused = 1.05 * truth
    report = assess_arrays(fused, pan, ms, 4, (0.0, 0.0), GAINS)
    assert report.r_ergas == pytest.approx(100 / 4 * math.sqrt(np.mean([band.r_error**2 for band in report.bands])))
    degraded = degrade(fused[None], (64, 64), RATIO, (0.0, 0.0), GAINS)[0]
    errors = ((degraded - ms) ** 2).mean((1, 2)).sqrt() / ms.mean((1, 2))
    assert [band.r_error for band in report.bands] == pytest.approx(errors.tolist(), rel=1e-9)
    assert report.r_sam == pytest.approx(0.0, abs=1e-4)
    q = [dense_q(d.numpy(), m.numpy()) for d, m in zip(degraded, ms, strict=True)]
    assert [band.r_q for band in report.bands] == pytest.approx(q, rel=1e-9)
    assert assess_arrays(truth, pan, ms, 4, (0.0, 0.0), GAINS).r_ergas == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    ("ratio", "offset"),
    [((4.0, 4.0), (0.0, 0.0)), ((4.0, 4.0), (1.375, -0.625)), ((3.7, 2.1), (-0.3, 0.9))],
)
def test_the_windows_do_not_matter(ratio: tuple[float, float], offset: tuple[float, float]) -> None:
    truth, pan, ms = scene(300, 270, ratio, offset)
    mask = torch.ones(300, 270, dtype=torch.bool)
    mask[:40, 100:180] = mask[200:203, 60:64] = False
    fused = expand(ms[None], (300, 270), ratio, offset)[0] + 0.7 * (pan - pan.mean())
    judged = judged_arrays(fused, pan, ms, GridMapping(ratio, offset), GAINS, mask, truth)
    whole = figures(assess(judged, 512))
    assert len(whole) == len(FULL) + len(REDUCED) + len(TRUTH) + 16
    for window in (32, 96, 160):
        assert figures(assess(judged, window)) == pytest.approx(whole, rel=3e-8)


def test_windows_stay_small() -> None:
    truth, pan, ms = scene(256, 256)
    largest = 0

    def watched(reader: Reader) -> Reader:
        def read(window: Window) -> tuple[Tensor, Tensor]:
            nonlocal largest
            largest = max(largest, window.height, window.width)
            return reader(window)

        return read

    judged = judged_arrays(truth, pan, ms, GridMapping(RATIO, (0.0, 0.0)), GAINS, None, truth)
    assert judged.reference
    assess(
        Judged(
            watched(judged.fused), watched(judged.pan), watched(judged.ms),
            judged.shape, judged.ms_shape, judged.grid, judged.gains, watched(judged.reference),
        ),
        32,
    )  # fmt: skip
    assert largest <= max(32 + 2 * 26, 32 * 4 + 2 * 10)


def test_what_is_masked_is_never_read() -> None:
    truth, pan, ms = scene()
    mask = torch.ones(256, 256, dtype=torch.bool)
    mask[60:140, 90:200] = False
    under = torch.zeros(64, 64, dtype=torch.bool)
    under[15:35, 23:50] = True
    reports = []
    for garbage in (0.0, 65535.0, math.nan):
        spoilt = [image.masked_fill(~mask, garbage) for image in (truth, pan, truth)]
        spoilt_ms = ms.masked_fill(under, garbage)
        fused = spoilt[0] + torch.linspace(0, 30, 256)
        report = assess_arrays(fused, spoilt[1], spoilt_ms, 4, (0.0, 0.0), GAINS, mask=mask, reference=spoilt[2])
        reports.append(report)
    assert reports[0].valid == pytest.approx(1 - 80 * 110 / 256**2)
    assert reports[0] == reports[1] == reports[2]
    assert 0 < reports[0].d_lambda < 0.1  # type: ignore[operator]


def test_faults_show_where_the_docs_say() -> None:
    truth, pan, ms = scene()
    exp = expand(ms[None], (256, 256), RATIO, (0.0, 0.0))[0]
    copy = (pan * (ms.mean((1, 2)) / pan.mean())[:, None, None]).contiguous()
    judge = {
        name: assess_arrays(fused, pan, ms, 4, (0.0, 0.0), GAINS, reference=truth)
        for name, fused in {"truth": truth, "exp": exp, "copy": copy, "shift": truth.roll((2, 2), (1, 2))}.items()
    }
    figure = {name: figures(report) for name, report in judge.items()}
    assert figure["truth"]["hqnr"] > 0.85
    assert abs(figure["exp"]["hqnr"] - figure["truth"]["hqnr"]) < 0.02  # the trap: HQNR hardly misses the detail
    assert figure["copy"]["hqnr"] < 0.6
    assert figure["copy"]["d_lambda"] > 0.3
    assert (
        figure["copy"]["d_rho"] == pytest.approx(0.0, abs=1e-6)
        and figure["exp"]["d_rho"] > figure["truth"]["d_rho"] + 0.3
    )
    assert figure["copy"]["r_sam"] > 5 > figure["exp"]["r_sam"]
    assert figure["shift"]["d_rho"] > 0.5 and figure["shift"]["scc"] < 0.5
    for name in ("ergas", "sam"):
        assert figure["truth"][name] < 1e-9 < figure["exp"][name]
    assert figure["truth"]["q2n"] == pytest.approx(1.0, abs=1e-9)


def test_grows_worse_with_blur_and_with_a_colour_cast() -> None:
    truth, pan, ms = scene()
    soft = (truth + truth.roll(1, 1) + truth.roll(-1, 1) + truth.roll(1, 2) + truth.roll(-1, 2)) / 5
    blurred, casts = [truth + k * (soft - truth) for k in (0.0, 0.3, 0.6, 1.0)], []
    by_blur = [assess_arrays(image, pan, ms, 4, (0.0, 0.0), GAINS).d_rho for image in blurred]
    for cast in (0.0, 0.1, 0.3, 0.6):
        fused = truth * torch.tensor([1 + cast, 1.0, 1.0, 1 - cast])[:, None, None]
        casts.append(assess_arrays(fused, pan, ms, 4, (0.0, 0.0), GAINS))
    by_lambda, by_sam = [r.d_lambda for r in casts], [r.r_sam for r in casts]
    for values in (by_blur, by_lambda, by_sam):
        assert values == sorted(values) and len(set(values)) == 4  # type: ignore[type-var]


def test_a_common_gain_changes_nothing() -> None:
    truth, pan, ms = scene(128, 128)
    plain, scaled = (
        figures(assess_arrays(k * 0.98 * truth, k * pan, k * ms, 4, (0.0, 0.0), GAINS, reference=k * truth))
        for k in (1.0, 1 / 4096)
    )
    assert scaled == pytest.approx(plain, rel=1e-7, abs=1e-9)


def test_border_blocks_can_be_left_out() -> None:
    truth, pan, ms = scene()
    spoilt = truth.clone()
    spoilt[:, :16] = spoilt[:, :16].flip(2)
    plain, report = (assess_arrays(image, pan, ms, 4, (0.0, 0.0), GAINS) for image in (truth, spoilt))
    assert report.d_lambda > plain.d_lambda + 0.02  # type: ignore[operator]
    assert report.d_lambda_inner == pytest.approx(plain.d_lambda_inner, rel=1e-9)


def test_report_as_dict_and_as_table() -> None:
    truth, pan, ms = scene(96, 96)
    report = assess_arrays(truth, pan, ms, 4, (0.0, 0.0), GAINS)
    record = json.loads(json.dumps(report.as_dict()))
    assert record["ratio"] == 4.0 and record["valid"] == 1.0 and len(record["bands"]) == 4
    assert {*FULL, *REDUCED} - {"ratio"} <= record.keys() and record.keys().isdisjoint(TRUTH)
    table = str(report)
    assert "HQNR" in table and "PSNR" not in table and table.count("\n") == len(FULL) + len(REDUCED) + 1 + 4
    identical = assess_arrays(truth, pan, ms, 4, (0.0, 0.0), GAINS, reference=truth)
    assert "PSNR" in str(identical) and "inf" in str(identical)
    assert "Infinity" not in json.dumps(identical.as_dict())
    small = assess_arrays(truth[:, :16, :16], pan[:, :16, :16], ms[:, :4, :4], 4, (0.0, 0.0), GAINS)
    assert small.d_lambda is None and small.hqnr_inner is None and small.d_rho is not None
    assert replace(report, d_lambda=None).as_dict().keys() == record.keys() - {"d_lambda"}


def test_bad_input_says_what_is_wrong() -> None:
    truth, pan, ms = scene(64, 64)
    mask = torch.zeros(64, 64, dtype=torch.bool)
    for arguments, message in (
        ((truth, pan[:, :60], ms), "PAN"),
        ((truth[:3], pan, ms), "the bands of the MS .*found 3, expected 4"),
        ((truth, truth[:2], ms), "2 band"),
    ):
        with pytest.raises(SceneError, match=message):
            assess_arrays(*arguments, 4, (0.0, 0.0), GAINS)
    with pytest.raises(SceneError, match="Nyquist gains .*found 2, expected 4 or 1"):
        assess_arrays(truth, pan, ms, 4, (0.0, 0.0), GAINS[:2])
    with pytest.raises(SceneError, match="no pixel is valid .*found 0 of 64 x 64"):
        assess_arrays(truth, pan, ms, 4, (0.0, 0.0), GAINS, mask=mask)
    with pytest.raises(SceneError, match="the mask does not have the size"):
        assess_arrays(truth, pan, ms, 4, (0.0, 0.0), GAINS, mask=mask[1:])
    with pytest.raises(SceneError, match="the reference .*found 4 x 60 x 64, expected 4 x 64 x 64"):
        assess_arrays(truth, pan, ms, 4, (0.0, 0.0), GAINS, reference=truth[:, :60])


DATA = os.environ.get("CROSSDIFF_DATA")


@pytest.mark.skipif(not DATA, reason="needs CROSSDIFF_DATA")
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    ("name", "gains", "d_lambda", "d_s"),
    [
        ("pairmax_W4_Mexi_Nat", [0.23], (0.01, 0.05), (0.06, 0.12)),
        # An urban scene whose PAN was reduced without the MTF: sharper against its MS than a native pair.
        ("pairmax_W3_Muni_Urb", [0.325, 0.355, 0.36, 0.35, 0.365, 0.36, 0.335, 0.315], (0.02, 0.05), (0.06, 0.2)),
        # Half of its valid blocks are water, where the MS is noise: judged on the other half.
        ("worldview2_spacenet6_rotterdam2", [0.35], (0.02, 0.06), (0.04, 0.12)),
    ],
)
def test_plain_interpolation_scores_as_in_the_literature(
    name: str, gains: list[float], d_lambda: tuple[float, float], d_s: tuple[float, float]
) -> None:
    import rasterio

    assert DATA
    with (
        rasterio.open(Path(DATA) / name / "pan.tif") as pan_file,
        rasterio.open(Path(DATA) / name / "ms.tif") as ms_file,
    ):
        pan, ms = (torch.from_numpy(file.read().astype(np.float64)) for file in (pan_file, ms_file))
    mask = ((pan[0] != 0) & (ms != 0).any(0).repeat_interleave(4, 0).repeat_interleave(4, 1)).contiguous()
    exp = expand(ms[None], (pan.shape[1], pan.shape[2]), RATIO, (0.0, 0.0))[0]
    moments = block_moments(exp, exp, mask)
    rough = moments.var_x.sqrt().mean(1) > 0.1 * moments.mean_x.mean(1)
    down, across = (math.ceil(n / 32) for n in mask.shape)
    rough_pixels = rough.view(down, across).repeat_interleave(32, 0).repeat_interleave(32, 1)
    if name == "worldview2_spacenet6_rotterdam2":
        mask = mask & rough_pixels[: mask.shape[0], : mask.shape[1]]
    report = assess_arrays(exp, pan, ms, 4, (0.0, 0.0), gains, mask=mask)
    assert report.d_lambda is not None and report.d_s is not None
    assert d_lambda[0] < report.d_lambda < d_lambda[1]
    assert d_s[0] < report.d_s < d_s[1]
    assert report.d_rho is not None and report.d_rho > 0.4
    copy = pan * (ms.mean((1, 2)) / pan.mean())[:, None, None]
    pasted = assess_arrays(copy, pan, ms, 4, (0.0, 0.0), gains, mask=mask)
    assert pasted.hqnr is not None and report.hqnr is not None and pasted.hqnr < report.hqnr - 0.1
    assert block_q2n(moments).min() > 0.999
