"""A small playbook and an incident to try it on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from breachwatch.model import Duty, Incident, IncidentState, Level
from breachwatch.playbook.schema import Playbook, load_playbook

START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)

TEXT = """\
playbook: small
version: 1
title: A small one
applies:
  when: incident.severity >= "high"
escalation:
- {to: oncall, via: [chat, sms], wait: 5m}
- {to: boss, via: [sms], wait: 10m, repeat: 2}
clocks:
- {regime: law, stage: authority_notice, met_by: authority}
- {regime: law, stage: open_end}
on_confirm:
- id: authority
  notice:
    kind: authority
    to: the-authority
    templates: {en: authority}
    channels: [email]
  approve: {need: 1, roles: [dpo, ciso], not: [requester]}
- id: customers
  notice:
    kind: customers
    audience: customers
    templates: {vi: customer, en: customer}
    channels: [email, {sms: {if: undelivered}}]
  needs: [authority]
  approve: {need: 2, roles: [dpo]}
"""

SMALL: Playbook = load_playbook(TEXT, "small.yaml")


def an_incident(state: IncidentState = IncidentState.OPEN, **changes) -> Incident:
    incident = Incident(
        id="INC-2026-000001",
        title="t",
        severity=Level.HIGH,
        state=state,
        opened_at=START,
        first_seen=START,
        last_seen=START,
        count=3,
        rules=("ssh.guessing",),
        entities={"source.ip": ("203.0.113.7", "203.0.113.8"), "user.name": ("root",)},
    )
    return replace(incident, **changes)


def a_duty(stage: str = "authority_notice", hours: float = 72, start: datetime = START) -> Duty:
    return Duty(
        regime="law", stage=stage, recipients=("authority",), starts_at=start, due_at=start + timedelta(hours=hours)
    )


OPEN_END = Duty(regime="law", stage="open_end", recipients=("subjects",), why="the law states no time")
DUTIES = (a_duty(), OPEN_END)
