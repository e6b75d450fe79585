"""`breachwatch incident`."""

from __future__ import annotations

from pathlib import Path

import click

from breachwatch.cli.output import print_json, safe
from breachwatch.errors import UsageError
from breachwatch.model import IncidentState

AS_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
AS_PERSON = click.option("--as", "person", metavar="NAME", help="Act as this person of team.people.")
REASON = click.option("--reason", default="", help="Why; kept in the incident's history.")
FACT = click.option("--fact", "facts", multiple=True, metavar="NAME=VALUE", help="A fact for the notices; repeatable.")


@click.group()
def incident() -> None:
    """List, show, acknowledge, confirm, dismiss, close."""


@incident.command("list")
@click.option("--state", "states", multiple=True, type=click.Choice([str(state) for state in IncidentState]),
              help="Only incidents in this state; repeatable.")  # fmt: skip
@AS_JSON
@click.pass_obj
def list_incidents(config: Path | None, states: tuple[str, ...], as_json: bool) -> None:
    """Incidents, newest first."""
    from breachwatch.app.told import incident_object, iso
    from breachwatch.app.wiring import operations
    from breachwatch.config.settings import load_settings

    with operations(load_settings(config)) as verbs, verbs.store.reading() as view:
        chosen = [IncidentState(state) for state in states] or None
        for found in view.incidents.list(states=chosen):
            if as_json:
                print_json(incident_object(found))
            else:
                click.echo(
                    f"{found.id:<16} {found.severity:<9} {found.state:<13} {iso(found.first_seen)[:19]} "
                    f"{found.count:>6}  {safe(found.title, 70)}"
                )


@incident.command()
@click.argument("incident_id")
@AS_JSON
@click.pass_obj
def show(config: Path | None, incident_id: str, as_json: bool) -> None:
    """One incident with its history, facts and latest matches."""
    from breachwatch.app.operate import require_incident
    from breachwatch.app.told import incident_object, iso, match_object
    from breachwatch.app.wiring import operations
    from breachwatch.config.settings import load_settings

    with operations(load_settings(config)) as verbs, verbs.store.reading() as view:
        found = require_incident(view, incident_id)
        changes = view.incidents.changes(incident_id)
        matches = view.incidents.matches(incident_id)
        facts = view.incidents.facts(incident_id)
    if as_json:
        print_json(incident_object(found))
        for change in changes:
            print_json({"kind": "change", "incident": incident_id, "at": iso(change.at_utc), "actor": change.actor,
                        "change": change.kind, "reason": change.reason, "before": change.before,
                        "after": change.after})  # fmt: skip
        for match in matches:
            print_json(match_object(match))
        return
    click.echo(f"{found.id}  {found.severity}  {found.state}  {safe(found.title)}")
    click.echo(f"first seen {iso(found.first_seen)}, last seen {iso(found.last_seen)}, {found.count} events")
    for name, values in found.entities.items():
        if values:
            click.echo(f"{name:<12} {safe(', '.join(values), 150)}")
    for name, value in facts.items():
        click.echo(f"fact         {safe(name)} = {safe(value, 120)}")
    for change in changes:
        what = f"{change.kind} {change.after} {safe(change.reason, 1_000)}"
        click.echo(f"{iso(change.at_utc)[:19]}  {change.actor:<16} {what}")
    for match in matches[-10:]:
        click.echo(f"{iso(match.event.at_utc)[:19]}  {match.rule.level:<9} {safe(match.rule.title, 90)}")


@incident.command()
@click.argument("incident_id")
@click.argument("text", default="")
@FACT
@AS_PERSON
@click.pass_obj
def note(config: Path | None, incident_id: str, text: str, facts: tuple[str, ...], person: str | None) -> None:
    """Add words, and facts that the notices need (data.categories, subj.count, act.done, ...)."""
    from breachwatch.app.wiring import actor, operations
    from breachwatch.config.settings import load_settings

    settings = load_settings(config)
    with operations(settings) as verbs:
        verbs.note(incident_id, text, actor=actor(settings, person), facts=_facts(facts))
    click.echo(f"{incident_id} noted")


def _facts(pairs: tuple[str, ...]) -> dict[str, str]:
    facts = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name or not value:
            raise UsageError("--fact: expected NAME=VALUE", hint='for example --fact data.categories="name, phone"')
        facts[name] = value
    return facts


def _change(config: Path | None, incident_id: str, to: IncidentState, reason: str, person: str | None,
            facts: tuple[str, ...] = ()) -> None:  # fmt: skip
    from breachwatch.app.wiring import actor, operations
    from breachwatch.config.settings import load_settings

    settings = load_settings(config)
    with operations(settings) as verbs:
        who = actor(settings, person)
        if facts:
            verbs.note(incident_id, "", actor=who, facts=_facts(facts))
        changed = verbs.change_state(incident_id, to, actor=who, reason=reason)
    click.echo(f"{changed.id} is {changed.state}")


@incident.command()
@click.argument("incident_id")
@REASON
@AS_PERSON
@click.pass_obj
def ack(config: Path | None, incident_id: str, reason: str, person: str | None) -> None:
    """Take it: escalation stops."""
    _change(config, incident_id, IncidentState.ACKNOWLEDGED, reason, person)


@incident.command()
@click.argument("incident_id")
@REASON
@FACT
@AS_PERSON
@click.pass_obj
def confirm(config: Path | None, incident_id: str, reason: str, facts: tuple[str, ...], person: str | None) -> None:
    """It is a breach: notices are prepared for approval."""
    _change(config, incident_id, IncidentState.CONFIRMED, reason, person, facts)


@incident.command()
@click.argument("incident_id")
@click.option("--reason", required=True, help="Why it is none; kept in the incident's history.")
@AS_PERSON
@click.pass_obj
def dismiss(config: Path | None, incident_id: str, reason: str, person: str | None) -> None:
    """It is none, with a reason."""
    _change(config, incident_id, IncidentState.DISMISSED, reason, person)


@incident.command()
@click.argument("incident_id")
@REASON
@AS_PERSON
@click.pass_obj
def contain(config: Path | None, incident_id: str, reason: str, person: str | None) -> None:
    """The attack is stopped."""
    _change(config, incident_id, IncidentState.CONTAINED, reason, person)


@incident.command()
@click.argument("incident_id")
@REASON
@AS_PERSON
@click.pass_obj
def close(config: Path | None, incident_id: str, reason: str, person: str | None) -> None:
    """All is done."""
    _change(config, incident_id, IncidentState.CLOSED, reason, person)
