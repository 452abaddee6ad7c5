"""Compare methods over the scenes of a manifest, at full and at reduced resolution and as nature is: Markdown, JSON.

    python benchmarks/quality.py index.json -o out -m baselines -m external -m crossdiff=weights.safetensors

At reduced resolution a scene's own reference counts where it is as sharp as its PAN; else PAN and MS go one ratio down
by the MTFs of the table and the MS is the reference. `natural` is the same with the MTFs that the scene itself shows
and with white noise as found in its PAN and MS, both unknown to the methods. Every method gets the same georeferenced
GeoTIFFs and writes the data type of the MS. Rows of an earlier run are reused with `--add previous.json`.
"""

import argparse
import json
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import rasterio
from quality_methods import Case, Method, MethodError, parse_methods, write
from quality_table import REGISTERED, TRUTH, Row, markdown, summary

from crossdiff_cli.errors import CrossDiffError
from crossdiff_cli.estimate.survey import survey
from crossdiff_cli.geometry.window import Window
from crossdiff_cli.imaging.quantise import array_to_dtype
from crossdiff_cli.io.open_pair import open_pair
from crossdiff_cli.io.raster import Raster
from crossdiff_cli.model.device import tune_allocator
from crossdiff_cli.options import DegradeOptions, EstimateOptions, Mtf, PairOptions, PanMtf
from crossdiff_cli.quality.files import JudgedFiles
from crossdiff_cli.tasks.degrade import degrade
from crossdiff_cli.training.manifest import Entry, read_manifest
from crossdiff_cli.training.training_scene import load_scene

UNSEEN = {"TIR", "TIR1", "TIR2", "CIRRUS"}
"""Bands that show no ground detail of the kind that PAN has; no method gets them."""
NOWHERE = rasterio.Affine(1, 0, 500000, 0, -1, 5000000)
NOWHERE_CRS = rasterio.crs.CRS.from_epsg(32633)
"""Where a scene without georeference is put, since some tools need one."""


def cases(entry: Entry, folder: Path) -> list[Case]:
    """Write the pair of an entry at both scales."""
    folder.mkdir(parents=True, exist_ok=True)
    full = _full(entry, folder)
    natural = _natural(full, folder)
    if entry.reference is not None and load_scene(entry).reference is not None:
        return [full, replace(full, scale="reduced", reference=_reference(entry, full, folder)), natural]
    return [full, _wald(full, "reduced", folder, "table"), natural]


def _wald(full: Case, scale: str, folder: Path, mtf: Mtf) -> Case:
    of_pan: PanMtf = "table" if mtf == "table" else "auto"
    options = DegradeOptions(full.options, EstimateOptions(mtf=mtf, pan_mtf=of_pan), overwrite=True)
    made = degrade(full.pan, [full.ms], folder / scale, options)
    return replace(full, scale=scale, pan=made.pan, ms=made.ms, reference=made.reference)


def _natural(full: Case, folder: Path) -> Case:
    """A Wald pair by the MTFs that the scene shows, with noise as found in its PAN and MS."""
    with open_pair(full.pan, [full.ms], full.options) as pair:
        found = survey(pair.sample_windows(), pair.grid, pair.bands)
    case = _wald(full, "natural", folder, tuple(min(max(gain, 0.1), 0.6) for gain in found.nyquist_gains))
    random = np.random.default_rng(0)
    for path, levels in ((case.pan, [found.pan_noise_dn]), (case.ms, found.ms_noise_dn)):
        with rasterio.open(path, "r+") as file:
            data, mask = file.read().astype("float32"), file.dataset_mask() > 0
            data += random.normal(size=data.shape) * np.array(levels)[:, None, None] * mask
            file.write(array_to_dtype(data, mask, file.dtypes[0], file.nodata))
    return case


def parser_of(documentation: str | None) -> argparse.ArgumentParser:
    """A parser of what every script is told that runs methods on the validation scenes."""
    parser = argparse.ArgumentParser(description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path, help="JSON list of scenes, as for `crossdiff adapt`")
    parser.add_argument("-m", "--method", action="append", default=[], help="baselines, external, or NAME=PATH")
    parser.add_argument("--aside", default="", help="scenes to leave out of the means, comma-separated")
    return parser


def validation_cases(manifest: Path, aside: str) -> Iterator[tuple[list[Case], Path]]:
    """The cases of each validation scene but those `aside`, comma-separated, in a folder that lasts until the next."""
    for entry in read_manifest(manifest, "validation"):
        if entry.name not in aside.split(","):
            with tempfile.TemporaryDirectory() as folder:
                yield cases(entry, Path(folder)), Path(folder)


def _kept(entry: Entry) -> list[int]:
    return [i for i, name in enumerate(entry.bands or ()) if name.upper() not in UNSEEN]


def _full(entry: Entry, folder: Path) -> Case:
    kept = _kept(entry)
    names = None if entry.bands is None else tuple(entry.bands[i] for i in kept)
    bidx = None if entry.bands is None else tuple(i + 1 for i in kept)
    assert entry.pan is not None
    with open_pair(entry.pan, [entry.ms], PairOptions(sensor=entry.sensor or "auto", bands=names, bidx=bidx)) as pair:
        transform = pair.pan.transform if pair.pan.georeferenced else NOWHERE
        (row, col), (rows, cols) = pair.grid.offset, pair.grid.ratio
        coarse = transform @ rasterio.Affine.translation(col, row) @ rasterio.Affine.scale(cols, rows)
        nodata = pair.nodata if pair.nodata is not None and not np.isnan(pair.nodata) else None
        paths = folder / "pan.tif", folder / "ms.tif"
        for path, raster, where in ((paths[0], pair.pan, transform), (paths[1], pair.ms[0], coarse)):
            data, mask = raster.read(Window(0, 0, *raster.shape))
            value = nodata if not mask.all() else None
            write(path, array_to_dtype(data, mask, raster.dtype, value), where, pair.crs or NOWHERE_CRS, value)
        bands = tuple(band.name for band in pair.bands)
        return Case(entry.name, pair.sensor.key, bands, "full", str(paths[0]), str(paths[1]), None)


def _reference(entry: Entry, full: Case, folder: Path) -> str:
    assert entry.reference is not None
    with Raster(entry.reference, [i + 1 for i in _kept(entry)] or None) as raster, rasterio.open(full.pan) as pan:
        data, mask = raster.read(Window(0, 0, *raster.shape))
        path = folder / "reference.tif"
        write(path, array_to_dtype(data, mask, raster.dtype, None), pan.transform, pan.crs, None)
    return str(path)


def evaluate(case: Case, name: str, method: Method, results: Path) -> Row:
    """Run a method on a case, keep its result, score it."""
    row: Row = {"scene": case.scene, "sensor": case.sensor, "scale": case.scale, "method": name}
    out = results / f"{case.scene}.{case.scale}.{name.replace('/', '_')}.tif"
    started = time.monotonic()
    try:
        method(case, out)
        seconds = round(time.monotonic() - started, 3)
        with JudgedFiles(str(out), case.pan, [case.ms], case.reference, case.options) as files:
            row |= {"seconds": seconds, **files.report().as_dict()}
        if case.scale == "full":
            with JudgedFiles(str(out), case.pan, [case.ms], None, case.options, align=True) as files:
                registered = files.report().as_dict()
            row |= {f"registered_{key}": registered[key] for key in REGISTERED}
        return row
    except (MethodError, CrossDiffError) as error:
        return {**row, "error": str(error)}


def run(
    entries: Sequence[Entry], methods: dict[str, Method], folder: Path, previous: Sequence[Row]
) -> tuple[list[Row], list[Case]]:
    """Every method on every case, scene by scene; rows of `previous` stand for methods that are not run again."""
    rows = [row for row in previous if row["method"] not in methods]
    results = folder / "results"
    results.mkdir(parents=True, exist_ok=True)
    every = []
    for entry in entries:
        for case in cases(entry, folder / "cases" / entry.name):
            every.append(case)
            for name, method in methods.items():
                if name == TRUTH and case.reference is None:
                    continue
                row = evaluate(case, name, method, results)
                rows.append(row)
                shown = row.get("error") or f"HQNR {row.get('hqnr', 0):.4f}  ERGAS {row.get('ergas', 0):.3f}"
                print(f"{case.scene:<32} {case.scale:<8} {name:<16} {shown}", file=sys.stderr, flush=True)
    return rows, every


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for quality.md, .json and .png")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--scenes", help="comma-separated names; default all of the split")
    parser.add_argument("--add", type=Path, action="append", default=[], help="quality.json of an earlier run")
    parser.add_argument("--keep", type=Path, help="folder that keeps the cases and the results")
    parser.add_argument("--title", default="Quality")
    parser.add_argument("--no-sheet", action="store_true", help="no picture sheet (it needs matplotlib)")
    options = parser.parse_args(arguments)
    logging.disable(logging.WARNING)
    tune_allocator()
    entries = read_manifest(options.manifest, options.split)
    if options.scenes:
        wanted = options.scenes.split(",")
        entries = [entry for entry in entries if entry.name in wanted]
    methods, missing = parse_methods(options.method)
    for line in missing:
        print(line, file=sys.stderr)
    previous = [row for path in options.add for row in json.loads(path.read_text())["rows"]]
    folder = options.keep or Path(tempfile.mkdtemp(prefix="quality-"))
    options.output.mkdir(parents=True, exist_ok=True)
    try:
        rows, every = run(entries, methods, folder, previous)
        aside = [name for name in options.aside.split(",") if name]
        remarks = [f"{len({row['scene'] for row in rows})} scenes, split `{options.split}`.", *missing]
        if any(row["method"] == TRUTH for row in rows):
            remarks.append(
                "`truth` is the reference itself: a D_ρ below its own is PAN detail that the bands do not have."
            )
        (options.output / "quality.md").write_text(markdown(rows, options.title, remarks, aside), encoding="utf-8")
        record = {"rows": rows, "summary": summary(rows, aside)}
        (options.output / "quality.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
        if not options.no_sheet:
            from quality_sheet import sheet

            ours = [text.partition("=")[0] for text in options.method if "=" in text]
            sheet(every, rows, ours, folder / "results", options.output / "quality.png")
    finally:
        if options.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(options.output / "quality.md")


if __name__ == "__main__":
    main()
