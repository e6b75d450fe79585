from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from sqlalchemy import Connection, Engine, text

from breachwatch.errors import StoreError
from breachwatch.incident import grouping
from breachwatch.model import Event, FieldValue, Incident, IncidentState, Level, LogSource, Match, RuleRef, StateChange
from breachwatch.model import Window as CountWindow
from breachwatch.store.database import metadata, open_database, store_errors
from breachwatch.store.incidents import MAX_CANDIDATES, TABLES, IncidentTable
from breachwatch.store.match_json import match_from_json, match_to_json

START = datetime(2026, 1, 5, 8, 0, 0, 123_456, tzinfo=UTC)


def an_incident(incident_id: str = "INC-2026-000001", **changes) -> Incident:
    incident = Incident(
        id=incident_id,
        title="Web shell, sau đăng nhập",
        severity=Level.HIGH,
        opened_at=START,
        first_seen=START - timedelta(minutes=5),
        last_seen=START,
        count=3,
        rules=("r1", "r2"),
        keys=frozenset({("source.ip", "203.0.113.7"), ("user.name", "root")}),
        entities={"source.ip": ("203.0.113.7",), "user.name": ("root", "lê"), "host.name": (), "file.path": ()},
    )
    return replace(incident, **changes)


def a_match(name: str = "m1", *, at: datetime = START, fields: dict[str, FieldValue] | None = None) -> Match:
    event = Event(
        id="e1", at_utc=at, logsource=LogSource("linux", "", "sshd"), fields=fields or {"source.ip": "203.0.113.7"}
    )
    rule = RuleRef(id="r1", title="Rule", level=Level.HIGH, tags=("attack.t1110",), group_by=("source.ip",))
    return Match(
        id=name, rule=rule, event=event, window=CountWindow(first=at, last=at, count=4), event_ids=("e0", "e1")
    )


def test_an_incident_comes_back_as_it_was_stored(connection: Connection):
    table = IncidentTable(connection)
    plain = an_incident()
    full = an_incident(
        "INC-2026-000002",
        state=IncidentState.CLOSED,
        acknowledged_at=START,
        confirmed_at=START + timedelta(hours=1),
        contained_at=START + timedelta(hours=2),
        notified_at=START + timedelta(hours=3),
        closed_at=START + timedelta(hours=4),
        reopened=2,
        count=2**40,
    )
    table.insert(plain)
    table.insert(full)
    assert table.get(plain.id) == plain
    assert table.get(full.id) == full
    assert table.get("INC-2026-999999") is None


def test_an_id_is_given_once(connection: Connection):
    table = IncidentTable(connection)
    table.insert(an_incident())
    with pytest.raises(StoreError, match="exists"):
        table.insert(an_incident())


def test_ids_count_up_by_year(connection: Connection):
    table = IncidentTable(connection)
    assert [table.next_id(2026) for _ in range(3)] == ["INC-2026-000001", "INC-2026-000002", "INC-2026-000003"]
    assert table.next_id(2027) == "INC-2027-000001"


def test_a_rolled_back_id_is_not_used_up_twice_at_once(hub_engine: Engine):
    given: list[str] = []

    def take() -> None:
        for _ in range(5):
            with hub_engine.begin() as connection:
                given.append(IncidentTable(connection).next_id(2026))

    threads = [threading.Thread(target=take) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(given)) == 15


def test_a_save_needs_the_revision_that_was_read(connection: Connection):
    table = IncidentTable(connection)
    table.insert(an_incident())
    read = table.get("INC-2026-000001")
    assert read is not None
    saved = table.save(replace(read, count=4, state=IncidentState.ACKNOWLEDGED, acknowledged_at=START))
    assert saved.revision == 1
    assert table.get(read.id) == saved
    with pytest.raises(StoreError, match="revision 0"):
        table.save(replace(read, count=9))
    with pytest.raises(StoreError, match="INC-2026-000009"):
        table.save(an_incident("INC-2026-000009"))
    assert table.get(read.id) == saved


def test_keys_follow_the_incident(connection: Connection):
    table = IncidentTable(connection)
    table.insert(an_incident())
    table.save(an_incident(keys=frozenset({("user.name", "root"), ("file.path", "/srv/a.php")})))
    assert table.open_with_keys([("source.ip", "203.0.113.7")]) == []
    assert [found.id for found in table.open_with_keys([("file.path", "/srv/a.php")])] == ["INC-2026-000001"]


def test_only_open_incidents_are_found_by_any_of_many_keys(connection: Connection):
    table = IncidentTable(connection)
    for number, state in enumerate(IncidentState):
        table.insert(an_incident(f"INC-{number}", state=state, keys=frozenset({("user.name", f"u{number}")})))
    keys = [("user.name", f"u{number}") for number in range(1_000)]
    found = {incident.state for incident in table.open_with_keys(keys)}
    assert found == set(IncidentState) - {IncidentState.CLOSED, IncidentState.DISMISSED}
    assert table.open_with_keys([]) == []
    assert table.open_with_keys([("source.ip", "u1")]) == []


def test_a_hostile_key_brings_only_the_newest_candidates(connection: Connection):
    assert MAX_CANDIDATES == grouping.MAX_CANDIDATES
    table = IncidentTable(connection)
    for number in range(MAX_CANDIDATES + 6):
        table.insert(an_incident(f"INC-{number:03}", last_seen=START + timedelta(seconds=number)))
    found = table.open_with_keys([("user.name", "root"), ("source.ip", "203.0.113.7")])
    assert len(found) == MAX_CANDIDATES
    assert min(incident.last_seen for incident in found) == START + timedelta(seconds=6)


def test_lists_are_newest_first_and_limited(connection: Connection):
    table = IncidentTable(connection)
    for number in range(5):
        state = IncidentState.OPEN if number % 2 else IncidentState.DISMISSED
        table.insert(an_incident(f"INC-{number}", opened_at=START + timedelta(days=number), state=state))
    assert [found.id for found in table.list()] == ["INC-4", "INC-3", "INC-2", "INC-1", "INC-0"]
    assert [found.id for found in table.list(states=[IncidentState.OPEN], limit=1)] == ["INC-3"]
    assert table.list(states=[]) == []


def test_a_match_is_kept_once_in_one_incident(connection: Connection):
    table = IncidentTable(connection)
    table.insert(an_incident())
    table.insert(an_incident("INC-2"))
    assert table.incident_of_match("m1") is None
    assert table.add_match("INC-2026-000001", a_match())
    assert not table.add_match("INC-2026-000001", a_match())
    assert not table.add_match("INC-2", a_match())
    assert table.incident_of_match("m1") == "INC-2026-000001"
    assert table.matches("INC-2026-000001") == [a_match()]
    assert table.matches("INC-2") == []


def test_evidence_comes_in_event_time_and_of_too_much_the_newest(connection: Connection):
    table = IncidentTable(connection)
    table.insert(an_incident())
    for number in (3, 1, 2, 0):
        table.add_match("INC-2026-000001", a_match(f"m{number}", at=START + timedelta(seconds=number)))
    assert [match.id for match in table.matches("INC-2026-000001")] == ["m0", "m1", "m2", "m3"]
    assert [match.id for match in table.matches("INC-2026-000001", limit=2)] == ["m2", "m3"]


def test_history_and_facts_are_appended_never_replaced(connection: Connection):
    table = IncidentTable(connection)
    table.insert(an_incident())
    changes = [
        StateChange(incident_id="INC-2026-000001", at_utc=START, actor="usr:lan", kind="note", reason=f"số {number}")
        for number in range(3)
    ]
    for change in changes:
        table.add_change(change)
    assert table.changes("INC-2026-000001") == changes
    for value in ("name", "name, phone"):
        table.set_fact("INC-2026-000001", "data.categories", value, source="usr:lan", at=START)
    assert table.facts("INC-2026-000001") == {"data.categories": "name, phone"}
    assert [fact.value for fact in table.fact_history("INC-2026-000001")] == ["name", "name, phone"]
    assert table.facts("INC-2") == {}


def test_nothing_can_belong_to_an_incident_that_is_not_there(connection: Connection):
    with pytest.raises(StoreError), store_errors("a fact"), connection.begin_nested():
        IncidentTable(connection).set_fact("INC-0", "a", "b", source="usr:lan", at=START)


def test_each_reader_has_its_own_cursor(connection: Connection):
    table = IncidentTable(connection)
    assert table.signal_cursor("hub") == 0
    table.set_signal_cursor("hub", 7)
    table.set_signal_cursor("fleet", 2**40)
    table.set_signal_cursor("hub", 9)
    assert (table.signal_cursor("hub"), table.signal_cursor("fleet")) == (9, 2**40)


def test_what_databases_refuse_is_stored_visibly(connection: Connection):
    table = IncidentTable(connection)
    hostile = "a\0b\ud800c"
    table.insert(
        an_incident(
            title=hostile,
            keys=frozenset({("user.name", hostile)}),
            entities={"user.name": (hostile,)},
            rules=(hostile,),
        )
    )
    table.add_change(
        StateChange(incident_id="INC-2026-000001", at_utc=START, actor=hostile, kind="note", reason=hostile)
    )
    table.set_fact("INC-2026-000001", hostile, hostile, source=hostile, at=START)
    assert table.add_match("INC-2026-000001", a_match(hostile, fields={"user.name": hostile}))
    stored = table.get("INC-2026-000001")
    assert stored is not None
    assert stored.title == "a\\x00b\\ud800c"
    assert stored.entities["user.name"] == (hostile,)
    assert len(table.open_with_keys([("user.name", hostile)])) == 1
    assert table.facts("INC-2026-000001") == {"a\\x00b\\ud800c": "a\\x00b\\ud800c"}
    assert table.matches("INC-2026-000001")[0].event.fields["user.name"] == "a\0b?c"


def test_times_are_exact_in_any_zone_and_never_without_one(connection: Connection):
    table = IncidentTable(connection)
    local = START.astimezone(timezone(timedelta(hours=7)))
    table.insert(an_incident(opened_at=local, first_seen=datetime(1, 1, 1, tzinfo=UTC)))
    stored = table.get("INC-2026-000001")
    assert stored is not None
    assert stored.opened_at == START
    assert stored.opened_at.utcoffset() == timedelta(0)
    assert stored.first_seen == datetime(1, 1, 1, tzinfo=UTC)
    with pytest.raises(StoreError, match="zone"):
        table.insert(an_incident("INC-2", opened_at=START.replace(tzinfo=None)))


@pytest.mark.parametrize("column", ["severity", "state", "rules"])
def test_a_damaged_row_is_an_error_and_not_a_guess(connection: Connection, column):
    table = IncidentTable(connection)
    table.insert(an_incident())
    connection.execute(text(f"UPDATE incident SET {column} = 'unheard of'"))
    with pytest.raises(StoreError, match="damaged"):
        table.get("INC-2026-000001")


def test_a_rolled_back_transaction_leaves_nothing(hub_engine: Engine):
    def half() -> None:
        with hub_engine.begin() as connection:
            table = IncidentTable(connection)
            table.insert(an_incident())
            table.set_signal_cursor("hub", 5)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    with hub_engine.begin() as connection:
        assert IncidentTable(connection).list() == []
        assert IncidentTable(connection).signal_cursor("hub") == 0


def test_what_was_committed_survives_a_restart(tmp_path):
    url = f"sqlite:///{tmp_path / 'hub.sqlite'}"
    engine = open_database(url)
    metadata.create_all(engine, tables=list(TABLES))
    with engine.begin() as connection:
        IncidentTable(connection).insert(an_incident())
    engine.dispose()
    again = open_database(url)
    with again.begin() as connection:
        assert IncidentTable(connection).get("INC-2026-000001") == an_incident()
    again.dispose()


def test_the_hub_finds_the_incidents_that_a_scan_finds(connection: Connection):
    table, book = IncidentTable(connection), grouping.IncidentBook()
    for number in range(60):
        fields: dict[str, FieldValue] = {"source.ip": f"203.0.113.{number % 7}", "user.name": f"u{number}"}
        match = a_match(f"m{number}", at=START + timedelta(hours=number * 5), fields=fields)
        book.add(match)
        joined = grouping.place(match, table.open_with_keys(grouping.match_keys(match)))
        if joined is None:
            new_id = table.next_id(2026)
            table.insert(grouping.open_incident(match, incident_id=new_id, now=match.event.at_utc))
        else:
            table.save(grouping.absorb(joined, match))

    def told(found: Incident) -> tuple[object, ...]:
        return (found.first_seen, found.last_seen, found.count, found.keys, dict(found.entities), found.rules)

    assert sorted(map(told, table.list()), key=repr) == sorted(map(told, book.incidents()), key=repr)


_values: st.SearchStrategy[FieldValue] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), _values, max_size=5))
def test_a_match_survives_storing_whatever_its_fields_hold(fields):
    match = a_match(fields=fields)
    assert match_from_json(match_to_json(match)) == match


@pytest.mark.parametrize("body", ["", "{}", "[]", '{"id": 1}', "\x00"])
def test_a_damaged_match_is_an_error(body):
    with pytest.raises(StoreError, match="damaged"):
        match_from_json(body)
    assert json.loads(match_to_json(a_match()))["id"] == "m1"
