"""What `crossdiff adapt` gains on data it has not seen: fitted to one half of a scene, or to other scenes of a sensor.

    python benchmarks/adapting.py index.json -o out --half pairmax_W4_Mexi_Nat \
        --fit quickbird_dgif2,quickbird_abfnet_rr_train=quickbird_abfnet_full0 --sensor-file quickbird_abfnet_full0

`--half SCENE` fits the head to the left half of a validation scene, without its reference, and judges the right half.
`--fit TRAIN,TRAIN=VALIDATION` fits it to training scenes. `--sensor-file SCENE` is `--half` with a simulated sensor: a
TOML file that gives the bands of the scene moved by some nanometres and the usual MTF.
"""

import argparse
import json
import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import rasterio
from quality import cases
from quality_methods import Case, write

from crossdiff_cli.io.open_pair import open_pair
from crossdiff_cli.model.device import tune_allocator
from crossdiff_cli.options import (
    AdaptOptions,
    DegradeOptions,
    EstimateOptions,
    NetworkOptions,
    OutputOptions,
    SceneSources,
    SharpenOptions,
    TrainingOptions,
)
from crossdiff_cli.quality.files import JudgedFiles
from crossdiff_cli.sensors.definitions import define
from crossdiff_cli.tasks.degrade import degrade
from crossdiff_cli.tasks.sharpen import sharpen
from crossdiff_cli.training.manifest import Entry, read_manifest
from crossdiff_cli.training.run_adapt import run_adapt

FIGURES = ("hqnr", "d_rho", "r_ergas", "ergas", "sam", "q2n")
_MOVED_NM = 15.0
Row = dict[str, Any]


def half(case: Case, folder: Path, *, right: bool) -> Case:
    """The left or the right half of a pair on disk, cut between whole MS pixels."""
    folder.mkdir(parents=True)
    with rasterio.open(case.pan) as pan, rasterio.open(case.ms) as ms:
        ratio = round(ms.transform.a / pan.transform.a)
        middle = ms.width // 2
        paths = []
        for file, scale, name in ((pan, ratio, "pan.tif"), (ms, 1, "ms.tif")):
            start, stop = (middle * scale, file.width) if right else (0, middle * scale)
            window = rasterio.windows.Window(start, 0, stop - start, file.height)
            paths.append(folder / name)
            write(paths[-1], file.read(window=window), file.window_transform(window), file.crs, file.nodata)
    return replace(case, pan=str(paths[0]), ms=str(paths[1]), reference=None)


def wald(case: Case, folder: Path) -> Case:
    """The same one ratio down."""
    options = DegradeOptions(pair=case.options, estimate=EstimateOptions(mtf="table"), overwrite=True)
    made = degrade(case.pan, [case.ms], folder / "reduced", options)
    return replace(case, scale="reduced", pan=made.pan, ms=made.ms, reference=made.reference)


def judge(case: Case, weights: Path | None, out: Path) -> Row:
    """Sharpen and score a case, at full resolution where the MS really lies."""
    options = SharpenOptions(
        pair=case.options,
        network=NetworkOptions(weights=weights),
        output=OutputOptions(extent="pan", overwrite=True),
    )
    sharpen(case.pan, [case.ms], out, options)
    align = case.reference is None
    with JudgedFiles(str(out), case.pan, [case.ms], case.reference, case.options, align=align) as files:
        return files.report().as_dict()


def trial(name: str, train: Sequence[Case], judged: Sequence[Case], steps: int, folder: Path) -> list[Row]:
    """Fit, then judge the head before and after."""
    started = time.monotonic()
    first = train[0].options
    sources = SceneSources(tuple(f for c in train for f in (c.pan, c.ms)), sensor=first.sensor, bands=first.bands)
    found = run_adapt(sources, folder / f"{name}.safetensors", AdaptOptions(TrainingOptions(steps, rate=3e-4,
                      checkpoint_every=25)))  # fmt: skip
    seconds = round(time.monotonic() - started, 1)
    rows = []
    for case in judged:
        before, after = (judge(case, weights, folder / "out.tif") for weights in (None, found.output))
        kept = FIGURES[:3] if case.scale == "full" else FIGURES[3:]
        rows.append({"trial": name, "scene": case.scene, "scale": case.scale, "seconds": seconds,
                     "before": {k: before[k] for k in kept}, "after": {k: after[k] for k in kept}})  # fmt: skip
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def made_up(case: Case, folder: Path) -> str:
    """A TOML file of a sensor that is in no table, close to that of the case."""
    with open_pair(case.pan, [case.ms], case.options) as pair:
        bands, pan = pair.bands, pair.sensor.pan_nm
    sensor = define("simulated", [b.name for b in bands], [(b.center_nm + _MOVED_NM, b.width_nm) for b in bands],
                    pan_nm=pan)  # fmt: skip
    path = folder / "simulated.toml"
    rows = [f'[[bands]]\nname = "{b.name}"\ncenter_nm = {b.center_nm}\nwidth_nm = {b.width_nm}' for b in sensor.bands]
    path.write_text("\n".join([f"pan_nm = [{pan[0]}, {pan[1]}]", *rows]) + "\n", encoding="utf-8")
    return str(path)


def table(rows: Sequence[Row]) -> str:
    """Markdown: a row per trial, scene and scale, every figure before and after."""
    lines = ["| trial | judged on | scale | seconds | before → after |", "|---|---|---|---:|---|"]
    for row in rows:
        figures = ", ".join(f"{key} {row['before'][key]:.4f} → {row['after'][key]:.4f}" for key in row["before"])
        lines.append(f"| {row['trial']} | {row['scene']} | {row['scale']} | {row['seconds']:.0f} | {figures} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--half", action="append", default=[])
    parser.add_argument("--fit", action="append", default=[])
    parser.add_argument("--sensor-file", action="append", default=[])
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    tune_allocator()
    entries = {e.name: e for split in ("train", "validation") for e in read_manifest(options.manifest, split)}
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="adapting-") as scratch:
        folder = Path(scratch)

        def prepared(entry: Entry) -> list[Case]:
            return cases(entry, folder / entry.name)

        for made, name in [(False, n) for n in options.half] + [(True, n) for n in options.sensor_file]:
            whole, kind = prepared(entries[name])[0], "simulated sensor" if made else "half"
            whole = replace(whole, sensor=made_up(whole, folder)) if made else whole
            left = half(whole, folder / f"{name}-{kind}-left", right=False)
            right = half(whole, folder / f"{name}-{kind}-right", right=True)
            rows += trial(
                f"{name}, {kind}", [left], [right, wald(right, Path(right.pan).parent)], options.steps, folder
            )
        for text in options.fit:
            names, _, target = text.partition("=")
            train = [prepared(replace(entries[n], reference=None))[0] for n in names.split(",")]
            rows += trial(names.replace(",", ", "), train, prepared(entries[target]), options.steps, folder)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "adapting.json").write_text(json.dumps({"rows": rows}, indent=1), encoding="utf-8")
    (options.output / "adapting.md").write_text(table(rows), encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
