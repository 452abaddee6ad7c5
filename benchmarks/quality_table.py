"""Rows of figures to Markdown: mean and standard deviation by group and method, and every scene."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

from crossdiff_cli.quality.report import TRAINED_ON

TRUTH = "truth"
"""The method that is the reference itself: what figures without a reference say of a perfect result."""
Row = dict[str, Any]

FULL = {
    "hqnr": "HQNR ↑", "d_lambda": "D_λ ↓", "d_s": "D_s ↓", "hqnr_inner": "HQNR* ↑",
    "hqnr_table": "HQNR table ↑", "d_rho": "D_ρ", "r_ergas": "R-ERGAS ↓", "r_sam": "R-SAM ↓", "r_q2n": "R-Q2n ↑",
    "qnr": "QNR ↑",
}  # fmt: skip
REDUCED = {
    "ergas": "ERGAS ↓", "sam": "SAM ↓", "q2n": "Q2n ↑", "scc": "SCC ↑", "psnr": "PSNR ↑", "ssim": "SSIM ↑",
    "overshoot": "overshoot ↓", "r_ergas": "R-ERGAS ↓", "d_rho": "D_ρ",
}  # fmt: skip
RATIO_TO = "MTF-GLP-FS"
"""The method that others are compared with scene by scene."""
RATIOS = ("ergas", "sam", "overshoot")
REGISTERED = ("hqnr", "hqnr_table", "d_lambda", "d_s", "d_rho", "r_ergas", "r_sam", "r_q2n")
"""Figures that are also taken where the MS really lies."""
SCENE = {"full": ("hqnr", "d_rho", "r_ergas"), "reduced": ("ergas", "sam", "q2n"), "natural": ("ergas", "sam", "q2n")}
_PREFIX = "registered_"
_TABLES = (
    ("full", "Full resolution", FULL),
    ("full", "Full resolution, where the MS really lies", {_PREFIX + key: FULL[key] for key in REGISTERED}),
    ("reduced", "Reduced resolution, against the reference", REDUCED),
    ("natural", "Natural: MTF and noise of the scene, against the reference", REDUCED),
)


def group_of(sensor: str) -> str:
    """`Landsat` (30 m, ratio 2, bands outside PAN) or `VHR`."""
    return "Landsat" if sensor in {"l7", "l8", "l9"} else "VHR"


def summary(rows: Sequence[Row], aside: Sequence[str] = ()) -> list[Row]:
    """One row per group, scale and method: number of scenes, mean and standard deviation of each figure."""
    out = []
    for scale in SCENE:
        keys = [key for where, _, titles in _TABLES if where == scale for key in titles]
        for group in ("VHR", "Landsat"):
            chosen = [r for r in rows if _counts(r, scale, group) and r["scene"] not in aside]
            for method in dict.fromkeys(r["method"] for r in chosen):
                mine = [r for r in chosen if r["method"] == method]
                figures = {key: _spread([r[key] for r in mine if _known(r.get(key))]) for key in keys}
                out.append({"group": group, "scale": scale, "method": method, "scenes": len(mine), "figures": figures})
    return out


def markdown(rows: Sequence[Row], heading: str, remarks: Sequence[str], aside: Sequence[str] = ()) -> str:
    """The whole document."""
    lines = [f"# {heading}", ""]
    lines += [f"- {remark}" for remark in remarks]
    lines += [
        "- ↑ larger is better, ↓ smaller is better; mean ± standard deviation over scenes; bold: the best mean.",
        "- HQNR* leaves out the blocks along the border. † the network's training loss contains a close relative of "
        "this figure.",
        "- D_ρ is no target: the truth itself has about .3.",
    ]
    if aside:
        lines.append(f"- Not in the means: {', '.join(aside)}.")
    means = summary(rows, aside)
    for scale, title, keys in _TABLES:
        for group in ("VHR", "Landsat"):
            part = [row for row in means if row["scale"] == scale and row["group"] == group]
            if any(row["figures"][key] for row in part for key in keys):
                lines += ["", f"## {title}: {group}, {_count(part)}", ""]
                lines += _mean_table(part, keys)
    for scale, shown in SCENE.items():
        title, titles = next((title, keys) for where, title, keys in _TABLES if where == scale)
        for key in shown:
            lines += ["", f"## Each scene: {titles[key]}, {title.lower()}", ""]
            lines += _scene_table([r for r in rows if r["scale"] == scale], key)
    for scale in ("reduced", "natural"):
        lines += _ratio_table(means, scale, [r for r in rows if r["scene"] not in aside])
    failed = [r for r in rows if "error" in r]
    if failed:
        lines += ["", "## No result", ""]
        lines += [f"- {r['method']}, {r['scene']} ({r['scale']}): {r['error']}" for r in failed]
    return "\n".join(lines) + "\n"


def _mean_table(part: Sequence[Row], keys: dict[str, str]) -> list[str]:
    best = {}
    for key, title in keys.items():
        values = [row["figures"][key][0] for row in part if row["figures"][key] and row["method"] != TRUTH]
        best[key] = (max if "↑" in title else min)(values, default=None)
    titles = [title + ("†" if key in TRAINED_ON else "") for key, title in keys.items()]
    lines = [_line(["method", "scenes", *titles]), _line(["---"] + ["---:"] * (len(keys) + 1))]
    for row in part:
        cells = [row["method"], str(row["scenes"])]
        for key in keys:
            spread = row["figures"][key]
            if not spread:
                cells.append("–")
                continue
            mean, deviation = spread
            text = _number(mean, key) + (f" ± {_number(deviation, key)}" if row["scenes"] > 1 else "")
            cells.append(f"**{text}**" if mean == best[key] else text)
        lines.append(_line(cells))
    return lines


def _ratio_table(means: Sequence[Row], scale: str, rows: Sequence[Row]) -> list[str]:
    """Geometric mean and range over all scenes of the ratio of each method's figure to that of `RATIO_TO`."""
    theirs = {r["scene"]: r for r in rows if r["scale"] == scale and r["method"] == RATIO_TO}
    methods = dict.fromkeys(row["method"] for row in means if row["scale"] == scale and row["method"] != TRUTH)
    lines = []
    for method in methods:
        mine = [r for r in rows if r["scale"] == scale and r["method"] == method and "error" not in r]
        cells = [method]
        for key in RATIOS:
            pairs = [(r.get(key), theirs.get(r["scene"], {}).get(key)) for r in mine]
            ratios = [a / b for a, b in pairs if _known(a) and _known(b) and b > 0]
            if not ratios:
                break
            cells.append(f"{statistics.geometric_mean(ratios):.3f} ({min(ratios):.2f} to {max(ratios):.2f})")
        else:
            lines.append(_line(cells))
    if not lines:
        return []
    titles = ["method", *(REDUCED[key] for key in RATIOS)]
    return [
        "", f"## Ratio to {RATIO_TO}, scene by scene: {scale}", "",
        "Geometric mean over scenes, and the best and the worst scene.", "",
        _line(titles), _line(["---"] + ["---:"] * len(RATIOS)), *lines,
    ]  # fmt: skip


def _scene_table(rows: Sequence[Row], key: str) -> list[str]:
    methods = list(dict.fromkeys(r["method"] for r in rows))
    figures = {(r["scene"], r["method"]): r.get(key) for r in rows}
    lines = [_line(["scene", *methods]), _line(["---"] + ["---:"] * len(methods))]
    for scene in dict.fromkeys(r["scene"] for r in rows):
        values = [figures.get((scene, method)) for method in methods]
        lines.append(_line([scene, *("–" if v is None or not _known(v) else _number(v, key) for v in values)]))
    return lines


def _count(part: Sequence[Row]) -> str:
    scenes = max(row["scenes"] for row in part)
    return f"{scenes} scene" + ("s" if scenes != 1 else "")


def _counts(row: Row, scale: str, group: str) -> bool:
    return "error" not in row and row["scale"] == scale and group_of(row["sensor"]) == group


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _spread(values: Sequence[float]) -> tuple[float, float] | None:
    if not values:
        return None
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def _number(value: float, key: str) -> str:
    digits = {"ergas": 3, "sam": 3, "r_ergas": 3, "r_sam": 3, "psnr": 2}.get(key.removeprefix(_PREFIX), 4)
    return f"{value:.{digits}f}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
