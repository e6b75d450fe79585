"""Matches become incidents: which one a match joins, how it opens one, how an incident grows. In event time, pure.

The hub (with its tables) runs `place`, `open_incident` and `absorb`; `scan` has an `IncidentBook`, whose incidents grow
in place. Both find the same incidents: they grow by the same code, and a test compares whom they join.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from hashlib import blake2b

from msgspec.structs import replace

from breachwatch.model import Event, FieldValue, Incident, IncidentState, Match, RuleRef, Severity, Window

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


Keys = tuple[tuple[str, str], ...]

Said = tuple[tuple[str, ...], float, FieldValue, FieldValue, FieldValue, FieldValue]
"""What a rule groups by and within which time, and what an event says in ENTITY_FIELDS."""

MAX_SAID = 4_096
"""Of so many of these it is remembered what they joined."""

_ENTITIES, _TEXTS = frozenset(ENTITY_FIELDS), frozenset((str, type(None)))


def match_keys(match: Match) -> Keys:
    """The (field, value) pairs by which `match` may join an incident, bounded, in the order the rule names them."""
    known, group, names = match.event.fields, match.group, match.rule.group_by
    if len(names) == 1 and not group and type(value := known.get(names[0])) is str:
        return ((names[0], bounded(value)),) if value else ()
    keys: dict[tuple[str, str], None] = {}
    for name in names:
        value = group.get(name) if group else None
        if value is None:
            value = known.get(name)
        if isinstance(value, str):
            if value:
                keys[name, bounded(value)] = None
        elif value is not None:
            keys.update(((name, text), None) for text in _values(value))
    return tuple(keys)


def place(match: Match, candidates: Sequence[Incident]) -> Incident | None:
    """The incident that `match` belongs to: a shared key, near enough in event time, not closed; the oldest if several.

    None: it belongs to none of them.
    """
    keys = frozenset(match_keys(match))
    first, last = _span(match)
    joinable = [
        incident
        for incident in candidates
        if incident.state not in _NOT_JOINED
        and not keys.isdisjoint(incident.keys)
        and _is_near(incident.first_seen, incident.last_seen, first, last, match.rule.within_s)
    ]
    return min(joinable, key=lambda incident: (incident.opened_at, incident.id), default=None)


def open_incident(match: Match, *, incident_id: str, now: datetime) -> Incident:
    """A new incident from its first match."""
    keys = match_keys(match)
    if not keys:
        return _alone(match, incident_id=incident_id, now=now)
    return _Growing.opened(match, keys, incident_id=incident_id, now=now).incident()


def absorb(incident: Incident, match: Match) -> Incident:
    """The incident with one more match: never less severe, never shorter, never about fewer things.

    The title is that of the first rule among the most severe. The caller absorbs each match once.
    """
    growing = _Growing.of(incident)
    growing.absorb(match, match_keys(match), *_span(match))
    return growing.onto(incident)


_NO_ENTITIES: dict[str, tuple[str, ...]] = dict.fromkeys(ENTITY_FIELDS, ())


class _Growing:
    """An incident that grows in place: a match costs what is new in it."""

    __slots__ = ("count", "entities", "first", "id", "keys", "last", "opened_at", "rules", "severity", "title")

    def __init__(
        self, incident_id: str, title: str, severity: Severity, *, opened_at: datetime, first: datetime, last: datetime
    ) -> None:
        self.id = incident_id
        self.title = title
        self.severity = severity
        self.opened_at = opened_at
        self.first = first
        self.last = last
        self.count = 0
        self.rules: dict[str, None] = {}
        self.keys: set[tuple[str, str]] = set()
        self.entities: dict[str, dict[str, None]] = {}
        """Of each name the distinct values, in the order seen."""

    @classmethod
    def opened(cls, match: Match, keys: Keys, *, incident_id: str, now: datetime) -> _Growing:
        """A new one from its first match, whose `match_keys` are `keys`."""
        first, last = _span(match)
        rule = match.rule
        growing = cls(incident_id, _title(rule), rule.level, opened_at=now, first=first, last=last)
        growing.absorb(match, keys, first, last)
        return growing

    @classmethod
    def of(cls, incident: Incident) -> _Growing:
        """The incident as it is now, to grow on."""
        growing = cls(
            incident.id,
            incident.title,
            incident.severity,
            opened_at=incident.opened_at,
            first=incident.first_seen,
            last=incident.last_seen,
        )
        growing.count = incident.count
        growing.rules = dict.fromkeys(incident.rules)
        growing.keys = set(incident.keys)
        growing.entities = {name: dict.fromkeys(incident.entities.get(name, ())) for name in ENTITY_FIELDS}
        return growing

    def absorb(self, match: Match, keys: Keys, first: datetime, last: datetime) -> None:
        """Take a match in. `keys`: its `match_keys`; `first`, `last`: its span."""
        known, group, entities = match.event.fields, match.group, self.entities
        self.absorb_rule(match.rule, 1 if match.window is None else _count(match.window))
        if first < self.first or last > self.last:
            self.first, self.last = min(first, self.first), max(last, self.last)
        for key in keys:
            if key not in self.keys and len(self.keys) < MAX_KEYS:
                self.keys.add(key)
        for name in ENTITY_FIELDS:
            value = known.get(name)
            if value is not None:
                noted = entities.get(name)
                # what equals a bounded text is bounded itself
                if noted is None or type(value) is not str or value not in noted:
                    self._note_values(name, value)
            if group and name in group:
                self._note_values(name, group[name])

    def absorb_rule(self, rule: RuleRef, count: int = 1) -> None:
        """Take in so many matches of a rule, all but what they say of time, keys and entities."""
        if rule.level is not self.severity and rule.level.rank > self.severity.rank:
            self.severity = Severity(rule.level)
            self.title = _title(rule)
        self.count += count
        if rule.id not in self.rules and len(self.rules) < MAX_RULES:
            self.rules[rule.id] = None

    def takes(self, match: Match) -> bool:
        """Take in a match that says nothing new but when; False where that was too far away."""
        at, rule = match.event.at_utc, match.rule
        if at > self.last or at < self.first:
            if not _is_near(self.first, self.last, at, at, rule.within_s):
                return False
            self.first, self.last = min(at, self.first), max(at, self.last)
        self.count += 1
        if rule.id not in self.rules or rule.level is not self.severity:
            self.absorb_rule(rule, 0)
        return True

    def _note_values(self, name: str, value: FieldValue) -> None:
        known = self.entities.setdefault(name, {})
        for text in _values(value):
            if text not in known and len(known) <= MAX_ENTITY_VALUES:
                known[text if len(known) < MAX_ENTITY_VALUES else OVERFLOW] = None

    def incident(self) -> Incident:
        """The incident as it is now, open; a scan may open one for every match."""
        return Incident(
            id=self.id, title=self.title, severity=self.severity, opened_at=self.opened_at, first_seen=self.first,
            last_seen=self.last, count=self.count, rules=tuple(self.rules), keys=frozenset(self.keys),
            entities=self._entities(),
        )  # fmt: skip

    def onto(self, incident: Incident) -> Incident:
        """The incident with what a match may change of it as it is now."""
        return replace(
            incident,
            title=self.title,
            severity=self.severity,
            first_seen=self.first,
            last_seen=self.last,
            count=self.count,
            rules=tuple(self.rules),
            keys=frozenset(self.keys),
            entities=self._entities(),
        )

    def _entities(self) -> dict[str, tuple[str, ...]]:
        return _NO_ENTITIES | {name: tuple(values) for name, values in self.entities.items()}


def _alone(match: Match, *, incident_id: str, now: datetime) -> Incident:
    """The incident of a match that nothing can ever join, which spares it the means to grow."""
    rule, known, group = match.rule, match.event.fields, match.group
    first, last = _span(match)
    entities = _NO_ENTITIES.copy()
    for name in ENTITY_FIELDS:
        values = _values(known[name]) if name in known else ()
        if group and name in group:
            values += _values(group[name])
        if len(values) > 1:
            values = tuple(dict.fromkeys(values))
        if values:
            entities[name] = values
    return Incident(
        id=incident_id, title=_title(rule), severity=rule.level, opened_at=now, first_seen=first,
        last_seen=last, count=1 if match.window is None else _count(match.window), rules=(rule.id,), entities=entities,
    )  # fmt: skip


class IncidentBook:
    """Incidents in memory, in log time: what `scan` reports. Ids come from content, so a second scan gives the same."""

    def __init__(self, *, is_distinct: bool = False) -> None:
        """`is_distinct`: no match comes twice but one of a window, so that the others need not be remembered."""
        self._is_distinct = is_distinct
        self._growing: dict[str, _Growing] = {}
        self._alone: list[Incident] = []
        """Of matches that have no key."""
        self._by_key: dict[tuple[str, str], list[_Growing]] = {}
        """Newest last."""
        self._seen: set[str] = set()
        self._by_said: dict[Said, _Growing] = {}
        """What joined an incident to which all its keys lead, and to no other: the same joins it, if near enough."""

    def add(self, match: Match) -> bool:
        """Put a match where it belongs; False if it was seen before or may not open an incident and none is there."""
        return self.add_all((match,)) > 0

    def add_all(self, matches: Iterable[Match]) -> int:
        """Put each where it belongs; how many of them were."""
        added, seen, is_distinct = 0, self._seen, self._is_distinct
        event: Event | None = None
        group_by: tuple[str, ...] = ()
        within_s = 0.0
        for match in matches:
            may_come_again = not is_distinct or match.window is not None
            if may_come_again and match.id in seen:
                continue
            rule = match.rule
            if match.window is not None or match.group:
                event = said = known = None
            elif match.event is not event or rule.group_by != group_by or rule.within_s != within_s:
                event, group_by, within_s = match.event, rule.group_by, rule.within_s
                said, known = self._recalled(match)
            if known is None or not known.takes(match):
                event = None  # the next one of it is looked up again
                if not self._put(match, said):
                    continue
            if may_come_again:
                seen.add(match.id)
            added += 1
        return added

    def _recalled(self, match: Match) -> tuple[Said | None, _Growing | None]:
        """What a match says but for its rule and time, and what such a one joined. It has no window and no group."""
        rule, get = match.rule, match.event.fields.get
        said = rule.group_by, rule.within_s, get("source.ip"), get("user.name"), get("host.name"), get("file.path")
        try:
            return said, self._by_said.get(said)
        except TypeError:  # a list or an object
            return None, None

    def _put(self, match: Match, said: Said | None) -> bool:
        """Put a match where it belongs; False if there is nothing that it may join or open."""
        rule, keys = match.rule, match_keys(match)
        if not keys:
            return self._put_alone(match)
        first, last = _span(match)
        joined = self._joined(keys, first, last, rule.within_s)
        if joined is not None:
            joined.absorb(match, keys, first, last)
            if len(keys) > 1:  # else it was found by the only one, and is indexed
                self._index(joined, keys)
        elif rule.opens_incident:
            joined = _Growing.opened(match, keys, incident_id=_content_id(match), now=last)
            self._growing[joined.id] = joined
            self._index(joined, keys)
        else:
            return False
        if said is not None and _is_all(said) and all(self._by_key.get(key) == [joined] for key in keys):
            if len(self._by_said) >= MAX_SAID:
                self._by_said.clear()
            self._by_said[said] = joined
        return True

    def incidents(self) -> list[Incident]:
        """All, by time of their first event."""
        found = [*self._alone, *(growing.incident() for growing in self._growing.values())]
        return sorted(found, key=lambda incident: (incident.first_seen, incident.id))

    def _put_alone(self, match: Match) -> bool:
        if not match.rule.opens_incident:
            return False
        self._alone.append(_alone(match, incident_id=_content_id(match), now=_span(match)[1]))
        return True

    def _joined(self, keys: Keys, first: datetime, last: datetime, within_s: float) -> _Growing | None:
        """What `place` says: all of a key are candidates of it, and none is ever closed."""
        found: _Growing | None = None
        for key in keys:
            known = self._by_key.get(key, ())
            for growing in known if len(known) == 1 else known[-MAX_CANDIDATES:]:
                if found is not None and not _is_older(growing, found):
                    continue
                if _is_near(growing.first, growing.last, first, last, within_s):
                    found = growing
        return found

    def _index(self, growing: _Growing, keys: Keys) -> None:
        for key in keys:
            known = self._by_key.get(key)
            if known is None:
                if key in growing.keys:
                    self._by_key[key] = [growing]
            elif known[-1] is not growing and growing not in known[-MAX_CANDIDATES:] and key in growing.keys:
                known.append(growing)
                self._by_said.clear()  # the key leads to more than one now


def _is_all(said: Said) -> bool:
    """True if a match that says the same has the same keys and entities, and is as near to the same times."""
    group_by, within_s, *values = said
    return within_s >= 0 and _ENTITIES.issuperset(group_by) and _TEXTS.issuperset(map(type, values))


def _is_older(growing: _Growing, other: _Growing) -> bool:
    return growing is not other and (growing.opened_at, growing.id) < (other.opened_at, other.id)


def _title(rule: RuleRef) -> str:
    return bounded(rule.title)[:MAX_TITLE_CHARS]


def bounded(value: str) -> str:
    """A hostile value as short, printable text that every store can hold; long values stay distinct."""
    text = value
    if text.isprintable():
        if len(text) <= MAX_VALUE_CHARS:
            return text
    else:
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


def _count(window: Window) -> int:
    return max(window.count, 1)


def _is_near(first_seen: datetime, last_seen: datetime, first: datetime, last: datetime, within_s: float) -> bool:
    """True if what happened from `first` to `last` is near enough to an incident that lasted so long."""
    if first > last_seen:
        gap = first - last_seen
    elif last < first_seen:
        gap = first_seen - last
    else:
        return within_s >= 0
    return gap.total_seconds() <= within_s


def _content_id(match: Match) -> str:
    digest = blake2b(match.id.encode("utf-8", "surrogatepass"), digest_size=8, person=b"incident").hexdigest()
    return f"INC-{digest}"
