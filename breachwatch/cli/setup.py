"""`breachwatch init`, `doctor` and `demo`."""

from __future__ import annotations

from pathlib import Path

import click

from breachwatch.cli.output import print_json, safe
from breachwatch.config.shipped import DEFAULT_CONFIG


@click.command()
@click.pass_obj
def init(config: Path | None) -> None:
    """Write a commented configuration for the host it stands on. Never overwrites."""
    from breachwatch.app.initialise import write_configuration

    for line in write_configuration(config or DEFAULT_CONFIG):
        click.echo(line)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def doctor(config: Path | None, as_json: bool) -> int:
    """What is not ready, why, and how to mend it. Exit code 1 when something is not."""
    from breachwatch.app.doctor import examine
    from breachwatch.config.settings import load_settings

    findings = examine(load_settings(config))
    for finding in findings:
        if as_json:
            print_json({"kind": "finding", "status": str(finding.status), "what": finding.what, "why": finding.why,
                        "mend": finding.mend})  # fmt: skip
        else:
            click.echo(f"{finding.status:<8} {safe(finding.what)}: {safe(finding.why)}")
            if finding.mend and str(finding.status) != "ok":
                click.echo(f"         mend: {safe(finding.mend)}")
    return 1 if any(str(finding.status) == "problem" for finding in findings) else 0


@click.command()
def demo() -> int:
    """The whole story in under a minute, with real processes in a temporary folder."""
    from breachwatch.app.demo import Demo

    return Demo(say=click.echo).play()
