"""Correlations beside a brute-force oracle that looks at every window, in whatever order events arrive."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breachwatch.detect import correlate
from breachwatch.detect.engine import Detector
from breachwatch.model import Event, LogSource
from tests.detect.sigma import loaded

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


def figure(kind: str, window: list[tuple[int, str, str, int]]) -> float:  # noqa: PLR0911  # one per kind
    """What the specification makes of a window."""
    values = sorted(value for _, _, _, value in window)
    if kind == "event_count":
        return len(window)
    if kind == "value_count":
        return len(set(values))
    if kind == "value_sum":
        return sum(values)
    if kind == "value_avg":
        return sum(values) / len(values)
    if kind == "value_median":
        middle = len(values) // 2
        return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2
    actions = [action for _, action, _, _ in window]
    if kind == "temporal":
        return len(set(actions))
    first, second, third = (actions.index("a") if "a" in actions else None), None, None
    if first is not None:
        second = next((at for at in range(first + 1, len(actions)) if actions[at] == "b"), None)
    if second is not None:
        third = next((at for at in range(second + 1, len(actions)) if actions[at] == "c"), None)
    return sum(at is not None for at in (first, second, third))


def expected(kind: str, limit: float, rows: list[tuple[int, str, str, int]]) -> set[str]:
    """Groups of which some window of events, first to last, meets the limit."""
    found = set()
    for src in {row[2] for row in rows}:
        own = [row for row in rows if row[2] == src]
        for last in range(len(own)):
            first = next(at for at in range(len(own)) if own[last][0] - own[at][0] <= SPAN_S)
            if figure(kind, own[first : last + 1]) >= limit:
                found.add(src)
    return found


KINDS = {
    "event_count": (4, "  condition:\n    gte: 4\n"),
    "value_count": (3, "  condition:\n    field: v\n    gte: 3\n"),
    "value_sum": (12, "  condition:\n    field: v\n    gte: 12\n"),
    "value_avg": (4, "  condition:\n    field: v\n    gte: 4\n"),
    "value_median": (4, "  condition:\n    field: v\n    gte: 4\n"),
    "temporal": (3, ""),
    "temporal_ordered": (3, ""),
}


@pytest.mark.parametrize("kind", KINDS)
@given(rows=st.lists(st.tuples(st.integers(0, 200), st.sampled_from("abc"), st.sampled_from("xy"), st.integers(0, 5)),
                     max_size=14, unique_by=lambda row: (row[0], row[2])), data=st.data())  # fmt: skip
def test_the_groups_that_fire_are_those_of_the_oracle_in_any_order_of_arrival(kind, rows, data):
    limit, condition = KINDS[kind]
    if not kind.startswith("temporal"):
        rows = [(second, "a", src, value) for second, _, src, value in rows]
    rows.sort()
    events = made(rows)
    arrival = data.draw(st.permutations(events + events[:5]))  # duplicates: read twice after a crash
    found = fired_groups(Detector(rules_for(kind, condition)), arrival)
    if kind in ("value_avg", "value_median"):  # not monotonic: while events are missing, another window may fire
        assert expected(kind, limit, rows) <= found
    else:
        assert found == expected(kind, limit, rows)


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
