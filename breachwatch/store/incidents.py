"""Incidents, their matches, history and facts, and how far each reader of signals has come."""

from __future__ import annotations

import builtins
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from msgspec.structs import replace
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    ForeignKey,
    Index,
    Integer,
    Row,
    String,
    Table,
    Text,
    bindparam,
    delete,
    insert,
    select,
    update,
)

from breachwatch.errors import RowError, StoreError
from breachwatch.model import Incident, IncidentState, Match, Severity, StateChange
from breachwatch.store.columns import HostileText, Json, UtcMicros, insert_ignoring, insert_or_update
from breachwatch.store.database import metadata
from breachwatch.store.match_json import match_from_json, match_to_json

incident_table = Table(
    "incident",
    metadata,
    Column("id", String, primary_key=True),
    Column("title", HostileText, nullable=False),
    Column("severity", String, nullable=False),
    Column("state", String, nullable=False),
    Column("opened_at", UtcMicros, nullable=False),
    Column("first_seen", UtcMicros, nullable=False),
    Column("last_seen", UtcMicros, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("rules", Json, nullable=False),
    Column("entities", Json, nullable=False),
    Column("acknowledged_at", UtcMicros),
    Column("confirmed_at", UtcMicros),
    Column("contained_at", UtcMicros),
    Column("notified_at", UtcMicros),
    Column("closed_at", UtcMicros),
    Column("reopened", Integer, nullable=False),
    Column("revision", Integer, nullable=False),
    Index("incident_by_state", "state", "opened_at"),
)

incident_key = Table(
    "incident_key",
    metadata,
    Column("field", HostileText, primary_key=True),
    Column("value", HostileText, primary_key=True),
    Column("incident_id", ForeignKey("incident.id"), primary_key=True),
    Index("incident_key_by_incident", "incident_id"),
)

incident_match = Table(
    "incident_match",
    metadata,
    Column("match_id", HostileText, primary_key=True),
    Column("incident_id", ForeignKey("incident.id"), nullable=False),
    Column("at", UtcMicros, nullable=False),
    Column("body", Text, nullable=False),
    Index("incident_match_by_incident", "incident_id", "at"),
)

incident_event = Table(
    "incident_event",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("incident_id", ForeignKey("incident.id"), nullable=False),
    Column("at", UtcMicros, nullable=False),
    Column("actor", HostileText, nullable=False),
    Column("kind", String, nullable=False),
    Column("reason", HostileText, nullable=False),
    Column("before", HostileText, nullable=False),
    Column("after", HostileText, nullable=False),
    Index("incident_event_by_incident", "incident_id", "seq"),
)

incident_fact = Table(
    "incident_fact",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("incident_id", ForeignKey("incident.id"), nullable=False),
    Column("name", HostileText, nullable=False),
    Column("value", HostileText, nullable=False),
    Column("source", HostileText, nullable=False),
    Column("at", UtcMicros, nullable=False),
    Index("incident_fact_by_incident", "incident_id", "seq"),
)

incident_number = Table(
    "incident_number",
    metadata,
    Column("year", Integer, primary_key=True, autoincrement=False),
    Column("last", Integer, nullable=False),
)

signal_cursor = Table(
    "signal_cursor",
    metadata,
    Column("reader", String, primary_key=True),
    Column("seq", BigInteger, nullable=False),
)

TABLES = (
    incident_table,
    incident_key,
    incident_match,
    incident_event,
    incident_fact,
    incident_number,
    signal_cursor,
)
"""The tables of this module."""

MAX_CANDIDATES = 64
"""Incidents given for the keys of one match, newest first: bounds the work that a hostile key can cause."""

IDS_PER_QUERY = 500
"""Ids in one statement: SQLite allows 32,766 parameters."""

_ENDED = (str(IncidentState.CLOSED), str(IncidentState.DISMISSED))

# Statements of the path that every match takes are built once: building one costs several times its execution.
_BY_ID = select(incident_table).where(incident_table.c.id == bindparam("wanted"))
_INCIDENT_OF_MATCH = select(incident_match.c.incident_id).where(incident_match.c.match_id == bindparam("wanted"))
_KEYS_OF = select(incident_key).where(incident_key.c.incident_id.in_(bindparam("wanted", expanding=True)))
_OPEN_WITH_KEY = (
    select(incident_table)
    .join(incident_key, incident_key.c.incident_id == incident_table.c.id)
    .where(
        incident_key.c.field == bindparam("field"),
        incident_key.c.value == bindparam("value"),
        incident_table.c.state.not_in(_ENDED),
    )
    .order_by(incident_table.c.last_seen.desc(), incident_table.c.id)
    .limit(MAX_CANDIDATES)
)
_SAVE = update(incident_table).where(
    incident_table.c.id == bindparam("saved_id"), incident_table.c.revision == bindparam("read_revision")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FactRecord:
    """One statement of a fact; a later one of the same name corrects it."""

    name: str
    value: str
    source: str
    at_utc: datetime


class IncidentTable:
    """Incidents inside one open transaction. Raises: StoreError where a change does not fit what is stored."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._keys_at: dict[tuple[str, int], frozenset[tuple[str, str]]] = {}
        """Keys by incident and revision, as read or written in this transaction: spares a query per match."""

    def next_id(self, year: int) -> str:
        """The next free id of a year, INC-2026-000001 and up. Gaps appear only where a transaction was rolled back."""
        self._ensure(incident_number, {"year": year, "last": 0})
        counted = update(incident_number).where(incident_number.c.year == year).values(last=incident_number.c.last + 1)
        self._connection.execute(counted)
        last = self._connection.scalar(select(incident_number.c.last).where(incident_number.c.year == year))
        return f"INC-{year:04d}-{last:06d}"

    def insert(self, incident: Incident) -> None:
        """Store a new incident. Raises: StoreError (the id is taken)."""
        if not insert_ignoring(self._connection, incident_table, _columns(incident)):
            raise StoreError("an incident with this id exists", source=incident.id)
        self._add_keys(incident.id, incident.keys)

    def save(self, incident: Incident) -> Incident:
        """Store a change of an incident read at `incident.revision`; returns it with its new revision.

        Raises: StoreError (somebody changed it since, or it is not there).
        """
        saved = replace(incident, revision=incident.revision + 1)
        version = {"saved_id": incident.id, "read_revision": incident.revision}
        if self._connection.execute(_SAVE, {**_columns(saved), **version}).rowcount != 1:
            raise StoreError(
                f"the incident is not at revision {incident.revision} any more",
                source=incident.id,
                hint="somebody changed it meanwhile: read it again and repeat",
            )
        known = self._keys_at.pop((incident.id, incident.revision), None)
        if known is None:
            known = self._keys([incident.id]).get(incident.id, frozenset())
        if known != incident.keys:
            self._add_keys(incident.id, incident.keys - known)
            self._drop_keys(incident.id, known - incident.keys)
        self._keys_at[incident.id, saved.revision] = incident.keys
        return saved

    def get(self, incident_id: str) -> Incident | None:
        """One incident, or None."""
        row = self._connection.execute(_BY_ID, {"wanted": incident_id}).one_or_none()
        return None if row is None else self._incidents([row])[0]

    def open_with_keys(self, keys: Iterable[tuple[str, str]]) -> builtins.list[Incident]:
        """Incidents, not closed or dismissed, that have any of these (field, value) pairs; at most MAX_CANDIDATES."""
        found: dict[str, Row[Any]] = {}
        for field, value in dict.fromkeys(keys):
            rows = self._connection.execute(_OPEN_WITH_KEY, {"field": field, "value": value})
            found.update((row.id, row) for row in rows)
        newest = sorted(found.values(), key=lambda row: row.last_seen, reverse=True)
        return self._incidents(newest[:MAX_CANDIDATES])

    def list(self, states: Collection[IncidentState] | None = None, limit: int = 1_000) -> builtins.list[Incident]:
        """Incidents, newest first; `states` None means all."""
        query = select(incident_table).order_by(incident_table.c.opened_at.desc(), incident_table.c.id.desc())
        if states is not None:
            query = query.where(incident_table.c.state.in_([str(state) for state in states]))
        return self._incidents(self._connection.execute(query.limit(limit)))

    def revisions(self, states: Collection[IncidentState]) -> dict[str, int]:
        """Id to revision of every incident in these states: what a reader compares to see who changed."""
        query = select(incident_table.c.id, incident_table.c.revision)
        query = query.where(incident_table.c.state.in_([str(state) for state in states]))
        return {row.id: row.revision for row in self._connection.execute(query)}

    def add_match(self, incident_id: str, match: Match) -> bool:
        """Keep the evidence; False if this match is kept already, with this or another incident."""
        values = {"match_id": match.id, "incident_id": incident_id, "at": match.event.at_utc}
        return insert_ignoring(self._connection, incident_match, {**values, "body": match_to_json(match)})

    def incident_of_match(self, match_id: str) -> str | None:
        """The id of the incident that holds a match, or None: ask before absorbing, so a repeat counts once."""
        return self._connection.scalar(_INCIDENT_OF_MATCH, {"wanted": match_id})

    def matches(self, incident_id: str, limit: int = 10_000) -> builtins.list[Match]:
        """The evidence in event time; of more than `limit` the newest."""
        query = (
            select(incident_match.c.body)
            .where(incident_match.c.incident_id == incident_id)
            .order_by(incident_match.c.at.desc(), incident_match.c.match_id.desc())
            .limit(limit)
        )
        return [match_from_json(body) for body in self._connection.scalars(query)][::-1]

    def add_change(self, change: StateChange) -> None:
        """Append to the history."""
        self._connection.execute(
            insert(incident_event).values(
                incident_id=change.incident_id,
                at=change.at_utc,
                actor=change.actor,
                kind=change.kind,
                reason=change.reason,
                before=change.before,
                after=change.after,
            )
        )

    def changes(self, incident_id: str) -> builtins.list[StateChange]:
        """The history, oldest first."""
        query = select(incident_event).where(incident_event.c.incident_id == incident_id).order_by(incident_event.c.seq)
        return [
            StateChange(
                incident_id=row.incident_id,
                at_utc=row.at,
                actor=row.actor,
                kind=row.kind,
                reason=row.reason,
                before=row.before,
                after=row.after,
            )
            for row in self._connection.execute(query)
        ]

    def set_fact(self, incident_id: str, name: str, value: str, source: str, at: datetime) -> None:
        """State a fact; what was stated before stays on record."""
        self._connection.execute(
            insert(incident_fact).values(incident_id=incident_id, name=name, value=value, source=source, at=at)
        )

    def facts(self, incident_id: str) -> dict[str, str]:
        """Name to the latest value."""
        return {fact.name: fact.value for fact in self.fact_history(incident_id)}

    def fact_history(self, incident_id: str) -> builtins.list[FactRecord]:
        """Every statement of every fact, oldest first."""
        query = select(incident_fact).where(incident_fact.c.incident_id == incident_id).order_by(incident_fact.c.seq)
        return [
            FactRecord(name=row.name, value=row.value, source=row.source, at_utc=row.at)
            for row in self._connection.execute(query)
        ]

    def signal_cursor(self, reader: str) -> int:
        """The last signal that `reader` has taken in; 0 at first."""
        seq = self._connection.scalar(select(signal_cursor.c.seq).where(signal_cursor.c.reader == reader))
        return seq or 0

    def set_signal_cursor(self, reader: str, seq: int) -> None:
        """Remember how far `reader` has come."""
        values = {"reader": reader, "seq": seq}
        insert_or_update(self._connection, signal_cursor, values, key=["reader"], update=["seq"])

    def _ensure(self, table: Table, values: Mapping[str, Any]) -> None:
        insert_ignoring(self._connection, table, values)

    def _add_keys(self, incident_id: str, keys: Iterable[tuple[str, str]]) -> None:
        rows = [{"field": field, "value": value, "incident_id": incident_id} for field, value in sorted(keys)]
        if rows:
            self._connection.execute(insert(incident_key), rows)

    def _drop_keys(self, incident_id: str, keys: Iterable[tuple[str, str]]) -> None:
        for field, value in keys:
            here = (incident_key.c.field == field) & (incident_key.c.value == value)
            self._connection.execute(delete(incident_key).where(incident_key.c.incident_id == incident_id, here))

    def _keys(self, incident_ids: Collection[str]) -> dict[str, frozenset[tuple[str, str]]]:
        found: dict[str, set[tuple[str, str]]] = {}
        ids = builtins.list(incident_ids)
        for start in range(0, len(ids), IDS_PER_QUERY):
            for row in self._connection.execute(_KEYS_OF, {"wanted": ids[start : start + IDS_PER_QUERY]}):
                found.setdefault(row.incident_id, set()).add((row.field, row.value))
        return {incident_id: frozenset(keys) for incident_id, keys in found.items()}

    def _incidents(self, rows: Iterable[Row[Any]]) -> builtins.list[Incident]:
        kept = builtins.list(rows)
        unread = [row.id for row in kept if (row.id, row.revision) not in self._keys_at]
        read = self._keys(unread)
        for row in kept:
            if row.id in read or (row.id, row.revision) not in self._keys_at:
                self._keys_at[row.id, row.revision] = read.get(row.id, frozenset())
        return [_incident(row, self._keys_at[row.id, row.revision]) for row in kept]


def _columns(incident: Incident) -> dict[str, Any]:
    return {
        "id": incident.id,
        "title": incident.title,
        "severity": str(incident.severity),
        "state": str(incident.state),
        "opened_at": incident.opened_at,
        "first_seen": incident.first_seen,
        "last_seen": incident.last_seen,
        "count": incident.count,
        "rules": list(incident.rules),
        "entities": {name: list(values) for name, values in incident.entities.items()},
        "acknowledged_at": incident.acknowledged_at,
        "confirmed_at": incident.confirmed_at,
        "contained_at": incident.contained_at,
        "notified_at": incident.notified_at,
        "closed_at": incident.closed_at,
        "reopened": incident.reopened,
        "revision": incident.revision,
    }


def _incident(row: Row[Any], keys: frozenset[tuple[str, str]]) -> Incident:
    try:
        severity, state = Severity(row.severity), IncidentState(row.state)
    except ValueError as error:
        raise RowError("a stored incident is damaged or newer than this program", source=row.id) from error
    return Incident(
        id=row.id,
        title=row.title,
        severity=severity,
        state=state,
        opened_at=row.opened_at,
        first_seen=row.first_seen,
        last_seen=row.last_seen,
        count=row._mapping["count"],  # noqa: SLF001  # SQLAlchemy's public name; `count` is a method of a row
        rules=tuple(row.rules),
        keys=keys,
        entities={name: tuple(values) for name, values in row.entities.items()},
        acknowledged_at=row.acknowledged_at,
        confirmed_at=row.confirmed_at,
        contained_at=row.contained_at,
        notified_at=row.notified_at,
        closed_at=row.closed_at,
        reopened=row.reopened,
        revision=row.revision,
    )
