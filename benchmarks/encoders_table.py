"""Rows of `encoders.py` to Markdown: means over scenes, and the spread between seeds beside them."""

import statistics
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]

TITLES = {
    "q2n": "Q2n ↑", "ergas": "ERGAS ↓", "sam": "SAM ↓", "scc": "SCC ↑",
    "hqnr": "HQNR ↑", "d_rho": "D_ρ ↓", "r_ergas": "R-ERGAS ↓",
}  # fmt: skip


def markdown(rows: Sequence[Row]) -> str:
    """One table per head budget: the mean over scenes, averaged over seeds, ± half the range of the seeds."""
    lines = []
    for steps in sorted({row["steps"] for row in rows}):
        mine = [row for row in rows if row["steps"] == steps]
        scenes = len({row["scene"] for row in mine})
        lines += ["", f"### Head trained for {steps} steps ({scenes} scenes)", ""]
        lines += ["| encoders | seeds | " + " | ".join(TITLES.values()) + " |", "|---|---|" + "---|" * len(TITLES)]
        for arm in dict.fromkeys(row["arm"] for row in mine):
            cells = [_cell([r for r in mine if r["arm"] == arm], key) for key in TITLES]
            seeds = len({row["seed"] for row in mine if row["arm"] == arm})
            lines.append(f"| {arm} | {seeds} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(rows: Sequence[Row], key: str) -> str:
    rows = [row for row in rows if key in row]
    if not rows:
        return "–"
    means = [
        statistics.fmean(row[key] for row in rows if row["seed"] == seed)
        for seed in sorted({row["seed"] for row in rows})
    ]
    spread = f" ± {(max(means) - min(means)) / 2:.4f}" if len(means) > 1 else ""
    return f"{statistics.fmean(means):.4f}{spread}"
