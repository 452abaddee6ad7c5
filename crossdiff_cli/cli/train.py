"""`crossdiff pretrain` and `crossdiff adapt`: the two stages of training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from crossdiff_cli.cli.failures import one_line_errors
from crossdiff_cli.cli.types import INPUT, Loss, Names, Numbers, Pairs, Weights, complete_sensor, verbosity_options

_BUDGET = ("steps", "patch", "batch", "groups", "rate", "seed", "checkpoint_every")
_DEFINITION = ("wavelengths", "mtf", "pan_range", "pan_mtf")
_SOURCES = ("strict", "reimage")


def _training_options(steps: int, patch: int, rate: float, every: int) -> Callable[[Callable[..., Any]], Any]:
    """The budget and the sources, with the defaults of a stage."""
    options = (
        click.option("--steps", type=click.IntRange(1), default=steps, help="Optimiser steps."),
        click.option("--patch", type=click.IntRange(32), default=patch, help="Side of a window, a multiple of 8."),
        click.option("--batch", type=click.IntRange(1), default=4, help="Windows per scene and step."),
        click.option("--groups", type=click.IntRange(1), default=4, help="Scenes per step."),
        click.option("--rate", type=click.FloatRange(0, min_open=True), default=rate, help="Learning rate."),
        click.option("--seed", type=click.IntRange(0), default=0, help="Seed of weights and draws."),
        click.option("--checkpoint-every", type=click.IntRange(1), default=every, help="Steps between checkpoints."),
        click.option("--reimage", type=click.IntRange(0), default=0, metavar="N",
                     help="Train also on each scene sharpened by --weights and imaged again N times by other sensors."),
        click.option("--device", default="auto", metavar="auto|cpu|cuda[:N]", help="Where to train."),
        click.option("--strict", is_flag=True, help="Fail on a scene that cannot be read, instead of a warning."),
    )  # fmt: skip

    def add(command: Callable[..., Any]) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def _split(choices: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Take the budget's and the sources' options out of `choices`."""
    return {name: choices.pop(name) for name in _BUDGET}, {name: choices.pop(name) for name in _SOURCES}


@click.command(context_settings={"show_default": True})
@click.argument("scenes", nargs=-1, required=True, type=INPUT)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="Result folder.")
@_training_options(steps=2000, patch=96, rate=5e-4, every=250)
@click.option(
    "--validate", "held_out", multiple=True, metavar="MANIFEST",
    help="Manifest whose split `validation` is held out; default those of SCENES.",
)  # fmt: skip
@click.option("--objective", type=click.Choice(["x0", "eps"]), default="x0", help="What the networks predict.")
@click.option("--branch", type=click.Choice(["both", "p2m", "m2p"]), default="both", help="Which encoder learns.")
@click.option("--weights", type=Weights(), help="Weights to go on from; default untrained encoders.")
@click.option("--condition-dropout", type=click.FloatRange(0, 1), default=0.1, help="Samples without condition.")
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", help="Of the networks.")
@verbosity_options
def pretrain(scenes: tuple[str, ...], output: Path, **choices: Any) -> None:
    """Stage 1: train the encoders on SCENES, without labels.

    SCENES are manifests (JSON, split `train`), folders of deliveries or of pairs whose names differ in one word
    (a_pan.tif, a_ms.tif), or PAN and MS files in turn. Writes OUTPUT/encoders.safetensors and a line for every
    checkpoint to OUTPUT/pretrain.jsonl; goes on from OUTPUT/pretrain.checkpoint when there is one. Several processes
    train together under `torchrun --nproc-per-node N -m crossdiff_cli pretrain ...`.

    \b
    crossdiff pretrain scenes.json -o runs/mine --steps 2000 --reimage 1
    """
    with one_line_errors():
        from crossdiff_cli.training.pretrain import Pretext
        from crossdiff_cli.training.run_pretrain import PretrainOptions, run_pretrain
        from crossdiff_cli.training.setup import Budget, Sources

        budget, sources = _split(choices)
        sources |= {"scenes": scenes, "held_out": choices.pop("held_out")}
        run = {name: choices.pop(name) for name in ("device", "precision", "weights")}
        path = run_pretrain(
            Sources(**sources), output, PretrainOptions(Budget(**budget), Pretext(**choices), **run)
        )  # fmt: skip
    click.echo(path)


@click.command(context_settings={"show_default": True})
@click.argument("scenes", nargs=-1, type=INPUT)
@click.option(
    "--sensor",
    metavar="NAME",
    shell_complete=complete_sensor,
    help="Sensor of the scenes, or a TOML file that defines it; `sharpen --sensor NAME` then uses the head.",
)
@click.option("--bands", type=Names(), metavar="B,G,R,...", help="MS bands in file order, of a new sensor too.")
@click.option(
    "--wavelengths",
    type=Pairs("/"),
    metavar="480/60,...",
    help="Centre and width of each band in nm; default as usual for their names.",
)
@click.option("--mtf", type=Numbers(), metavar="0.3,...", help="MTF gain at Nyquist of each band, or one for all.")
@click.option("--pan-range", type=Pairs("-"), metavar="450-800", help="Edges of the PAN band in nm.")
@click.option("--pan-mtf", type=click.FloatRange(0, 1, min_open=True, max_open=True), help="MTF gain of the PAN.")
@click.option(
    "--loss",
    "losses",
    type=Loss(),
    multiple=True,
    metavar="TERM=WEIGHT",
    help="Weight of a loss term: spectral, structural, supervised (one ratio down) or qnr (the paper's).",
)
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False),
              help="Weight file to write; default the one that `sharpen --sensor NAME` looks for.")  # fmt: skip
@_training_options(steps=200, patch=96, rate=3e-4, every=25)
@click.option("--weights", type=Weights(), help="Weights with the encoders; default the shipped `open`.")
@click.option(
    "--features",
    type=click.Choice(["p2m", "both"]),
    help="Encoders whose features the head takes; default as in the weights.",
)
@click.option("--restart", is_flag=True, help="Begin with an untrained head instead of the one in the weights.")
@click.option(
    "--select/--no-select", default=True, help="Hold out a quarter of each scene and keep the best head on it."
)
@click.option("--force", is_flag=True, help="Overwrite a head that is better on the held-out windows.")
@verbosity_options
def adapt(scenes: tuple[str, ...], *, sensor: str | None, output: Path | None, **choices: Any) -> None:
    """Stage 2: freeze the encoders and fit the fusion head to SCENES (as for `pretrain`), without a reference.

    Without SCENES the pairs under the current folder are taken (a_pan.tif, a_ms.tif). A quarter of each scene is not
    trained on; the head with the highest HQNR there is kept, and its figures are printed beside those it began with.
    A sensor that `crossdiff sensors` does not list is defined by a TOML file or by --bands, and kept under its name.

    \b
    crossdiff adapt --sensor wv4
    crossdiff adapt --sensor mysat.toml scene_pan.tif scene_ms.tif
    crossdiff adapt --sensor mysat --bands B,G,R,NIR --wavelengths 480/60,550/70,660/60,830/120 scenes/
    """
    if sensor is None and output is None:
        raise click.UsageError("name the sensor with --sensor, or a weight file with -o")
    with one_line_errors():
        from crossdiff_cli.sensors.definitions import file_key
        from crossdiff_cli.system.weight_files import adapted_head_path
        from crossdiff_cli.training.adapt import LossWeights
        from crossdiff_cli.training.run_adapt import AdaptOptions, run_adapt
        from crossdiff_cli.training.selection import gain
        from crossdiff_cli.training.setup import Budget, Sources

        bands = choices.pop("bands")
        told = {name: choices.pop(name) for name in _DEFINITION}
        sensor = _defined(sensor, bands, told, replace=choices["force"])
        budget, sources = _split(choices)
        sources |= {"scenes": scenes or (".",), "sensor": sensor, "bands": bands}
        target = output or adapted_head_path(file_key(str(sensor)))
        losses = LossWeights(**dict(choices.pop("losses")))
        result = run_adapt(Sources(**sources), target, AdaptOptions(Budget(**budget), losses=losses, **choices))
    click.echo(f"fitted to {', '.join(result.scenes)}", err=True)
    if result.before is not None and result.after is not None:
        click.echo(gain(result.before, result.after, result.windows), err=True)
    click.echo(result.output)


def _defined(sensor: str | None, bands: tuple[str, ...] | None, told: dict[str, Any], *, replace: bool) -> str | None:
    """Keep the definition of a sensor, if one is given, and return the name by which it is found."""
    from crossdiff_cli.sensors.definitions import define, keep, named_sensor
    from crossdiff_cli.sensors.table import in_table

    extra = [f"--{name.replace('_', '-')}" for name, value in told.items() if value is not None]
    if sensor is not None and sensor.lower().endswith(".toml"):
        definition = named_sensor(sensor)
    elif sensor is not None and bands and not in_table(sensor):
        if len(pan := told["pan_range"] or ((450.0, 800.0),)) != 1:
            raise click.UsageError("--pan-range takes one range, like 450-800")
        gain = {} if told["pan_mtf"] is None else {"pan_gain": told["pan_mtf"]}
        definition = define(sensor, bands, told["wavelengths"] or (), told["mtf"] or (), pan[0], **gain)
        extra = []
    elif extra:
        raise click.UsageError(
            f"{extra[0]} defines a new sensor: give a name that `crossdiff sensors` does not list with --sensor, and "
            "its bands with --bands"
        )
    else:
        return sensor
    if extra:
        raise click.UsageError(f"{sensor} defines the sensor: leave {extra[0]} out, or edit the file")
    keep(definition, replace=replace)
    return definition.key
