"""The figures of `speed.py` as a page of Markdown: tables, floor and cost model. Nothing is measured here."""

from typing import Any

Row = dict[str, Any]

ARCHIVE_BYTES = 10e12
WEEK_HOURS = 7 * 24.0
_RAW_BYTES = 2
"""Of a sample in an uncompressed uint16 archive."""


def page(machine: Row, rows: list[Row], busy: float) -> str:
    """The whole page.

    Args:
        machine: what `speed.machine` found.
        rows: one per method, size, bands and device.
        busy: load before a run over which it is marked.
    """
    marked = any(row["load_before"] > busy for row in rows)
    lines = [
        "# Speed",
        "",
        f"{machine['name']}, {machine['cores']} cores, {machine['threads']} threads, torch {machine['torch']}. Made by "
        "`python benchmarks/speed.py`; whole processes, uint16, ratio 4, DEFLATE. Start: until the first tile is at "
        "work.",
    ]
    if machine.get("note"):
        lines += ["", machine["note"]]
    if marked:
        lines += [
            "",
            "**Times with \\* were taken while other programs had the machine: they are too long and must be measured "
            "again.** CPU time and memory are less affected.",
        ]
    lines += ["", *_table(rows, busy), "", *_laws(rows), "", *_floor(machine, rows), "", *_cost(machine, rows)]
    return "\n".join(lines) + "\n"


def _table(rows: list[Row], busy: float) -> list[str]:
    lines = [
        "| PAN | bands | method | s | Mpx/s | CPU s/Mpx | peak MB | start s | MB out | x plain | read/fuse/write |",
        "|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    plain = {(row["size"], row["bands"]): row["seconds"] for row in rows if row["method"] == "plain"}
    for row in sorted(rows, key=lambda r: (r["bands"], r["size"], r["method"] != "sharpen", r["method"], r["device"])):
        mpx = row["size"] ** 2 / 1e6
        name = row["method"] if row["device"] == "auto" or row["method"] != "sharpen" else f"sharpen, {row['device']}"
        star = "\\*" if row["load_before"] > busy else ""
        start = f"{row['start_seconds']:.1f}" if row["method"] == "sharpen" else ""
        copy = plain.get((row["size"], row["bands"]))
        times = "" if copy is None else f"{row['seconds'] / copy:.2f}"
        lines.append(
            f"| {row['size']} px | {row['bands']} | {name} | {row['seconds']:.1f}{star} | {_rate(row):.2f}{star} "
            f"| {row['cpu_seconds'] / mpx:.2f} | {row['peak_mb']} | {start} | {row['bytes_out'] / 2**20:.0f} "
            f"| {times} | {_stages(row)} |"
        )
    return lines


def _stages(row: Row) -> str:
    """Return the seconds that the threads of a run spent on each stage."""
    stages = row.get("stage_seconds", {})
    return " / ".join(f"{stages[name]:.1f}" for name in ("read", "fuse", "write") if name in stages)


def _laws(rows: list[Row]) -> list[str]:
    """Time per pixel and peak memory from the second smallest scene on, where starting up no longer counts."""
    lines = ["## Does it grow with the scene?", ""]
    for bands in sorted({row["bands"] for row in rows}):
        mine = sorted((r for r in rows if r["method"] == "sharpen" and r["bands"] == bands), key=lambda r: r["size"])
        mine = [row for row in mine if row["size"] >= 4096]
        if len(mine) < 2:
            continue
        small, large = mine[0], mine[-1]
        per_pixel = large["seconds"] / large["size"] ** 2 / (small["seconds"] / small["size"] ** 2)
        lines.append(
            f"- {bands} bands, {large['size']} px against {small['size']} px: "
            f"time per pixel {100 * (per_pixel - 1):+.1f} %, "
            f"peak memory {100 * (large['peak_mb'] / small['peak_mb'] - 1):+.1f} %."
        )
    return lines if len(lines) > 2 else [*lines, "Two sizes of 4096 px or more have to be measured for that."]


def _floor(machine: Row, rows: list[Row]) -> list[str]:
    lines = [
        "## Floor",
        "",
        f"A product in {machine['precision']} reaches {machine['flop_per_s'] / 1e9:.0f} GFLOP/s, a plain file "
        f"{machine['disk_bytes_per_s'] / 1e6:.0f} MB/s to the disk. No program with this network can be faster than "
        "the slower of the two; `sharpen` is compared with it.",
        "",
        "| bands | FLOP/px | s/Mpx by arithmetic | bytes/px | s/Mpx by disk | floor Mpx/s | sharpen Mpx/s |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in _largest(rows, "sharpen"):
        flop = machine["flop_per_pixel"][str(row["bands"])]
        bytes_per_pixel = (row["bytes_in"] + row["bytes_out"]) / row["size"] ** 2
        arithmetic, disk = 1e6 * flop / machine["flop_per_s"], 1e6 * bytes_per_pixel / machine["disk_bytes_per_s"]
        lines.append(
            f"| {row['bands']} | {flop:,} | {arithmetic:.2f} | {bytes_per_pixel:.1f} | {disk:.3f} "
            f"| {1 / max(arithmetic, disk):.2f} | {_rate(row):.2f} |"
        )
    return lines


def _cost(machine: Row, rows: list[Row]) -> list[str]:
    lines = [
        "## 10 TB of deliveries",
        "",
        "PAN and MS as uncompressed uint16, at the rate of the largest scene measured on each device. `plain` is what "
        "reading and writing alone cost on the same machine: a GPU in it cannot be faster than that unless more cores "
        "encode.",
        "",
        "| bands | work | Mpx/s | machine-hours | machines for a week | what binds |",
        "|---:|---|---:|---:|---:|---|",
    ]
    for method in ("sharpen", "plain"):
        for row in _largest(rows, method):
            pixels = ARCHIVE_BYTES / (_RAW_BYTES * (1 + row["bands"] / 16))
            hours = pixels / 1e6 / _rate(row) / 3600
            work = "plain read and write" if method == "plain" else f"sharpen, {row['device']}"
            lines.append(
                f"| {row['bands']} | {work} | {_rate(row):.2f} | {hours:,.0f} | {hours / WEEK_HOURS:.1f} "
                f"| {_binding(machine, row, rows)} |"
            )
    if not any(row["device"].startswith("cuda") for row in rows):
        lines += ["", "No GPU has been measured: `--device cuda` adds its rows."]
    return lines


def _binding(machine: Row, row: Row, rows: list[Row]) -> str:
    """The largest share of the time, of those that can be told apart."""
    seconds = row["seconds"]
    disk = (row["bytes_in"] + row["bytes_out"]) / machine["disk_bytes_per_s"] / seconds
    if row["method"] == "plain":
        return "disk" if disk > 0.5 else "compression"
    copies = [r for r in rows if r["method"] == "plain" and (r["size"], r["bands"]) == (row["size"], row["bands"])]
    copying = max((r["seconds"] for r in copies), default=0.0) / seconds
    what = "disk" if disk > 0.5 else "reading, compressing and writing" if copying > 0.5 else "arithmetic"
    return f"{what} (a plain copy takes {100 * copying:.0f} % of the time)" if copies else what


def _largest(rows: list[Row], method: str) -> list[Row]:
    """Of each number of bands and device, the row of the largest scene."""
    found: dict[tuple[int, str], Row] = {}
    for row in sorted((r for r in rows if r["method"] == method), key=lambda r: r["size"]):
        found[row["bands"], row["device"]] = row
    return [found[key] for key in sorted(found)]


def _rate(row: Row) -> float:
    return row["size"] ** 2 / 1e6 / row["seconds"]
