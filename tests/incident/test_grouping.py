from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from breachwatch.incident.grouping import (
    ENTITY_FIELDS,
    MAX_ENTITY_VALUES,
    MAX_KEYS,
    MAX_RULES,
    MAX_VALUE_CHARS,
    OVERFLOW,
    IncidentBook,
    _Growing,
    absorb,
    bounded,
    match_keys,
    open_incident,
    place,
)
from breachwatch.model import FieldValue, Incident, IncidentState, Level, Match, Window
from tests.incident.samples import START, a_match


def opened(match: Match | None = None, name: str = "INC-1") -> Incident:
    return open_incident(match or a_match(), incident_id=name, now=START)


def test_a_match_with_a_shared_value_joins():
    incident = opened()
    assert place(a_match("m2", after_s=60), [incident]) == incident


def test_a_match_of_another_address_does_not_join():
    assert place(a_match("m2", fields={"source.ip": "203.0.113.8"}), [opened()]) is None


def test_the_same_value_in_another_field_does_not_join():
    other = a_match("m2", fields={"destination.ip": "203.0.113.7"}, group_by=("destination.ip",))
    assert place(other, [opened()]) is None


def test_any_one_shared_value_is_enough():
    match = a_match(
        "m2", fields={"source.ip": "198.51.100.1", "user.name": "root"}, group_by=("source.ip", "user.name")
    )
    incident = opened(a_match(group_by=("source.ip", "user.name")))
    assert place(match, [incident]) == incident


def test_a_rule_without_group_by_joins_nothing_and_opens_its_own():
    match = a_match("m2", group_by=())
    assert match_keys(match) == ()
    assert place(match, [opened()]) is None
    assert len(IncidentBook().incidents()) == 0
    book = IncidentBook()
    assert book.add(match)
    assert book.add(a_match("m3", group_by=()))
    assert len(book.incidents()) == 2


_values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=300),
    st.lists(st.one_of(st.text(max_size=3), st.integers(0, 3), st.floats()), max_size=30),
)  # fmt: skip


@given(st.dictionaries(st.sampled_from((*ENTITY_FIELDS, "other")), _values), st.booleans())
def test_an_incident_that_nothing_can_join_is_what_growing_would_have_made_of_it(fields, in_window):
    match = a_match(fields=fields, group_by=(), window_s=60 if in_window else None)
    grown = _Growing.opened(match, (), incident_id="INC-1", now=START).incident()
    assert open_incident(match, incident_id="INC-1", now=START) == grown


@pytest.mark.parametrize(("after_s", "joins"), [(3_600, True), (3_600.001, False), (-3_600, True), (-3_601, False)])
def test_the_distance_in_event_time_decides_in_both_directions(after_s, joins):
    assert (place(a_match("m2", after_s=after_s), [opened()]) is not None) == joins


def test_a_window_reaches_back_to_its_first_event():
    match = a_match("m2", after_s=5_000, window_s=2_000)
    assert place(match, [opened()]) is not None
    assert place(a_match("m3", after_s=5_000), [opened()]) is None


@pytest.mark.parametrize("state", list(IncidentState))
def test_only_closed_and_dismissed_incidents_take_no_more(state):
    incident = replace(opened(), state=state)
    is_over = state in {IncidentState.CLOSED, IncidentState.DISMISSED}
    assert (place(a_match("m2"), [incident]) is None) == is_over


def test_the_oldest_of_several_incidents_is_joined_whatever_the_order():
    older, newer = opened(name="INC-1"), replace(opened(name="INC-2"), opened_at=START + timedelta(seconds=1))
    for candidates in ([older, newer], [newer, older]):
        assert place(a_match("m2"), candidates) == older


def test_the_group_of_a_correlation_counts_before_the_field_of_its_last_event():
    match = a_match("m2", group={"source.ip": "198.51.100.9"}, window_s=10)
    assert match_keys(match) == (("source.ip", "198.51.100.9"),)


@pytest.mark.parametrize(
    ("value", "keys"),
    [
        ("", 0),
        (None, 0),
        (True, 0),
        (1.5, 0),
        ({"a": "b"}, 0),
        (["a", "b", ["c"]], 2),
        (["a", "a"], 1),
        (22, 1),
        ([str(n) for n in range(500)], 20),
    ],
)
def test_only_names_join(value: FieldValue, keys):
    assert len(match_keys(a_match(fields={"source.ip": value}))) == keys


def test_a_correlation_counts_its_events_and_begins_with_the_first():
    incident = opened(a_match(after_s=100, window_s=60, count=6))
    assert (incident.count, incident.first_seen) == (6, START + timedelta(seconds=40))
    grown = absorb(incident, a_match("m2", after_s=200))
    assert (grown.count, grown.last_seen) == (7, START + timedelta(seconds=200))


def test_a_window_without_events_counts_as_one():
    assert opened(a_match(window_s=60, count=0)).count == 1


def test_the_title_is_that_of_the_first_of_the_severest_rules():
    incident = opened()
    worse = absorb(incident, a_match("m2", level=Level.CRITICAL, rule="login.after.guessing"))
    assert worse.title == "Title of login.after.guessing"
    assert absorb(worse, a_match("m3", level=Level.CRITICAL, rule="other")).title == worse.title
    assert absorb(worse, a_match("m4", level=Level.LOW)).severity is Level.CRITICAL


def test_entities_are_distinct_in_the_order_seen_and_bounded():
    incident = opened(a_match(fields={"source.ip": "203.0.113.7", "user.name": "u0"}))
    for number in range(MAX_ENTITY_VALUES + 20):
        incident = absorb(incident, a_match(f"m{number}", fields={"user.name": f"u{number % 250}"}))
    names = incident.entities["user.name"]
    assert names[:3] == ("u0", "u1", "u2")
    assert len(names) == MAX_ENTITY_VALUES + 1
    assert names[-1] == OVERFLOW
    assert incident.entities["file.path"] == ()


def test_a_user_whose_name_says_that_there_are_more_hides_nobody():
    incident = opened(a_match(fields={"source.ip": "203.0.113.7", "user.name": OVERFLOW}))
    incident = absorb(incident, a_match("m1", fields={"user.name": "mallory"}))
    assert incident.entities["user.name"] == (OVERFLOW, "mallory")


def test_rules_and_keys_are_bounded():
    incident = opened(a_match(group_by=("source.ip",)))
    for number in range(max(MAX_KEYS, MAX_RULES) + 5):
        incident = absorb(incident, a_match(f"m{number}", fields={"source.ip": f"k{number}"}, rule=f"r{number}"))
    assert len(incident.keys) == MAX_KEYS
    assert len(incident.rules) == MAX_RULES
    assert incident.count == max(MAX_KEYS, MAX_RULES) + 6


@given(st.text(alphabet=st.characters(), max_size=2_000))
def test_hostile_values_become_short_and_printable(value):
    text = bounded(value)
    assert len(text) <= MAX_VALUE_CHARS
    assert text.isprintable()
    text.encode("utf-8")


def test_long_values_stay_distinct_and_short_ones_as_they_are():
    assert bounded("a" * 5_000 + "b") != bounded("a" * 5_000 + "c")
    assert bounded("/srv/khách hàng/tệp.php") == "/srv/khách hàng/tệp.php"
    assert bounded("a\0b\nc\x1b[2J\u202e\ud800") == "a\\x00b\\x0ac\\x1b[2J\\u202e\\ud800"


def test_a_rule_that_may_not_open_only_adds():
    book = IncidentBook()
    assert not book.add(a_match("quiet", opens=False))
    assert book.incidents() == []
    book.add(a_match("loud", after_s=10))
    assert book.add(a_match("quiet", after_s=20, opens=False))
    assert book.incidents()[0].count == 2


def test_a_match_seen_twice_counts_once():
    book = IncidentBook()
    book.add(a_match())
    assert not book.add(a_match())
    assert book.incidents()[0].count == 1


def test_matches_that_never_come_twice_are_not_remembered_and_make_the_same_incidents():
    plain, distinct = IncidentBook(), IncidentBook(is_distinct=True)
    matches = [
        a_match(f"m{number}", after_s=number, fields={"source.ip": f"203.0.113.{number % 7}"}) for number in range(50)
    ]
    for match in matches:
        assert plain.add(match) == distinct.add(match)
    assert plain.incidents() == distinct.incidents()
    assert len(plain._seen) == 50
    assert not distinct._seen
    window = Window(first=matches[0].event.at_utc, last=matches[0].event.at_utc, count=5)
    firing = replace(matches[0], id="w", window=window)
    assert distinct.add(firing)
    assert not distinct.add(firing)


def test_ids_of_a_scan_come_from_content():
    first, second = IncidentBook(), IncidentBook()
    first.add(a_match())
    second.add(a_match("unrelated", fields={"source.ip": "198.51.100.1"}))
    second.add(a_match())
    assert {incident.id for incident in first.incidents()} < {incident.id for incident in second.incidents()}


def test_a_key_with_many_incidents_stays_quick_and_each_is_kept():
    book = IncidentBook()
    for number in range(300):
        book.add(a_match(f"m{number}", after_s=number * 10, within_s=1))
    assert len(book.incidents()) == 300
    assert [incident.first_seen for incident in book.incidents()] == sorted(
        incident.first_seen for incident in book.incidents()
    )


_matches = st.lists(
    st.builds(
        lambda after, level, user, rule: (after, level, user, rule),
        st.integers(min_value=0, max_value=600),
        st.sampled_from(list(Level)),
        st.sampled_from(["root", "admin", "web"]),
        st.sampled_from(["r1", "r2", "r3"]),
    ),
    min_size=1,
    max_size=12,
)


@given(parts=_matches, data=st.data())
def test_in_what_order_the_matches_of_one_incident_come_changes_nothing_that_counts(parts, data):
    matches = [
        a_match(f"m{n}", after_s=after, level=level, fields={"source.ip": "203.0.113.7", "user.name": user}, rule=rule)
        for n, (after, level, user, rule) in enumerate(parts)
    ]
    shuffled = data.draw(st.permutations(matches))
    one, other = IncidentBook(), IncidentBook()
    for match in matches:
        one.add(match)
    for match in shuffled:
        other.add(match)
    (first,), (second,) = one.incidents(), other.incidents()
    assert (first.count, first.severity, first.first_seen, first.last_seen, first.keys) == (
        second.count,
        second.severity,
        second.first_seen,
        second.last_seen,
        second.keys,
    )
    assert set(first.rules) == set(second.rules)
    assert {name: set(values) for name, values in first.entities.items()} == {
        name: set(values) for name, values in second.entities.items()
    }


@given(
    st.lists(
        st.tuples(
            st.integers(0, 20_000),
            st.sampled_from("abc"),
            st.sampled_from("xyz"),
            st.booleans(),
        ),
        max_size=40,
    )
)
def test_every_match_that_may_open_is_counted_exactly_once(parts):
    book = IncidentBook()
    expected = 0
    for number, (after, address, user, opens) in enumerate(parts):
        found = book.add(
            a_match(
                f"m{number}",
                after_s=after,
                fields={"source.ip": address, "user.name": user},
                group_by=("source.ip", "user.name"),
                opens=opens,
            )
        )
        assert found or not opens
        expected += found
    assert sum(incident.count for incident in book.incidents()) == expected


_names: st.SearchStrategy[FieldValue] = st.sampled_from(
    ["a", "b", "c", "", None, 7, True, 1.5, OVERFLOW, "x" * 300, "x\n", ["a", "d", ["b"]], {"a": "b"}]
)
_any_match = st.builds(
    a_match,
    st.integers(0, 30).map("m{}".format),
    after_s=st.integers(0, 9_000),
    fields=st.dictionaries(st.sampled_from(["source.ip", "user.name", "file.path", "other"]), _names),
    group_by=st.sampled_from([(), ("source.ip",), ("source.ip", "user.name"), ("other", "other", "file.path")]),
    level=st.sampled_from(list(Level)),
    rule=st.sampled_from(["r1", "r2", "r3"]),
    opens=st.booleans(),
    within_s=st.sampled_from([-1, 0, 60, 1_000, 3_600]),
    group=st.dictionaries(st.sampled_from(["source.ip", "host.name"]), st.sampled_from(["a", "c", ""]), max_size=1),
    window_s=st.none() | st.integers(0, 2_000),
    count=st.integers(0, 9),
)


_usual_match = st.builds(
    a_match,
    st.integers(0, 99).map("n{}".format),
    after_s=st.sampled_from([0, 70, 1_100]),
    fields=st.fixed_dictionaries(
        {"source.ip": st.sampled_from("aab"), "user.name": st.sampled_from(["x", "x", "y", 1, True, "1"])},
        optional={name: st.sampled_from("pq") for name in ("other", "file.path", "host.name")},
    ),
    group_by=st.sampled_from([("source.ip",), ("user.name",), ("source.ip", "user.name"), ("other", "source.ip")]),
    level=st.sampled_from(list(Level)),
    rule=st.sampled_from(["r1", "r2", "r3"]),
    within_s=st.sampled_from([-1, 60, 3_600]),
    group=st.sampled_from([{}, {}, {"user.name": "z"}]),
    window_s=st.sampled_from([None, None, None, 2_000]),
)
_events = st.lists(st.lists(_usual_match, min_size=1, max_size=4), max_size=12)


def _alike(*fields: Mapping[str, FieldValue], group_by: tuple[str, ...] = ("source.ip",)) -> list[list[Match]]:
    return [
        [a_match(f"m{number}", fields={"source.ip": "a", **more}, group_by=group_by)]
        for number, more in enumerate(fields)
    ]


def _near(*after_s: float) -> list[list[Match]]:
    return [[a_match(f"m{number}", after_s=after, within_s=60)] for number, after in enumerate(after_s)]


@example([[a_match("m1", within_s=-1), a_match("m2", within_s=-1)]])
@example([[a_match("m1", group={"source.ip": "a"}, window_s=5), a_match("m2", rule="r2")]])
@example([[a_match("m1")], [a_match("m2", window_s=600)], [a_match("m3", group={"source.ip": "b"})]])
@example(_near(1_000, 930, 965))
@example(_near(930, 1_000, 965))
@example(_alike({"user.name": True}, {"user.name": 1}))
@example(_alike({}, {"file.path": "/etc/passwd"}))
@example(_alike({}, {"host.name": "web"}))
@example(_alike({"other": "p"}, {"other": "q"}, group_by=("other", "source.ip")))
@settings(max_examples=300)
@given(_events | st.lists(_any_match, max_size=40).map(lambda matches: [[match] for match in matches]))
def test_a_book_finds_what_the_functions_of_the_hub_find(events):
    matches = [replace(match, event=of_event[0].event) for of_event in events for match in of_event]
    book = IncidentBook()
    incidents: dict[str, Incident] = {}
    seen: set[str] = set()
    for match in matches:
        joined = place(match, list(incidents.values()))
        is_new = match.id not in seen and (joined is not None or match.rule.opens_incident)
        assert book.add(match) == is_new
        if not is_new:
            continue
        seen.add(match.id)
        if joined is not None:
            incidents[joined.id] = absorb(joined, match)
        else:
            (name,) = {incident.id for incident in book.incidents()} - set(incidents)
            last = match.event.at_utc if match.window is None else max(match.window.last, match.event.at_utc)
            incidents[name] = open_incident(match, incident_id=name, now=last)
        assert {incident.id: incident for incident in book.incidents()} == incidents
    whole = IncidentBook()
    assert whole.add_all(matches) == len(seen)
    assert whole.incidents() == book.incidents()


_BY_USER = a_match(fields={"source.ip": "b", "user.name": "x"}, group_by=("user.name",))
_BY_BOTH = [a_match(fields={"source.ip": "a", "user.name": "x"}), a_match(group_by=("user.name",))]


@example([[a_match(fields={"source.ip": "a"})], [_BY_USER], _BY_BOTH, _BY_BOTH])
@example([[a_match()], [a_match(), a_match(within_s=-1)], [a_match(), a_match(within_s=-1)]])
@settings(max_examples=300)
@given(_events)
def test_matches_that_come_together_are_grouped_as_one_by_one(events):
    matches = [replace(match, event=of_event[0].event) for of_event in events for match in of_event]
    matches = [replace(match, id=f"{number:032x}") for number, match in enumerate(matches)]
    one_by_one, together = IncidentBook(), IncidentBook(is_distinct=True)
    assert sum(map(one_by_one.add, matches)) == together.add_all(matches)
    assert together.incidents() == one_by_one.incidents()
