"""What commands tell of events, matches, incidents and gaps: the JSON objects of the contract (design.md section 6)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from breachwatch.model import Event, Gap, Incident, IncidentState, Match, RuleRef, Severity

JsonObject = dict[str, object]
"""What JSON can say; lists may be tuples."""

ENTITY_FIELDS = ("source.ip", "user.name", "host.name", "file.path")
"""What an incident says it is about, always all four."""


def iso(moment: datetime) -> str:
    """RFC 3339 in UTC with `Z`."""
    text: str = msgspec.to_builtins(in_utc(moment))
    return text


def in_utc(moment: datetime) -> datetime:
    """The same instant in UTC."""
    return moment if moment.tzinfo is UTC else moment.astimezone(UTC)


def event_object(event: Event) -> JsonObject:
    """An event in flat ECS names."""
    return {"@timestamp": iso(event.at_utc), **event.fields} if "@timestamp" not in event.fields else {**event.fields}


def match_object(match: Match) -> JsonObject:
    """The `match` line of the contract."""
    found: JsonObject = {
        "kind": "match", "id": match.id, **rule_object(match.rule), "event": event_object(match.event),
    }  # fmt: skip
    if match.window is not None:
        window = match.window
        found["group"] = dict(match.group)
        found["window"] = {"first": iso(window.first), "last": iso(window.last), "count": window.count}
    return found


def rule_object(rule: RuleRef) -> JsonObject:
    """What a `match` line says of its rule."""
    return {
        "rule.id": rule.id,
        "rule.title": rule.title,
        "rule.level": str(rule.level),
        "rule.author": rule.author,
        "tags": rule.tags,
    }


class IncidentLine(msgspec.Struct, frozen=True, tag="incident", tag_field="kind"):
    """The `incident` line of the contract."""

    id: str
    title: str
    severity: Severity
    state: IncidentState
    first_seen: datetime
    last_seen: datetime
    count: int
    rules: tuple[str, ...]
    entities: Mapping[str, tuple[str, ...]]


def incident_line(incident: Incident) -> IncidentLine:
    """The line of an incident: small, for a scan may find one for every match."""
    entities = {name: incident.entities.get(name, ()) for name in ENTITY_FIELDS}
    return IncidentLine(
        incident.id, incident.title, incident.severity, incident.state, in_utc(incident.first_seen),
        in_utc(incident.last_seen), incident.count, incident.rules, entities,
    )  # fmt: skip


def incident_object(incident: Incident) -> JsonObject:
    """The same as an object."""
    found: JsonObject = msgspec.to_builtins(incident_line(incident))
    return found


def gap_object(gap: Gap) -> JsonObject:
    """The `gap` line of the contract: something could not be seen."""
    return {
        "kind": "gap",
        "source": gap.source,
        "reason": gap.reason,
        "at": iso(gap.at_utc),
        "lost_bytes": gap.lost_bytes,
        "detail": gap.detail,
    }
