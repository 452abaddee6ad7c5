"""`crossdiff sensors` and `crossdiff info`: the table of sensors, and how a pair is read."""

import json

import click

from crossdiff_cli.cli.failures import one_line_errors
from crossdiff_cli.cli.options import files, need_ms, sensor_options
from crossdiff_cli.cli.types import verbosity_options
from crossdiff_cli.options import PairOptions


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON line per sensor.")
def sensors(*, as_json: bool) -> None:
    """List the sensors that --sensor knows, your own at the end: key, name, ratio, band orders of the deliveries.

    \b
    crossdiff sensors
    crossdiff sensors --json
    """
    from crossdiff_cli.sensors.definitions import own_sensors
    from crossdiff_cli.sensors.table import SENSORS

    for sensor in (*SENSORS.values(), *own_sensors()):
        layouts = [",".join(layout) for layout in sensor.layouts]
        if as_json:
            click.echo(
                json.dumps({"sensor": sensor.key, "name": sensor.name, "ratio": sensor.ratio, "layouts": layouts})
            )
        else:
            click.echo(f"{sensor.key:<12} {sensor.name:<24} ratio {sensor.ratio:<4g} {'  '.join(layouts)}")


@click.command()
@files
@sensor_options
@click.option("--json", "as_json", is_flag=True, help="One JSON line.")
@verbosity_options
def info(pan: str, ms: tuple[str, ...], *, pair: PairOptions, as_json: bool) -> None:
    """Describe a pair or a delivery (sensor, bands, ratio, shift, masks) without sharpening it.

    \b
    crossdiff info pan.tif ms.tif
    """
    need_ms(pan, ms)
    with one_line_errors():
        from crossdiff_cli.tasks.describe import describe

        facts = describe(pan, ms, pair)
    if as_json:
        click.echo(json.dumps(facts))
        return
    for name, value in facts.items():
        click.echo(f"{name:<12} {', '.join(str(v) for v in value) if isinstance(value, list) else value}")
