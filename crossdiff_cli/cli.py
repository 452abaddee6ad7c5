"""The crossdiff command: verbosity, and the list of commands."""

import logging
import sys

import click

from crossdiff_cli import __version__
from crossdiff_cli.commands.sensors import info, sensors
from crossdiff_cli.commands.sharpen import sharpen
from crossdiff_cli.commands.train import adapt, pretrain


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="crossdiff")
@click.option("-v", "--verbose", is_flag=True, help="Say more.")
@click.option("-q", "--quiet", is_flag=True, help="Only errors; no progress bar.")
@click.pass_context
def main(ctx: click.Context, *, verbose: bool, quiet: bool) -> None:
    """Pansharpening by cross-predictive diffusion encoders and an adapted fusion head."""
    level = logging.DEBUG if verbose else logging.ERROR if quiet else logging.INFO
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr, force=True)
    logging.getLogger("crossdiff_cli").setLevel(level)
    ctx.obj = quiet


for command in (sharpen, info, sensors, pretrain, adapt):
    main.add_command(command)
