"""`crossdiff pretrain` and `crossdiff adapt`: the two stages of training."""

from dataclasses import fields, replace
from pathlib import Path
from typing import get_args

import click

from crossdiff_cli.cli.failures import one_line_errors
from crossdiff_cli.cli.options import Decorator, option_group, setting
from crossdiff_cli.cli.types import INPUT, Loss, Names, Numbers, Pairs, Weights, complete_sensor, verbosity_options
from crossdiff_cli.options import (
    AdaptOptions,
    AdaptTrainingOptions,
    Branch,
    DefinitionOptions,
    LossWeights,
    PredictionType,
    PretrainOptions,
    SceneSources,
    TrainingOptions,
)

_DEVICE = {"metavar": "auto|cpu|cuda[:N]", "help": "Where to train."}
_SOURCES = (
    setting(SceneSources, "resimulate", "--resimulate", type=click.IntRange(0), metavar="N",
            help="Train also on each scene sharpened by --weights and resimulated through N other sensors."),
    setting(SceneSources, "strict", "--strict", is_flag=True,
            help="Fail on a scene that cannot be read, instead of a warning."),
)  # fmt: skip


def _budget(cls: type[TrainingOptions]) -> tuple[tuple[type[TrainingOptions], str, Decorator], ...]:
    """The settings of a budget, with the defaults of its class."""
    return (
        setting(cls, "steps", "--steps", type=click.IntRange(1), help="Optimiser steps."),
        setting(cls, "patch", "--patch", type=click.IntRange(32), help="Side of a window, a multiple of 8."),
        setting(cls, "batch", "--batch", type=click.IntRange(1), help="Windows per scene and step."),
        setting(cls, "groups", "--groups", type=click.IntRange(1), help="Scenes per step."),
        setting(cls, "rate", "--rate", type=click.FloatRange(0, min_open=True), help="Learning rate."),
        setting(cls, "seed", "--seed", type=click.IntRange(0), help="Seed of the weights and of the random draws."),
        setting(cls, "checkpoint_every", "--checkpoint-every", type=click.IntRange(1),
                help="Steps between checkpoints."),
    )  # fmt: skip


@click.command(context_settings={"show_default": True})
@click.argument("scenes", nargs=-1, required=True, type=INPUT)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="Result folder.")
@option_group("budget", *_budget(TrainingOptions))
@option_group(
    "sources",
    *_SOURCES,
    setting(
        SceneSources,
        "held_out",
        "--validate",
        multiple=True,
        metavar="MANIFEST",
        help="Manifest whose split `validation` is held out; default those of SCENES.",
    ),
)
@option_group(
    "options",
    setting(
        PretrainOptions,
        "prediction_type",
        "--prediction-type",
        type=click.Choice(get_args(PredictionType)),
        help="What the networks predict.",
    ),
    setting(
        PretrainOptions, "branch", "--branch", type=click.Choice(get_args(Branch)), help="Which encoder is trained."
    ),
    setting(
        PretrainOptions,
        "weights",
        "--weights",
        type=Weights(),
        help="Weights to start from; default untrained encoders.",
    ),
    setting(
        PretrainOptions,
        "condition_dropout",
        "--condition-dropout",
        type=click.FloatRange(0, 1),
        help="Share of samples without condition.",
    ),
    setting(PretrainOptions, "device", "--device", **_DEVICE),
    setting(
        PretrainOptions,
        "precision",
        "--precision",
        type=click.Choice(["auto", "fp32", "bf16"]),
        help="Arithmetic of the networks.",
    ),
)
@verbosity_options
def pretrain(
    scenes: tuple[str, ...], output: Path, *, budget: TrainingOptions, sources: SceneSources, options: PretrainOptions
) -> None:
    """Stage 1: train the encoders on SCENES, without labels.

    SCENES are manifests (JSON, split `train`), folders of deliveries or of pairs whose names differ in one word
    (a_pan.tif, a_ms.tif), or PAN and MS files in turn. Writes OUTPUT/encoders.safetensors and a line for every
    checkpoint to OUTPUT/pretrain.jsonl; resumes from OUTPUT/pretrain.checkpoint if it exists. Several processes
    train together under `torchrun --nproc-per-node N -m crossdiff_cli pretrain ...`.

    \b
    crossdiff pretrain scenes.json -o runs/mine --steps 2000 --resimulate 1
    """
    with one_line_errors():
        from crossdiff_cli.training.run_pretrain import run_pretrain

        path = run_pretrain(replace(sources, scenes=scenes), output, replace(options, budget=budget))
    click.echo(path)


@click.command(context_settings={"show_default": True})
@click.argument("scenes", nargs=-1, type=INPUT)
@option_group(
    "sources",
    setting(
        SceneSources,
        "sensor",
        "--sensor",
        metavar="NAME",
        shell_complete=complete_sensor,
        help="Sensor of the scenes, or a TOML file that defines it; `sharpen --sensor NAME` then uses the head.",
    ),
    setting(
        SceneSources,
        "bands",
        "--bands",
        type=Names(),
        metavar="B,G,R,...",
        help="MS bands in file order, of a new sensor too.",
    ),
    *_SOURCES,
)
@option_group(
    "definition",
    setting(
        DefinitionOptions,
        "wavelengths",
        "--wavelengths",
        type=Pairs("/"),
        metavar="480/60,...",
        help="Centre and width of each band in nm; default as usual for their names.",
    ),
    setting(
        DefinitionOptions,
        "mtf",
        "--mtf",
        type=Numbers(),
        metavar="0.3,...",
        help="MTF gain at Nyquist of each band, or one for all.",
    ),
    setting(
        DefinitionOptions,
        "pan_range",
        "--pan-range",
        type=Pairs("-"),
        metavar="450-800",
        help="Edges of the PAN band in nm.",
    ),
    setting(
        DefinitionOptions,
        "pan_mtf",
        "--pan-mtf",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        help="MTF gain of the PAN.",
    ),
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Weight file to write; default the one that `sharpen --sensor NAME` looks for.",
)
@option_group("budget", *_budget(AdaptTrainingOptions))
@option_group(
    "options",
    setting(
        AdaptOptions,
        "losses",
        "--loss",
        type=Loss(),
        multiple=True,
        metavar="TERM=WEIGHT",
        callback=lambda _ctx, _param, value: LossWeights(**dict(value or ())),
        help="Weight of a loss term: spectral, structural, supervised (one ratio down) or qnr (the paper's).",
    ),
    setting(
        AdaptOptions,
        "weights",
        "--weights",
        type=Weights(),
        help="Weights with the encoders; default the shipped `all`.",
    ),
    setting(
        AdaptOptions,
        "features",
        "--features",
        type=click.Choice(["p2m", "both"]),
        help="Encoders whose features the head takes; default as in the weights.",
    ),
    setting(
        AdaptOptions,
        "stage",
        "--stage/--no-stage",
        help="Add a network for the bands of this sensor to the head, where all scenes are of one sensor.",
    ),
    setting(
        AdaptOptions,
        "restart",
        "--restart",
        is_flag=True,
        help="Start from an untrained head instead of the one in the weights.",
    ),
    setting(
        AdaptOptions,
        "select",
        "--select/--no-select",
        help="Hold out a quarter of each scene and keep the best head on it.",
    ),
    setting(
        AdaptOptions, "force", "--force", is_flag=True, help="Overwrite a head that is better on the held-out windows."
    ),
    setting(AdaptOptions, "device", "--device", **_DEVICE),
)
@verbosity_options
def adapt(
    scenes: tuple[str, ...],
    *,
    output: Path | None,
    sources: SceneSources,
    definition: DefinitionOptions,
    budget: TrainingOptions,
    options: AdaptOptions,
) -> None:
    """Stage 2: freeze the encoders and fit the fusion head to SCENES (as for `pretrain`), without a reference.

    Without SCENES the pairs under the current folder are taken (a_pan.tif, a_ms.tif). A quarter of each scene is held
    out of the training; the best head on that part is kept, and its figures are printed beside those of the
    initial head. A sensor that `crossdiff sensors` does not list is defined by a TOML file or by --bands, and kept
    under its name.

    \b
    crossdiff adapt --sensor wv4
    crossdiff adapt --sensor mysat.toml scene_pan.tif scene_ms.tif
    crossdiff adapt --sensor mysat --bands B,G,R,NIR --wavelengths 480/60,550/70,660/60,830/120 scenes/
    """
    if sources.sensor is None and output is None:
        raise click.UsageError("name the sensor with --sensor, or a weight file with -o")
    with one_line_errors():
        from crossdiff_cli.sensors.definitions import file_key
        from crossdiff_cli.system.weight_files import adapted_head_path
        from crossdiff_cli.training.run_adapt import run_adapt
        from crossdiff_cli.training.selection import gain

        sensor = _defined(sources.sensor, sources.bands, definition, replace=options.force)
        target = output or adapted_head_path(file_key(str(sensor)))
        sources = replace(sources, scenes=scenes or (".",), sensor=sensor)
        result = run_adapt(sources, target, replace(options, budget=budget))
    click.echo(f"fitted to {', '.join(result.scenes)}", err=True)
    if result.before is not None and result.after is not None:
        click.echo(gain(result.before, result.after, result.windows), err=True)
    click.echo(result.output)


def _defined(
    sensor: str | None, bands: tuple[str, ...] | None, told: DefinitionOptions, *, replace: bool
) -> str | None:
    """Keep the definition of a sensor, if one is given, and return the name by which it is found."""
    from crossdiff_cli.sensors.definitions import define, keep, named_sensor
    from crossdiff_cli.sensors.table import in_table

    given = [field.name for field in fields(told) if getattr(told, field.name) is not None]
    extra = [f"--{name.replace('_', '-')}" for name in given]
    if sensor is not None and sensor.lower().endswith(".toml"):
        definition = named_sensor(sensor)
    elif sensor is not None and bands and not in_table(sensor):
        if len(pan := told.pan_range or ((450.0, 800.0),)) != 1:
            raise click.UsageError("--pan-range takes one range, like 450-800")
        gain = {} if told.pan_mtf is None else {"pan_gain": told.pan_mtf}
        definition = define(sensor, bands, told.wavelengths or (), told.mtf or (), pan[0], **gain)
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
