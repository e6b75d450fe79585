"""Correlations equal an oracle that looks at every window, however events arrive and wherever the agent restarts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from breachwatch.detect.engine import Detector
from breachwatch.detect.ruleset import RuleSet
from breachwatch.model import Event, LogSource, Match
from tests.detect.oracle import Hit, Oracle, Told
from tests.detect.sigma import loaded

START = datetime(2026, 2, 3, 4, 0, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CORRELATION = "c0220000-0000-4000-8000-000000000000"
PARENT = "c0220000-0000-4000-8000-000000000001"
RULES = {name: f"5071392{number}-0000-4000-8000-00000000ba5e" for number, name in enumerate("abc")}
NAMES = {rule_id: name for name, rule_id in RULES.items()}

BASE = """title: {name}
name: {name}
id: {id}
logsource:
  product: linux
detection:
  s:
    action|contains: {name}
  condition: s
"""


@dataclass(frozen=True)
class Case:
    """A definition, as YAML and as the oracle takes it."""

    kind: str
    bounds: tuple[tuple[str, float], ...] = ()
    field: str = ""
    percent: int = 50
    expression: str = ""

    @property
    def names(self) -> str:
        """The rules that it reads."""
        return "ab" if self.expression == "a and not b" or not self.kind.startswith("temporal") else "abc"

    def yaml(self, group_by: tuple[str, ...], span: int, *, aliased: bool) -> str:
        lines = [f"title: corr\nname: corr\nid: {CORRELATION}\ncorrelation:\n  type: {self.kind}",
                 f"  rules: [{', '.join(self.names)}]", f"  timespan: {span}s"]  # fmt: skip
        if group_by:
            lines.append(f"  group-by: [{', '.join(group_by)}]")
        if aliased:
            lines.append("  aliases:\n    src:\n" + "\n".join(f"      {name}: src_{name}" for name in self.names))
        if self.expression:
            lines.append(f"  condition: {self.expression}")
        elif self.bounds:
            lines.append("  condition:")
            lines += [f"    {name}: {limit:g}" for name, limit in self.bounds]
            if self.field:
                lines.append(f"    field: {self.field}")
            if self.kind == "value_percentile":
                lines.append(f"    percentile: {self.percent}")
        return "\n".join(lines) + "\n"

    def oracle(self, group_by: tuple[str, ...], span: int, *, aliased: bool) -> Oracle:
        aliases = {"src": {name: f"src_{name}" for name in self.names}} if aliased else {}
        return Oracle(
            kind=self.kind, rules=self.names, span=span, bounds=self.bounds or [("gte", 3)], group_by=group_by,
            aliases=aliases, counted=self.field, percent=self.percent,
            expression=EXPRESSIONS[self.expression] if self.expression else None,
        )  # fmt: skip


EXPRESSIONS = {
    "(a and b) or c": lambda seen: {"a", "b"} <= seen or "c" in seen,
    "a and not b": lambda seen: "a" in seen and "b" not in seen,
}

CASES = [
    Case("event_count", (("gte", 4),)),
    Case("event_count", (("gt", 1), ("lte", 3))),
    Case("event_count", (("eq", 2),)),
    Case("value_count", (("gte", 3),), "v"),
    Case("value_count", (("lt", 2),), "v"),
    Case("value_sum", (("gte", 9),), "v"),
    Case("value_sum", (("lt", -2),), "v"),
    Case("value_avg", (("gt", 3.3),), "v"),
    Case("value_avg", (("lte", 1),), "v"),
    Case("value_avg", (("gte", 2), ("lte", 2.5)), "v"),
    Case("value_median", (("gte", 3.5),), "v"),
    Case("value_median", (("lt", 0),), "v"),
    Case("value_percentile", (("gt", 3.333),), "v", 90),
    Case("value_percentile", (("lt", 0.777),), "v", 25),
    Case("temporal"),
    Case("temporal", expression="(a and b) or c"),
    Case("temporal", expression="a and not b"),
    Case("temporal_ordered"),
]

ACTIONS = ["a", "a", "b", "c", "a b", "c a", "none"]
"""What events do; some satisfy two rules at once."""

events_strategy = st.lists(
    st.fixed_dictionaries(
        {
            "second": st.integers(0, 40).map(lambda quarter: quarter * 5) | st.integers(0, 200),
            "action": st.sampled_from(ACTIONS),
            "src": st.sampled_from(["x", "x", "y", None]),
            "user": st.sampled_from(["u", "u", "w", None]),
            "v": st.integers(-3, 6) | st.sampled_from([None, "many"]),
        }
    ),
    max_size=12,
)


@cache
def rules_of(case: Case, group_by: tuple[str, ...], span: int, *, aliased: bool) -> RuleSet:
    texts = [BASE.format(name=name, id=rule_id) for name, rule_id in RULES.items()]
    return loaded("---\n".join([*texts, case.yaml(group_by, span, aliased=aliased)]))


def made(rows: Sequence[dict[str, object]]) -> list[Event]:
    """Events in the form of JSON records; a missing value is a missing field."""
    events = []
    for number, row in enumerate(rows):
        fields: dict[str, Any] = {name: row[name] for name in ("action", "user", "v", "src") if row[name] is not None}
        for name in RULES:
            fields |= {f"src_{name}": row["src"]} if row["src"] is not None else {}
        at = START + timedelta(seconds=int(str(row["second"])))
        events.append(Event(id=f"e{number}", at_utc=at, logsource=LogSource("linux"), fields=fields))
    return events


def asked(oracle: Oracle, event: Event) -> Iterator[Told]:
    for name in RULES:
        if name in str(event.fields["action"]).split() and name in oracle.rules:
            told = oracle.feed(Hit(rule=name, event=event.id, at=instant(event.at_utc), fields=event.fields))
            if told is not None:
                yield told


def instant(moment: datetime) -> Fraction:
    return Fraction((moment - EPOCH) // timedelta(microseconds=1), 1_000_000)


def told_by(match: Match) -> Told:
    assert match.window is not None
    return Told(group=tuple(match.group.values()), first=instant(match.window.first), last=instant(match.window.last),
                events=frozenset(match.event_ids))  # fmt: skip


def correlated(detector: Detector, event: Event) -> list[Match]:
    return [match for match in detector.feed(event) if match.window is not None]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind} {case.bounds or case.expression}")
@settings(max_examples=40)
@given(rows=events_strategy, data=st.data())
def test_every_correlation_tells_exactly_the_windows_of_the_oracle(case, rows, data):
    group_by = data.draw(st.sampled_from([(), ("src",), ("src", "user")]))
    aliased = bool(group_by) and data.draw(st.booleans())
    span = data.draw(st.sampled_from([1, 20, 60]))
    events = made(rows)
    arrival = data.draw(st.permutations(events + events[:4]))  # late, shuffled, and read twice
    detector = Detector(rules_of(case, group_by, span, aliased=aliased))
    oracle = case.oracle(group_by, span, aliased=aliased)
    for event in arrival:
        found = [told_by(match) for match in correlated(detector, event)]
        assert found == list(asked(oracle, event))
    for group in {told for told, _ in oracle.hits}:  # and so nothing that holds in the end was left untold
        ends = [told.last for told in oracle.told if told.group == group]
        assert all(any(abs(one.last - end) <= span for end in ends) for one in oracle.satisfied(group))
        assert all(abs(one - two) > span for one in ends for two in ends if one is not two)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind} {case.bounds or case.expression}")
@settings(max_examples=15)
@given(rows=events_strategy, data=st.data())
def test_a_crash_anywhere_changes_nothing_of_what_is_told(case, rows, data):
    """State and offset are stored together; what was read after them is read again, and told under the same ids."""
    events = data.draw(st.permutations(made(rows)))
    rules = rules_of(case, ("src",), 60, aliased=False)
    steady = Detector(rules)
    wanted = [match.id for event in events for match in correlated(steady, event)]
    detector, offset, saved = Detector(rules), 0, Detector(rules).snapshot()
    told: list[str] = []
    for crash in (*sorted(data.draw(st.lists(st.integers(0, len(events)), max_size=3))), len(events)):
        commit = data.draw(st.integers(offset, max(offset, crash)))
        for position in range(offset, max(offset, crash)):
            if position == commit:
                saved, kept = detector.snapshot(), position
            told += [match.id for match in correlated(detector, events[position])]
        if commit == max(offset, crash):
            saved, kept = detector.snapshot(), commit
        detector = Detector(rules)
        detector.restore(saved)
        offset = kept
    told += [match.id for event in events[offset:] for match in correlated(detector, event)]
    assert list(dict.fromkeys(told)) == wanted
    assert detector.evictions == 0


CHAIN = (
    "---\n".join(BASE.format(name=name, id=rule_id) for name, rule_id in RULES.items())
    + f"""---
title: many
name: many
id: {CORRELATION}
correlation:
  type: event_count
  rules: [a, b]
  group-by: [who, user]
  aliases:
    who:
      a: src_a
      b: src_b
  timespan: 20s
  condition:
    gte: 2
---
title: wide
id: {PARENT}
correlation:
  type: value_count
  rules: [many]
  group-by: [user]
  timespan: 90s
  generate: {{generate}}
  condition:
    field: who
    gte: 2
"""
)


@pytest.mark.parametrize("generate", [True, False])
@given(rows=events_strategy, data=st.data())
def test_a_chain_reads_groups_and_ends_of_windows_as_the_oracle_does(generate, rows, data):
    detector = Detector(loaded_chain(generate=generate))
    aliases = {"who": {"a": "src_a", "b": "src_b"}}
    child = Oracle(kind="event_count", rules="ab", span=20, bounds=[("gte", 2)], group_by=("who", "user"),
                   aliases=aliases)  # fmt: skip
    parent = Oracle(kind="value_count", rules=["many"], span=90, bounds=[("gte", 2)], group_by=("user",), counted="who")
    for event in data.draw(st.permutations(made(rows))):
        wanted: list[Told] = []
        for told in asked(child, event):
            wanted += [told] if generate else []
            fields = dict(zip(("who", "user"), told.group, strict=True))
            above = parent.feed(Hit(rule="many", event=str(told), at=told.last, fields=fields))
            wanted += [] if above is None else [above]
        found = correlated(detector, event)
        ends = [(told_by(match).group, told_by(match).last) for match in found]
        assert ends == [(told.group, told.last) for told in wanted]


@cache
def loaded_chain(*, generate: bool) -> RuleSet:
    return loaded(CHAIN.format(generate=str(generate).lower()))
