"""`crossdiff pretrain` and `crossdiff adapt`: the two stages of training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from crossdiff_cli.commands.failures import one_line_errors
from crossdiff_cli.options import verbosity_options

_BUDGET = ("steps", "patch", "batch", "groups", "rate", "seed", "checkpoint_every")
_SOURCES = ("scenes", "strict", "reimage")


def _training_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """SCENES, `-o` and the budget: the same for both stages."""
    for option in reversed(
        (
            click.argument("scenes", nargs=-1, required=True),
            click.option(
                "-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="Result folder."
            ),
            click.option("--steps", type=click.IntRange(1), default=2000, help="Optimiser steps."),
            click.option("--patch", type=click.IntRange(32), default=96, help="Side of a window, a multiple of 8."),
            click.option("--batch", type=click.IntRange(1), default=4, help="Windows per scene and step."),
            click.option("--groups", type=click.IntRange(1), default=4, help="Scenes per step."),
            click.option("--rate", type=click.FloatRange(0, min_open=True), default=5e-4, help="Learning rate."),
            click.option("--seed", type=click.IntRange(0), default=0, help="Seed of weights and draws."),
            click.option("--checkpoint-every", type=click.IntRange(1), default=250, help="Steps between checkpoints."),
            click.option("--reimage", type=click.IntRange(0), default=0, metavar="N",
                         help="Also train on each scene sharpened and imaged again N times by made-up sensors."),
            click.option("--strict", is_flag=True, help="Fail on a scene that cannot be read, instead of a warning."),
        )
    ):  # fmt: skip
        command = option(command)
    return command


def _split(choices: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Take the budget's and the sources' options out of `choices`."""
    return {name: choices.pop(name) for name in _BUDGET}, {name: choices.pop(name) for name in _SOURCES}


@click.command(context_settings={"show_default": True})
@_training_options
@click.option(
    "--validate", "held_out", multiple=True, metavar="MANIFEST",
    help="Manifest whose split `validation` is held out; default those of SCENES.",
)  # fmt: skip
@click.option("--objective", type=click.Choice(["x0", "eps", "v"]), default="x0", help="What the networks predict.")
@click.option("--min-snr", type=click.FloatRange(0, min_open=True), help="Gamma of min-SNR weighting (x0).")
@click.option("--condition-dropout", type=click.FloatRange(0, 1), default=0.1, help="Samples without condition.")
@click.option("--prior-dropout", type=click.FloatRange(0, 1), default=0.1, help="Samples whose chain ends in noise.")
@click.option("--octave-down/--full-scale", default=True, help="P2M's target: original MS one ratio down, or MS_up.")
@click.option("--sample", "samples", type=click.IntRange(0), default=0, metavar="N",
              help="At the end draw MS from PAN and PAN from MS for N held-out scenes (samples.png).")  # fmt: skip
@click.option("--device", default="auto", metavar="auto|cpu|cuda[:N]", help="Where to train.")
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", help="Of the networks.")
@verbosity_options
def pretrain(output: Path, **choices: Any) -> None:
    """Stage 1: train the encoders on SCENES, without labels.

    SCENES are manifests (JSON, split `train`), folders of pairs whose names differ in one word (a_pan.tif, a_ms.tif),
    or PAN and MS files in turn. Writes OUTPUT/encoders.safetensors and a line for every checkpoint to
    OUTPUT/pretrain.jsonl; goes on from OUTPUT/pretrain.checkpoint when there is one. Several processes train together
    under `torchrun --nproc-per-node N -m crossdiff_cli pretrain ...`.
    """
    with one_line_errors():
        from crossdiff_cli.training.pretrain import Pretext
        from crossdiff_cli.training.stages import Budget, PretrainOptions, Sources, run_pretrain

        budget, sources = _split(choices)
        sources["held_out"] = choices.pop("held_out")
        run = {name: choices.pop(name) for name in ("device", "precision", "samples")}
        path = run_pretrain(
            Sources(**sources), output, PretrainOptions(Budget(**budget), Pretext(**choices), **run)
        )  # fmt: skip
    click.echo(path)


@click.command(context_settings={"show_default": True})
@_training_options
@click.option("--weights", type=click.Path(path_type=Path), help="Weights with the encoders; default the shipped ones.")
@verbosity_options
@click.option("--restart", is_flag=True, help="Begin with an untrained head instead of the one in the weights.")
def adapt(output: Path, *, weights: Path | None, restart: bool, **choices: Any) -> None:
    """Stage 2: freeze the encoders and train the fusion head on SCENES (as for `pretrain`).

    Writes OUTPUT/crossdiff.safetensors; goes on from OUTPUT/adapt.checkpoint when there is one.
    """
    with one_line_errors():
        from crossdiff_cli.training.stages import Budget, Sources, run_adapt

        budget, sources = _split(choices)
        path = run_adapt(Sources(**sources), output, weights, Budget(**budget), restart=restart)
    click.echo(path)
