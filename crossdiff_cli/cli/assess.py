"""`crossdiff assess` and `crossdiff degrade`: know how good a result is, and make pairs whose true result is known."""

import json
from pathlib import Path

import click

from crossdiff_cli.cli.failures import one_line_errors
from crossdiff_cli.cli.options import files, mtf_options, need_ms, pair_options, wald_options
from crossdiff_cli.cli.types import INPUT, OnOff, verbosity_options
from crossdiff_cli.options import DegradeOptions, EstimateOptions, PairOptions


@click.command()
@click.argument("fused", type=INPUT)
@click.option("--pan", required=True, type=INPUT, help="The PAN that FUSED was sharpened with.")
@click.option(
    "--ms", required=True, multiple=True, type=INPUT, help="The MS that it was made from; repeat for one file per band."
)
@click.option("--reference", type=INPUT, help="The true result, where it is known (see `crossdiff degrade`).")
@pair_options
@click.option(
    "--align",
    type=OnOff(),
    default="off",
    show_default=True,
    help="Judge at the estimated place of the MS; off: at that of its georeference.",
)
@mtf_options
@click.option("--html", type=click.Path(path_type=Path), help="Write a page with pictures, maps and baselines.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line.")
@verbosity_options
def assess(
    fused: str,
    pan: str,
    ms: tuple[str, ...],
    reference: str | None,
    html: Path | None,
    *,
    pair: PairOptions,
    align: bool,
    estimate: EstimateOptions,
    as_json: bool,
) -> None:
    """Score FUSED against the PAN and MS it was made from, and against a reference if there is one.

    docs/quality.md says how to read the figures.

    \b
    crossdiff assess sharp.tif --pan pan.tif --ms ms.tif --html sharp.html
    """
    with one_line_errors():
        from crossdiff_cli.io.target import check_target
        from crossdiff_cli.quality.files import JudgedFiles
        from crossdiff_cli.report.page import KINDS

        if html is not None:
            check_target(html, overwrite=True, kinds=KINDS)
        with JudgedFiles(fused, pan, ms, reference, pair, align=align, mtf=estimate.mtf) as files:
            report = files.report()
            if html is not None:
                from crossdiff_cli.report.page import write_page

                write_page(html, files, report)
            names = [band.name for band in files.pair.bands]
            sensor, trained_on, found = files.pair.sensor.key, files.trained_on, files.estimates
    figures = report.as_dict()
    if as_json:
        per_band = figures.pop("bands")
        click.echo(
            json.dumps(
                {
                    "output": fused,
                    "sensor": sensor,
                    "bands": names,
                    **figures,
                    "per_band": per_band,
                    "trained_on": trained_on,
                    "nyquist_gains": [round(gain, 3) for gain in found.nyquist_gains] if found else None,
                    "mtf_source": found.mtf_sources if found else None,
                }
            )
        )
    else:
        click.echo(report)
        click.echo(f"{'bands':<14} {','.join(names)} of {sensor}")
        if found:
            click.echo(found.describe_mtf())
        if trained_on:
            click.echo(f"the network was trained on close relatives of {', '.join(trained_on)}")


@click.command()
@files
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder for the three files of the pair."
)
@pair_options
@wald_options
@click.option("--overwrite", is_flag=True, help="Replace the files of an earlier run.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line.")
@verbosity_options
def degrade(
    pan: str,
    ms: tuple[str, ...],
    output: Path,
    *,
    pair: PairOptions,
    estimate: EstimateOptions,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Make the Wald pair: PAN and MS one ratio down by their MTFs, and the MS as the reference.

    Writes pan.tif, ms.tif and reference.tif into the folder OUTPUT.

    \b
    crossdiff degrade pan.tif ms.tif -o wald
    crossdiff sharpen wald/pan.tif wald/ms.tif -o wald/sharp.tif
    crossdiff assess wald/sharp.tif --pan wald/pan.tif --ms wald/ms.tif --reference wald/reference.tif
    """
    need_ms(pan, ms)
    with one_line_errors():
        from crossdiff_cli.tasks.degrade import degrade as run

        options = DegradeOptions(pair, estimate, overwrite)
        result = run(pan, ms, output, options)
    if as_json:
        click.echo(json.dumps(result.as_dict()))
    else:
        for path in (result.pan, result.ms, result.reference):
            click.echo(path)
