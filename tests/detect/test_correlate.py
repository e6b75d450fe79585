"""Correlations beside a brute-force oracle that looks at every window, in whatever order events arrive."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from breachwatch.detect import correlate
from breachwatch.detect.engine import Detector
from breachwatch.model import Event, LogSource
from tests.detect.sigma import loaded, refusals

START = datetime(2026, 2, 3, 4, 0, tzinfo=UTC)
SPAN_S = 60

BASE = """title: {name}
name: {name}
id: 5071392{number}-0000-4000-8000-00000000ba5e
logsource:
  product: linux
detection:
  s:
    action: {name}
  condition: s
"""


def rules_for(kind: str, condition: str):
    names = ("a", "b", "c") if kind.startswith("temporal") else ("a",)
    parts = [BASE.format(name=name, number=number) for number, name in enumerate(names)]
    parts.append(
        f"title: corr\nid: c0220000-0000-4000-8000-000000000000\ncorrelation:\n  type: {kind}\n"
        f"  rules: [{', '.join(names)}]\n  group-by: [src]\n  timespan: {SPAN_S}s\n{condition}level: high\n"
    )
    return loaded("---\n".join(parts))


def fired_groups(detector: Detector, events: list[Event]) -> set[str]:
    return {match.group["src"] for event in events for match in detector.feed(event) if match.window is not None}


def made(rows: list[tuple[int, str, str, int]]) -> list[Event]:
    """(second, action, src, value) as events with ids of their own."""
    numbers = count()
    return [
        Event(
            id=f"e{next(numbers)}",
            at_utc=START + timedelta(seconds=second),
            logsource=LogSource("linux"),
            fields={"action": action, "src": src, "v": value},
        )
        for second, action, src, value in rows
    ]


@given(cut=st.integers(0, 8), again=st.integers(0, 3))
def test_a_restart_neither_loses_nor_counts_twice(cut, again):
    rules = rules_for("event_count", "  condition:\n    gte: 8\n")
    events = made([(second, "a", "x", 0) for second in range(8)])
    before = Detector(rules)
    found = fired_groups(before, events[:cut])
    after = Detector(rules)
    after.restore(before.snapshot())
    found |= fired_groups(after, events[max(0, cut - again) : 7])
    assert found == (set() if cut < 8 else {"x"})
    assert fired_groups(after, events[7:]) | found == {"x"}


def test_a_range_holds_both_its_bounds():
    rules = rules_for("event_count", "  condition:\n    gt: 1\n    lte: 2\n")
    assert rules.correlations[0].bounds == (("gt", 1.0), ("lte", 2.0))
    events = made([(second, "a", "x", 0) for second in range(2)])
    assert fired_groups(Detector(rules), events[:1]) == set()
    assert fired_groups(Detector(rules), events) == {"x"}


def test_what_leaves_bounded_memory_is_counted(monkeypatch):
    monkeypatch.setattr(correlate, "MAX_GROUPS", 3)
    detector = Detector(rules_for("event_count", "  condition:\n    gte: 100\n"))
    fired_groups(detector, made([(0, "a", f"src{number}", 0) for number in range(5)]))
    assert detector.evictions == 2


def test_a_chain_of_correlations_fires_and_generates_only_what_it_must():
    text = (
        BASE.format(name="a", number=0)
        + "---\ntitle: many\nname: many\nid: c0220000-0000-4000-8000-000000000001\ncorrelation:\n"
        "  type: event_count\n  rules: [a]\n  group-by: [src]\n  timespan: 60s\n  condition:\n    gte: 2\n"
        "---\ntitle: waves\nid: c0220000-0000-4000-8000-000000000002\ncorrelation:\n"
        "  type: event_count\n  rules: [many]\n  group-by: [src]\n  timespan: 1h\n  condition:\n    gte: 2\n"
    )
    detector = Detector(loaded(text))
    events = made([(second, "a", "x", 0) for second in (0, 1, 500, 501)])
    assert [match.rule.title for event in events for match in detector.feed(event)] == ["waves"]


def test_one_forged_time_neither_pushes_out_the_others_nor_makes_them_late_for_ever():
    detector = Detector(rules_for("event_count", "  condition:\n    gte: 4\n"))
    years = [0, 74 * 31_557_600, -56 * 31_557_600]  # 2026, 2100, 1970
    rows = [(second + years[forged], "a", "x", 0) for second in range(4) for forged in (1, 0, 2)]
    found = [match for event in made(rows) for match in detector.feed(event) if match.window is not None]
    assert {match.event.at_utc.year for match in found} == {1970, 2026, 2100}
    assert detector.evictions == 0


def test_an_event_that_two_rules_match_counts_for_both_in_time_and_once_in_counts():
    both: dict[str, Any] = {"action": "ab", "src": "x", "v": 1}
    text = "---\n".join(
        BASE.format(name=name, number=number).replace("action: ", "action|contains: ")
        for number, name in enumerate("ab")
    )
    for kind, condition, fires in [
        ("temporal", "", True),
        ("temporal_ordered", "", True),
        ("event_count", "  condition:\n    gte: 2\n", False),
    ]:
        rule = (
            f"---\ntitle: c\nid: c0220000-0000-4000-8000-000000000000\ncorrelation:\n  type: {kind}\n"
            f"  rules: [a, b]\n  group-by: [src]\n  timespan: 60s\n{condition}"
        )
        event = Event(id="e", at_utc=START, logsource=LogSource("linux"), fields=both)
        assert bool(Detector(loaded(text + rule)).feed(event)) is fires


def held_by(detector: Detector) -> int:
    """Events that a detector's only correlation keeps."""
    (correlator,) = detector.correlators.values()
    return sum(len(group.events) for _, group in correlator.save().groups)


@pytest.mark.parametrize("kind", ["value_sum", "event_count"])  # a group that cannot fire alone is kept in another way
@pytest.mark.parametrize("groups", [4, 40])
def test_memory_over_all_groups_is_bounded_and_the_loss_counted(monkeypatch, kind, groups):
    monkeypatch.setattr(correlate, "MAX_EVENTS", 10)
    monkeypatch.setattr(correlate, "MAX_GROUP_EVENTS", 4)
    condition = "  condition:\n    field: v\n    gte: 100\n" if kind == "value_sum" else "  condition:\n    gte: 50\n"
    detector = Detector(rules_for(kind, condition))
    monkeypatch.setattr(detector.correlators["c0220000-0000-4000-8000-000000000000"], "_most", 4)
    fired_groups(detector, made([(second, "a", f"src{second % groups}", 1) for second in range(40)]))
    assert held_by(detector) <= 10
    assert detector.evictions == 40 - held_by(detector)
    after = Detector(detector.rules)
    after.restore(detector.snapshot())
    assert held_by(after) == held_by(detector)
    fired_groups(after, made([(50 + second, "a", f"later{second}", 1) for second in range(12)]))
    assert held_by(after) <= 10


def test_a_count_that_memory_could_never_hold_is_refused_and_a_large_one_works():
    text = BASE.format(name="a", number=0) + (
        "---\ntitle: c\nid: c0220000-0000-4000-8000-000000000000\ncorrelation:\n  type: event_count\n"
        "  rules: [a]\n  group-by: [src]\n  timespan: 600s\n  condition:\n    gte: {limit}\n"
    )
    (reason,) = refusals(text.format(limit=60_000))
    assert "could never fire" in reason
    detector = Detector(loaded(text.format(limit=12_000)))
    rows = [(number // 25, "a", "x", 0) for number in range(12_000)]
    assert fired_groups(detector, made(rows[:-1])) == set()
    assert fired_groups(detector, made(rows)[-1:]) == {"x"}


def test_groups_are_read_under_the_names_of_our_parsers():
    text = BASE.format(name="a", number=0).replace("product: linux", "category: webserver") + (
        "---\ntitle: c\nid: c0220000-0000-4000-8000-000000000000\ncorrelation:\n  type: value_count\n"
        "  rules: [a]\n  group-by: [who]\n  aliases:\n    who:\n      a: c-ip\n  timespan: 60s\n"
        "  condition:\n    field: cs-uri\n    gte: 2\n"
    )
    detector = Detector(loaded(text))
    found = []
    for number in range(2):
        fields = {"action": "a", "source.ip": "203.0.113.9", "url.original": f"/{number}"}
        event = Event(id=str(number), at_utc=START, logsource=LogSource("nginx", "webserver"), fields=fields)
        found += detector.feed(event)
    assert [match.group for match in found if match.window] == [{"who": "203.0.113.9"}]


def test_sums_beyond_a_float_and_older_state_are_no_crash():
    detector = Detector(rules_for("value_sum", "  condition:\n    field: v\n    gt: 1\n"))
    made_up = made([(second, "a", "x", 0) for second in range(3)])
    events = [replace(event, fields={**event.fields, "v": "1.7e308"}) for event in made_up]
    assert fired_groups(detector, events) == {"x"}
    detector.restore(b"\x81\xa1x\xa1y")
    assert detector.evictions == 1
