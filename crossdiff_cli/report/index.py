"""The scenes of a batch on one HTML page, with links to the page of each."""

import html
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crossdiff_cli.errors import OutputError
from crossdiff_cli.io.target import check_target
from crossdiff_cli.report.page import KINDS
from crossdiff_cli.system.atomic import replacing

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}"
    "table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3rem .7rem;border-bottom:1px solid #ccc}"
    "td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}tr.failed td{color:#b00020}"
)
_COLUMNS = ("scene", "status", "sensor", "HQNR", "D<sub>ρ</sub>", "time (s)", "remarks")
_NUMBERS = {3, 4, 5}


def write_index(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Write the page; an old one is replaced.

    Args:
        path: of the page; links are relative to its folder.
        lines: `Outcome.as_dict()` of each scene.

    Raises:
        OutputError: the page cannot be written.
    """
    check_target(path, overwrite=True, kinds=KINDS)
    head = "".join(f"<th{_number(n)}>{name}</th>" for n, name in enumerate(_COLUMNS))
    rows = "\n".join(_row(line, path.parent) for line in lines)
    text = (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>CrossDiff batch</title>'
        f"<style>{_STYLE}</style>\n"
        f"<h1>{len(lines)} scenes</h1>\n<table><thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table></html>\n"
    )
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError("it cannot be written", path=path, found=error.strerror) from error


def _row(line: Mapping[str, Any], folder: Path) -> str:
    name = html.escape(str(line["name"]))
    if line.get("report"):
        link = Path(os.path.relpath(line["report"], folder)).as_posix()
        name = f'<a href="{html.escape(link)}">{name}</a>'
    remarks = [line["reason"]] if line["reason"] else []
    cells = [
        name,
        line["status"],
        html.escape(str(line.get("sensor", ""))),
        _figure(line.get("hqnr")),
        _figure(line.get("d_rho")),
        f"{line['seconds']:.1f}",
        "<br>".join(html.escape(str(text)) for text in [*remarks, *line["warnings"]]),
    ]
    return (
        f'<tr class="{line["status"]}">'
        + "".join(f"<td{_number(n)}>{cell}</td>" for n, cell in enumerate(cells))
        + "</tr>"
    )


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _number(column: int) -> str:
    return ' class="n"' if column in _NUMBERS else ""
