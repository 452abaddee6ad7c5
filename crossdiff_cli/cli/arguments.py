"""Checks of the PAN and MS arguments that several commands share."""

import click

from crossdiff_cli.cli.failures import one_line_errors


def need_ms(pan: str, ms: tuple[str, ...]) -> None:
    """Refuse a PAN alone, unless it is a delivery that may hold both.

    Raises:
        click.UsageError: the MS is missing.
    """
    if ms:
        return
    with one_line_errors():
        from crossdiff_cli.io.inputs import is_delivery

        known = is_delivery(pan)
    if not known:
        raise click.UsageError(
            f"Missing argument 'MS...': {pan} is neither a folder nor a metadata file of a delivery, "
            "so the multispectral image has to follow it."
        )
