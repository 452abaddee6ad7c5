"""Interpolate a fitted fusion head with the head it started from, as was done for the shipped weights (WiSE-FT).

Usage: python benchmarks/interpolate_heads.py START FITTED FACTOR OUTPUT [--restart SEED]
"""

from pathlib import Path

import click
import torch

from crossdiff_cli.model.weights import load, save


@click.command()
@click.argument("start", type=click.Path(path_type=Path, exists=True))
@click.argument("fitted", type=click.Path(path_type=Path, exists=True))
@click.argument("factor", type=click.FloatRange(0, 1))
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--restart", type=int, help="Seed of `adapt --restart`, when the fit began with an untrained head.")
def main(start: Path, fitted: Path, factor: float, output: Path, restart: int | None) -> None:
    """Write FACTOR x the head of FITTED + (1 - FACTOR) x the head of START, with the encoders of FITTED."""
    initial, (model, facts) = load(start)[0], load(fitted)
    if initial.p2m is not None:
        initial.with_m2p_features(model.architecture.m2p_features)
    if restart is not None:
        torch.manual_seed(restart)
        initial.head = initial.untrained_head()
    first = initial.head.state_dict()
    with torch.no_grad():
        for name, value in model.head.state_dict().items():
            value.lerp_(first[name], 1 - factor)
    save(model, output, facts | {"head": {"interpolation_factor": factor}})


if __name__ == "__main__":
    main()
