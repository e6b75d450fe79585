"""Matches become incidents: which one a match joins, how it opens one, how an incident grows. In event time, pure.

The hub (with its tables) and `scan` (with an `IncidentBook`) run the same three functions, so they find the same
incidents.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import blake2b

from breachwatch.model import FieldValue, Incident, IncidentState, Match, Severity

ENTITY_FIELDS = ("source.ip", "user.name", "host.name", "file.path")
"""What an incident says it is about."""

MAX_ENTITY_VALUES = 200
"""Distinct values kept per entity: whoever attacks chooses names, and an incident must stay small enough to read."""

OVERFLOW = "(more not listed)"
"""Last value of an entity that had more than MAX_ENTITY_VALUES."""

MAX_VALUE_CHARS = 256
"""A longer value is cut and told apart by a digest. Paths on Linux may be 4,096 bytes; nobody reads them whole here."""

MAX_KEYS = 1_000
"""Pairs an incident can be joined by; matches that share only later pairs open incidents of their own."""

MAX_RULES = 200
"""Rule ids kept per incident."""

MAX_TITLE_CHARS = 200
"""Titles come from rules, but rules come from many hands."""

MAX_LIST_VALUES = 20
"""Values taken of one field of one event, where JSON input brings lists."""

MAX_CANDIDATES = 64
"""Incidents of one key that a match is compared with, newest first: bounds the work a hostile key can cause."""

_NOT_JOINED = frozenset({IncidentState.CLOSED, IncidentState.DISMISSED})


def match_keys(match: Match) -> tuple[tuple[str, str], ...]:
    """The (field, value) pairs by which `match` may join an incident, bounded, in the order the rule names them."""
    keys: dict[tuple[str, str], None] = {}
    for name in match.rule.group_by:
        value = match.group.get(name)
        found = _values(match.event.fields.get(name)) if value is None else _values(value)
        keys.update(((name, text), None) for text in found)
    return tuple(keys)


def place(match: Match, candidates: Sequence[Incident]) -> Incident | None:
    """The incident that `match` belongs to: a shared key, near enough in event time, not closed; the oldest if several.

    None: it belongs to none of them.
    """
    keys = frozenset(match_keys(match))
    joinable = [
        incident
        for incident in candidates
        if incident.state not in _NOT_JOINED and not keys.isdisjoint(incident.keys) and _is_near(match, incident)
    ]
    return min(joinable, key=lambda incident: (incident.opened_at, incident.id), default=None)


def open_incident(match: Match, *, incident_id: str, now: datetime) -> Incident:
    """A new incident from its first match."""
    first, last = _span(match)
    return Incident(
        id=incident_id,
        title=bounded(match.rule.title)[:MAX_TITLE_CHARS],
        severity=match.rule.level,
        opened_at=now,
        first_seen=first,
        last_seen=last,
        count=_count(match),
        rules=(match.rule.id,),
        keys=frozenset(match_keys(match)[:MAX_KEYS]),
        entities=_entities({}, match),
    )


def absorb(incident: Incident, match: Match) -> Incident:
    """The incident with one more match: never less severe, never shorter, never about fewer things.

    The title is that of the first rule among the most severe. The caller absorbs each match once.
    """
    first, last = _span(match)
    rises = match.rule.level.rank > incident.severity.rank
    rules = incident.rules
    if match.rule.id not in rules and len(rules) < MAX_RULES:
        rules = (*rules, match.rule.id)
    return replace(
        incident,
        title=bounded(match.rule.title)[:MAX_TITLE_CHARS] if rises else incident.title,
        severity=Severity(match.rule.level) if rises else incident.severity,
        first_seen=min(first, incident.first_seen),
        last_seen=max(last, incident.last_seen),
        count=incident.count + _count(match),
        rules=rules,
        keys=_keys(incident.keys, match),
        entities=_entities(incident.entities, match),
    )


@dataclass(slots=True)
class IncidentBook:
    """Incidents in memory, in log time: what `scan` reports. Ids come from content, so a second scan gives the same."""

    _incidents: dict[str, Incident] = field(default_factory=dict)
    _by_key: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)

    def add(self, match: Match) -> Incident | None:
        """Put a match where it belongs; None if it was seen before or may not open an incident and none is there."""
        if match.id in self._seen:
            return None
        keys = match_keys(match)
        joined = place(match, self._candidates(keys))
        if joined is None and not match.rule.opens_incident:
            return None
        self._seen.add(match.id)
        if joined is None:
            incident = open_incident(match, incident_id=_content_id(match), now=_span(match)[1])
        else:
            incident = absorb(joined, match)
        self._incidents[incident.id] = incident
        self._index(incident, keys)
        return incident

    def incidents(self) -> list[Incident]:
        """All, by time of their first event."""
        return sorted(self._incidents.values(), key=lambda incident: (incident.first_seen, incident.id))

    def _candidates(self, keys: Iterable[tuple[str, str]]) -> list[Incident]:
        ids = {incident_id: None for key in keys for incident_id in self._by_key.get(key, ())[-MAX_CANDIDATES:]}
        return [self._incidents[incident_id] for incident_id in ids]

    def _index(self, incident: Incident, keys: Iterable[tuple[str, str]]) -> None:
        for key in keys:
            ids = self._by_key.setdefault(key, [])
            if key in incident.keys and incident.id not in ids[-MAX_CANDIDATES:]:
                ids.append(incident.id)


def bounded(value: str) -> str:
    """A hostile value as short, printable text that every store can hold; long values stay distinct."""
    text = value
    if not text.isprintable():
        text = "".join(character if character.isprintable() else _escaped(character) for character in text)
    if len(text) <= MAX_VALUE_CHARS:
        return text
    digest = blake2b(value.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return f"{text[: MAX_VALUE_CHARS - 18]}…{digest}"


def _escaped(character: str) -> str:
    return f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"  # noqa: PLR2004  # a byte


def _values(value: FieldValue) -> tuple[str, ...]:
    """The texts a field holds. Booleans, fractions and nested objects name nothing that two events could share."""
    if isinstance(value, str):
        return (bounded(value),) if value else ()
    if isinstance(value, bool) or value is None or isinstance(value, float | Mapping):
        return ()
    if isinstance(value, int):
        return (bounded(str(value)),)
    flat = (item for item in value[:MAX_LIST_VALUES] if isinstance(item, str | int))
    return tuple(text for item in flat for text in _values(item))


def _span(match: Match) -> tuple[datetime, datetime]:
    """Event time from the first to the last event that the match rests on."""
    at = match.event.at_utc
    if match.window is None:
        return at, at
    return min(match.window.first, at), max(match.window.last, at)


def _count(match: Match) -> int:
    return 1 if match.window is None else max(match.window.count, 1)


def _is_near(match: Match, incident: Incident) -> bool:
    first, last = _span(match)
    gap = max(first - incident.last_seen, incident.first_seen - last, timedelta(0))
    return gap.total_seconds() <= match.rule.within_s


def _keys(known: frozenset[tuple[str, str]], match: Match) -> frozenset[tuple[str, str]]:
    new = [key for key in match_keys(match) if key not in known]
    room = MAX_KEYS - len(known)
    return known.union(new[:room]) if new and room > 0 else known


def _entities(known: Mapping[str, tuple[str, ...]], match: Match) -> dict[str, tuple[str, ...]]:
    grown = {name: known.get(name, ()) for name in ENTITY_FIELDS}
    for name in ENTITY_FIELDS:
        have = grown[name]
        for text in (*_values(match.event.fields.get(name)), *_values(match.group.get(name))):
            if text in have or (have and have[-1] == OVERFLOW):
                continue
            have = (*have, text if len(have) < MAX_ENTITY_VALUES else OVERFLOW)
        grown[name] = have
    return grown


def _content_id(match: Match) -> str:
    digest = blake2b(match.id.encode("utf-8", "surrogatepass"), digest_size=8, person=b"incident").hexdigest()
    return f"INC-{digest}"
