"""`breachwatch playbook`."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from breachwatch.cli.output import print_json, safe
from breachwatch.errors import PlaybookError
from breachwatch.model import CampaignState, Severity

if TYPE_CHECKING:
    from breachwatch.playbook.actions import Action

AS_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
AS_PERSON = click.option("--as", "person", metavar="NAME", help="Act as this person of team.people.")
REASON = click.option("--reason", default="", help="Why; kept in the incident's history.")
FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.group()
def playbook() -> None:
    """Lint, simulate, preview, approve, pause."""


@playbook.command()
@click.argument("files", nargs=-1, type=FILE)
@click.pass_obj
def lint(config: Path | None, files: tuple[Path, ...]) -> int:
    """Check playbooks, file and line; without FILES those in use, names included. Exit code 1 when one is refused."""
    from breachwatch.app.playbooks import known_names, load_duty_book, playbook_files, playbooks_in_use, read_playbook
    from breachwatch.config.settings import load_settings
    from breachwatch.notify.template import load_templates

    found: list[object] = []
    if files:
        for file in files:
            try:
                found.append(read_playbook(file))
            except PlaybookError as error:
                found.append(error)
    else:
        settings = load_settings(config)
        known = known_names(settings, load_templates(settings.templates.directories), load_duty_book())
        found = list(playbooks_in_use(settings, known))
        if not found:
            click.echo(f"no playbook in use; there are: {', '.join(sorted(playbook_files(settings)))}", err=True)
            return 1
    refused = [item for item in found if isinstance(item, PlaybookError)]
    for fault in refused:
        click.echo(str(fault))
    click.echo(f"{len(found) - len(refused)} playbooks fine, {len(refused)} refused")
    return 1 if refused else 0


@playbook.command()
@click.argument("file", type=FILE)
@click.option("--severity", type=click.Choice([str(level) for level in Severity]), default="critical",
              show_default=True, help="Severity of the incident.")  # fmt: skip
@click.option("--ack-after", type=float, default=3.0, show_default=True, help="Minutes; negative: nobody does.")
@click.option("--confirm-after", type=float, default=120.0, show_default=True, help="Minutes; negative: nobody does.")
@click.option("--approve-after", type=float, default=60.0, show_default=True, help="Minutes; negative: nobody does.")
@AS_JSON
def simulate(
    file: Path, severity: str, ack_after: float, confirm_after: float, approve_after: float, as_json: bool
) -> None:
    """Play thirty days on a virtual clock: who is called and told, when."""
    from breachwatch.app.playbooks import load_duty_book, read_playbook
    from breachwatch.playbook.simulate import Scenario, simulate

    scenario = Scenario(
        severity=Severity(severity),
        acknowledge_after=_minutes(ack_after),
        confirm_after=_minutes(confirm_after),
        approve_after=_minutes(approve_after),
    )
    book = load_duty_book()
    for at, action in simulate(read_playbook(file), scenario, lambda incident: book.duties_of(incident, {})):
        after = at - scenario.opened_at
        name, words = type(action).__name__, _words(action)
        if as_json:
            print_json({"kind": "action", "after_s": after.total_seconds(), "action": name, "what": words})
        else:
            click.echo(f"+{after!s:<18} {name:<14} {words}")


def _minutes(number: float) -> timedelta | None:
    return None if number < 0 else timedelta(minutes=number)


def _words(action: Action) -> str:
    parts = []
    for name in ("step", "to", "audience", "stage", "fraction"):
        value = getattr(action, name, "")
        if value:
            parts.append(f"{name}={value}")
    return " ".join(parts)


@playbook.command()
@click.argument("campaign")
@click.pass_obj
def preview(config: Path | None, campaign: str) -> None:
    """Print what will be sent, to the byte, to a person who does not exist; and the hash that an approval is of."""
    from breachwatch.app.campaigns import CampaignDesk
    from breachwatch.config.settings import load_settings

    desk = CampaignDesk.open(load_settings(config))
    try:
        found, messages = desk.preview(campaign)
    finally:
        desk.close()
    for message in messages:
        click.echo(f"----- {message.channel} -----")
        click.echo(message.payload.decode("utf-8", "replace"))
    click.echo(f"----- {found.kind} to {found.audience_count}, {found.state} -----")
    click.echo(f"approve with: breachwatch playbook approve {found.id} --hash {found.content_hash}")


@playbook.command()
@click.argument("campaign")
@click.option("--hash", "content_hash", required=True, help="The hash that `preview` printed: what you have read.")
@AS_PERSON
@click.pass_obj
def approve(config: Path | None, campaign: str, content_hash: str, person: str | None) -> None:
    """Say yes to exactly this content and audience. Never the person who asked for it."""
    from breachwatch.app.wiring import actor, operations
    from breachwatch.config.settings import load_settings

    settings = load_settings(config)
    with operations(settings) as verbs:
        given, need = verbs.approve(campaign, content_hash, actor=actor(settings, person))
    click.echo(f"{campaign}: {given} of {need} approvals")


def _set(config: Path | None, campaign: str, to: CampaignState, reason: str, person: str | None) -> None:
    from breachwatch.app.wiring import actor, operations
    from breachwatch.config.settings import load_settings

    settings = load_settings(config)
    with operations(settings) as verbs:
        verbs.set_campaign(campaign, to, actor=actor(settings, person), reason=reason)
    click.echo(f"{campaign} is {to}")


@playbook.command()
@click.argument("campaign")
@REASON
@AS_PERSON
@click.pass_obj
def pause(config: Path | None, campaign: str, reason: str, person: str | None) -> None:
    """Begin no further message."""
    _set(config, campaign, CampaignState.PAUSED, safe(reason), person)


@playbook.command()
@click.argument("campaign")
@REASON
@AS_PERSON
@click.pass_obj
def resume(config: Path | None, campaign: str, reason: str, person: str | None) -> None:
    """Go on after a pause."""
    _set(config, campaign, CampaignState.RUNNING, safe(reason), person)


@playbook.command()
@click.argument("campaign")
@click.option("--reason", required=True, help="Why; kept in the incident's history.")
@AS_PERSON
@click.pass_obj
def cancel(config: Path | None, campaign: str, reason: str, person: str | None) -> None:
    """Never send what is not sent yet."""
    _set(config, campaign, CampaignState.CANCELLED, safe(reason), person)
