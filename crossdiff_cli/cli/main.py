"""The crossdiff command: the list of commands."""

import logging
import os
import sys
import warnings
from typing import Any

import click

from crossdiff_cli import __version__
from crossdiff_cli.cli.assess import assess, degrade
from crossdiff_cli.cli.batch import batch
from crossdiff_cli.cli.sensors import info, sensors
from crossdiff_cli.cli.sharpen import sharpen
from crossdiff_cli.cli.train import adapt, pretrain
from crossdiff_cli.cli.types import verbosity_options

_GDAL_HTTP_DEFAULTS = {
    "GDAL_HTTP_CONNECTTIMEOUT": "30",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
    "GDAL_HTTP_LOW_SPEED_TIME": "60",
}
"""When GDAL gives a server up (seconds, bytes per second); by itself it waits for ever. The user's own values win."""


class _Group(click.Group):
    """Sets up logging and the network before any option of the group or of a command is looked at."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr, force=True)
        logging.getLogger("crossdiff_cli").setLevel(logging.INFO)
        # Scenes without georeference are told in the notes of a pair.
        warnings.filterwarnings("ignore", message="Dataset has no geotransform", module="rasterio")
        for name, value in _GDAL_HTTP_DEFAULTS.items():
            os.environ.setdefault(name, value)
        return super().make_context(*args, **kwargs)


@click.group("crossdiff", cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="crossdiff")
@verbosity_options
def main() -> None:
    """Pansharpening by cross-predictive diffusion encoders and an adapted fusion head.

    \b
    crossdiff sharpen pan.tif ms.tif -o sharp.tif

    `crossdiff COMMAND --help` has an example of every command.
    """


for command in (sharpen, batch, assess, degrade, info, sensors, pretrain, adapt):
    main.add_command(command)
