"""`crossdiff pretrain` and `crossdiff adapt`: the two stages of training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from crossdiff_cli.commands.failures import one_line_errors
from crossdiff_cli.options import verbosity_options


def _training_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """MANIFEST, `-o` and the budget: the same for both stages."""
    for option in reversed(
        (
            click.argument("manifest", type=click.Path(path_type=Path)),
            click.option(
                "-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="Result folder."
            ),
            click.option("--steps", type=click.IntRange(1), default=2000, help="Optimiser steps."),
            click.option("--patch", type=click.IntRange(32), default=96, help="Side of a window, a multiple of 8."),
            click.option("--batch", type=click.IntRange(1), default=4, help="Windows per scene and step."),
            click.option("--groups", type=click.IntRange(1), default=4, help="Scenes per step."),
            click.option("--rate", type=click.FloatRange(0, min_open=True), default=5e-4, help="Learning rate."),
            click.option("--seed", type=int, default=0, help="Seed of weights and draws."),
        )
    ):
        command = option(command)
    return command


@click.command(context_settings={"show_default": True})
@_training_options
@verbosity_options
def pretrain(manifest: Path, output: Path, **choices: Any) -> None:
    """Stage 1: train the encoders on the scenes of MANIFEST (split `train`), without labels.

    Writes OUTPUT/encoders.safetensors; goes on from OUTPUT/pretrain.checkpoint when there is one.
    """
    with one_line_errors():
        from crossdiff_cli.training.stages import Budget, run_pretrain

        path = run_pretrain(manifest, output, Budget(**choices))
    click.echo(path)


@click.command(context_settings={"show_default": True})
@_training_options
@click.option("--weights", type=click.Path(path_type=Path), help="Weights with the encoders; default the shipped ones.")
@verbosity_options
@click.option("--restart", is_flag=True, help="Begin with an untrained head instead of the one in the weights.")
def adapt(manifest: Path, output: Path, *, weights: Path | None, restart: bool, **choices: Any) -> None:
    """Stage 2: freeze the encoders and train the fusion head on the scenes of MANIFEST (split `train`).

    Writes OUTPUT/crossdiff.safetensors; goes on from OUTPUT/adapt.checkpoint when there is one.
    """
    with one_line_errors():
        from crossdiff_cli.training.stages import Budget, run_adapt

        path = run_adapt(manifest, output, weights, Budget(**choices), restart=restart)
    click.echo(path)
