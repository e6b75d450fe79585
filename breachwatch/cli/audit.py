"""`breachwatch audit`."""

from __future__ import annotations

from pathlib import Path

import click

from breachwatch.cli.output import print_json
from breachwatch.errors import VerificationError


@click.group()
def audit() -> None:
    """Verify, prove and export the audit trail."""


@audit.command()
@click.option("--known", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="A checkpoint that others hold: finds a trail that was rolled back or cut.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def verify(config: Path | None, known: Path | None, as_json: bool) -> int:
    """Recompute the whole trail from its stored bytes. Exit code 1 when anything does not hold."""
    from breachwatch.app.trail import verify_trail
    from breachwatch.config.settings import load_settings

    try:
        report = verify_trail(load_settings(config), known.read_bytes() if known else None)
    except VerificationError as error:
        click.echo(f"BROKEN: {error}", err=True)
        return 1
    if as_json:
        print_json({"kind": "audit", **report})
    else:
        for name, value in report.items():
            click.echo(f"{name:<12} {value}")
        click.echo("the trail holds: every entry, tile and the signed checkpoint agree")
    return 0


@audit.command()
@click.argument("index", type=click.IntRange(0))
@click.pass_obj
def prove(config: Path | None, index: int) -> None:
    """Print the receipt (c2sp.org/tlog-proof) of one entry."""
    from breachwatch.app.trail import receipt
    from breachwatch.config.settings import load_settings

    click.echo(receipt(load_settings(config), index), nl=False)


@audit.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.pass_obj
def export(config: Path | None, folder: Path) -> None:
    """Write the trail as tlog-tiles that others verify with their own tools."""
    from breachwatch.app.trail import export_trail
    from breachwatch.config.settings import load_settings

    size = export_trail(load_settings(config), folder)
    click.echo(f"{size} entries written to {folder}")
