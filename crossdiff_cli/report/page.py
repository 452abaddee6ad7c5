"""A result and its PAN and MS to one self-contained HTML page."""

import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files as resources
from pathlib import Path

import torch

from crossdiff_cli import __version__
from crossdiff_cli.errors import OutputError
from crossdiff_cli.estimate.registration import Registration
from crossdiff_cli.estimate.survey import NOISE_THRESHOLD, SceneEstimates
from crossdiff_cli.io.target import check_target
from crossdiff_cli.options import PairOptions
from crossdiff_cli.quality.files import JudgedFiles
from crossdiff_cli.quality.report import QualityReport
from crossdiff_cli.report.descriptions import WORDS
from crossdiff_cli.report.histogram import histogram
from crossdiff_cli.report.hotspots import hardest
from crossdiff_cli.report.maps import Maps, draw_maps
from crossdiff_cli.report.rivals import Rivals, score_rivals
from crossdiff_cli.report.views import RAMPS, Samples, close_up, map_picture, overview, palette, sample
from crossdiff_cli.system.atomic import replacing

KINDS = (".html", ".htm")
"""Endings of files that a page may replace."""


def report_on(result: Path, pan: str, ms: Sequence[str], options: PairOptions, page: Path) -> QualityReport:
    """Score a result, write the page about it, return the figures.

    Raises:
        CrossDiffError: what `JudgedFiles` and `write_page` raise.
    """
    with JudgedFiles(str(result), pan, ms, options=options) as opened:
        report = opened.report()
        write_page(page, opened, report)
        return report


def write_page(path: Path, files: JudgedFiles, report: QualityReport) -> None:
    """Write the page; an old one is replaced, and only by a complete one.

    Raises:
        OutputError: the page cannot be written.
        SceneError: nothing valid to show.
    """
    check_target(path, overwrite=True, kinds=KINDS)
    text = build_page(files, report)
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError("it cannot be written", path=path, found=error.strerror) from error


def build_page(files: JudgedFiles, report: QualityReport) -> str:
    """Draw and lay out everything; memory is bounded whatever the size of the scene."""
    samples = sample(files)
    colours = palette(files, samples)
    maps = draw_maps(files.judged)
    rivals = score_rivals(files.judged)
    numbers = {"detail": 0, "colour": 0}
    views = [overview(files, samples, colours)]
    for place in hardest(maps, files.judged.shape):
        numbers[place.kind] += 1
        views.append(close_up(files, place, numbers[place.kind], colours, rivals.best))
    data = {"composites": list(colours.composites), "views": [view.as_dict() for view in views]}
    parts = {
        "title": html.escape(Path(files.fused.path).name),
        "subtitle": _subtitle(files),
        "tiles": _tiles(report, rivals),
        "rival": rivals.best,
        "figures_lead": _figures_lead(files, rivals),
        "figures": _figures(files, report, rivals),
        "legend": _legend(maps),
        "bands": _bands(files, report, maps, samples),
        "assumed": _assumed(files, report),
        "footer": f"CrossDiff {__version__}. How to read the figures: docs/quality.md.",
        "data": json.dumps(data, separators=(",", ":")).replace("</", "<\\/"),
    }
    page = resources("crossdiff_cli.report").joinpath("page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], page)


def _subtitle(files: JudgedFiles) -> str:
    pair = files.pair
    names = ", ".join(band.name for band in pair.bands)
    size = f"{files.extent.width} × {files.extent.height} pixels, {files.fused.dtype}"
    return html.escape(f"{pair.sensor.name}; {len(pair.bands)} bands: {names}; ratio {pair.ratio:.4g}; {size}")


def _tiles(report: QualityReport, rivals: Rivals) -> str:
    best, exp = rivals.baselines[rivals.best], rivals.baselines["EXP"]
    error = torch.tensor([band.r_error for band in report.bands]).nanmean()
    tiles = [
        ("HQNR", _shown("hqnr", report.hqnr), f"1 is best; {rivals.best} {_shown('hqnr', best.hqnr)}, not sharpened "
         + _shown("hqnr", exp.hqnr)),
        ("D<sub>ρ</sub>", _shown("d_rho", report.d_rho), "0 is sharp as PAN; not sharpened "
         + _shown("d_rho", exp.d_rho)),
        ("Spectral error", _percent(float(error)), "degraded, it misses the MS by this much, mean of the bands"),
    ]  # fmt: skip
    if report.ergas is not None:
        shown = f"0 is best, against the reference; {rivals.best} {_shown('ergas', best.ergas)}"
        tiles.append(("ERGAS", _shown("ergas", report.ergas), shown))
    else:
        tiles.append(("Valid", f"{report.valid:.1%}", "of the pixels of the result"))
    return "".join(f'<div class="tile">{name}<b>{value}</b><small>{note}</small></div>' for name, value, note in tiles)


def _figures_lead(files: JudgedFiles, rivals: Rivals) -> str:
    whole = rivals.window.shape == files.judged.shape
    where = "the same scene" if whole else (
        f"a part of {rivals.window.width} × {rivals.window.height} pixels; the first column is the whole scene, "
        "the second the result on that part"
    )  # fmt: skip
    trained = " † The network's training loss contains a close relative of this figure." if files.trained_on else ""
    return (
        f"Beside the classical methods on {where}. EXP is the MS interpolated, not sharpened. Bold is the best of a "
        f"row, EXP aside. Differences of HQNR under 0.005 on one scene are noise.{trained}"
    )


def _figures(files: JudgedFiles, report: QualityReport, rivals: Rivals) -> str:
    whole = rivals.window.shape == files.judged.shape
    columns: dict[str, QualityReport] = {"Result": report} if whole else {"Result": report, "Part": rivals.ours}
    columns |= rivals.baselines
    compared = [name for name in columns if name != "EXP" and (whole or name != "Result")]
    head = "".join(f"<th{_class(name)}>{name}</th>" for name in columns)
    lines = [f"<table><thead><tr><th></th>{head}</tr></thead><tbody>"]
    groups = {"Without a reference": ("hqnr", "d_lambda", "d_s", "hqnr_inner", "hqnr_table",
              "d_lambda_table", "d_rho", "r_ergas", "r_ergas_table", "r_sam", "r_q2n"),
              "Against the reference": ("ergas", "sam", "q2n", "scc", "psnr", "ssim", "overshoot")}  # fmt: skip
    for title, keys in groups.items():
        known = [key for key in keys if getattr(report, key) is not None]
        if known:
            lines.append(f'<tr class="group"><th colspan="{len(columns) + 1}">{title}</th></tr>')
        lines += [_figure_row(key, columns, compared, files.trained_on) for key in known]
    return "".join([*lines, "</tbody></table>"])


def _figure_row(key: str, columns: Mapping[str, QualityReport], compared: Sequence[str], trained: Sequence[str]) -> str:
    word = WORDS[key]
    values = {name: getattr(report, key) for name, report in columns.items()}
    known = [values[name] for name in compared if values[name] is not None]
    best = (max if word.larger else min)(known, default=None)
    mark = "†" if key in trained else ""
    arrow = "↑" if word.larger else "↓"
    cells = "".join(
        f"<td{_class(name, best=name in compared and value is not None and value == best)}>{_shown(key, value)}</td>"
        for name, value in values.items()
    )
    return f"<tr><th>{word.label} {arrow}{mark}<small>{word.means} {word.caution}</small></th>{cells}</tr>"


def _class(name: str, *, best: bool = False) -> str:
    names = [*(["ours"] if name in ("Result", "Part") else []), *(["best"] if best else [])]
    return f' class="{" ".join(names)}"' if names else ""


def _legend(maps: Maps) -> str:
    def ramp(name: str) -> str:
        stops = ", ".join(f"rgb{stop}" for stop in RAMPS[name])
        return f'<span class="ramp" style="background: linear-gradient(90deg, {stops})"></span>'

    return (
        f"<span>Spectral error 0%{ramp('error')}{_error_limit(maps):.1%}</span>"
        f"<span>Correlation with PAN 0{ramp('correlation')}1</span>"
        '<span><span class="swatch" style="background: var(--soft); opacity: .42"></span>before (MS)</span>'
        '<span><span class="swatch" style="background: var(--accent)"></span>after (result)</span>'
    )


def _error_limit(maps: Maps) -> float:
    known = maps.error[maps.error.isfinite()]
    return max(float(known.quantile(0.98)), 1e-4) if known.numel() else 1.0


def _bands(files: JudgedFiles, report: QualityReport, maps: Maps, samples: Samples) -> str:
    limit, cards = _error_limit(maps), []
    for index, (band, quality) in enumerate(zip(files.pair.bands, report.bands, strict=True)):
        error = map_picture(maps.error[index], "error", 0.0, limit)
        correlation = map_picture(maps.correlation[index], "correlation", 0.0, 1.0)
        before, after = (image[index][mask] for image, mask in (samples.ms, samples.fused))
        cards.append(
            f'<article class="card"><h3>{html.escape(band.name)} <span class="soft">{band.center_nm:.0f} nm</span></h3>'
            f'<div class="pair"><figure><figcaption>Error {_percent(quality.r_error)} RMS</figcaption>'
            f'<img class="sharp" src="{error}" alt="Spectral error of {html.escape(band.name)}"></figure>'
            f"<figure><figcaption>Correlation {1 - quality.d_rho:.3f}</figcaption>"
            f'<img class="sharp" src="{correlation}" alt="Correlation of {html.escape(band.name)}"></figure></div>'
            f"{histogram(before, after)}</article>"
        )
    return "".join(cards)


def _assumed(files: JudgedFiles, report: QualityReport) -> str:
    pair, judged, found = files.pair, files.judged, files.estimates
    bands = "; ".join(
        f"{band.name} {band.center_nm:.0f} ± {band.width_nm / 2:.0f} nm, MTF in the table {band.nyquist_gain:g}"
        for band in pair.bands
    )
    rows = {
        "Result": files.fused.path,
        "PAN": pair.pan.path,
        "MS": ", ".join(raster.path for raster in pair.ms),
        "Sensor": f"{pair.sensor.name} ({pair.sensor.key}), from {_source(pair.sensor_source)}",
        "Bands": bands,
        "MTF": "that of the table" if found is None else found.describe_mtf(),
        "MTF table": "Nyquist gains published" if pair.sensor.mtf_published else "usual Nyquist gains, none published",
        "Ratio": f"{pair.grid.ratio[1]:.5g} × {pair.grid.ratio[0]:.5g} PAN pixels per MS pixel",
        "Shift": "not measured"
        if found is None
        else _shift(files.registration, found.registration, pair.footprint.shape),
        "Noise": "not measured" if found is None else _noise(found),
        "Part judged": f"{judged.shape[1]} × {judged.shape[0]} of {pair.pan.shape[1]} × {pair.pan.shape[0]} PAN pixels",
        "Valid": f"{report.valid:.2%} of the pixels; nodata: {_nodata(files)}",
        "CRS": "none" if pair.crs is None else pair.crs.to_string(),
        **({"Notes": "; ".join(pair.notes)} if pair.notes else {}),
    }
    return "<dl>" + "".join(f"<dt>{name}</dt><dd>{html.escape(text)}</dd>" for name, text in rows.items()) + "</dl>"


def _source(source: str) -> str:
    return "the command line" if source == "option" else source


def _shift(corrected: Registration | None, found: Registration, size: tuple[int, int]) -> str:
    line = found.describe(size)
    return f"{line}; the figures {'do not ' if corrected is None else ''}correct it" if found.correlation else line


def _noise(found: SceneEstimates) -> str:
    levels = found.describe_noise()
    return f"{levels} (standard deviation, DN)" if levels else f"below {NOISE_THRESHOLD:.0%} of each image's deviation"


def _nodata(files: JudgedFiles) -> str:
    rasters = (("result", files.fused), ("PAN", files.pair.pan), ("MS", files.pair.ms[0]))
    return ", ".join(f"{name} {'none' if r.nodata[0] is None else f'{r.nodata[0]:g}'}" for name, r in rasters)


def _shown(key: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.{WORDS[key].digits}f}" if math.isfinite(value) else "∞"


def _percent(value: float) -> str:
    return f"{value:.2%}" if math.isfinite(value) else "–"
