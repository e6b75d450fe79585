"""Matches and complaints that belong together, and the life they lead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import msgspec

from breachwatch.model.match import Level

Severity = Level
"""Incidents use the levels of the rules that opened them."""


class IncidentState(StrEnum):
    """design.md section 4: the life from open to closed or dismissed."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    CONFIRMED = "confirmed"
    CONTAINED = "contained"
    NOTIFYING = "notifying"
    NOTIFIED = "notified"
    CLOSED = "closed"
    DISMISSED = "dismissed"


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one incident. Changes make a new value; history is in the audit trail and `incident_event`."""

    id: str
    """INC-2026-000042 under a daemon; content-derived under `scan`."""
    title: str
    severity: Severity
    state: IncidentState = IncidentState.OPEN
    opened_at: datetime
    """When BreachWatch opened it."""
    first_seen: datetime
    """Event time of the first match: where clocks that start at detection may not start later than `opened_at`."""
    last_seen: datetime
    count: int = 0
    rules: tuple[str, ...] = ()
    """Ids of the rules that matched, in order of first match."""
    keys: frozenset[tuple[str, str]] = frozenset()
    """(ECS field, value) pairs that later matches join by."""
    entities: Mapping[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    """source.ip, user.name, host.name, file.path: distinct values seen, first-seen order, bounded."""
    acknowledged_at: datetime | None = None
    confirmed_at: datetime | None = None
    contained_at: datetime | None = None
    notified_at: datetime | None = None
    closed_at: datetime | None = None
    reopened: int = 0
    """How often it went back to open: each time the escalation starts anew."""
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChange:
    """One change of an incident: who, when, why."""

    incident_id: str
    at_utc: datetime
    actor: str
    kind: str
    """state, note, match, fact."""
    reason: str = ""
    before: str = ""
    after: str = ""
