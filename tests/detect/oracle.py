"""Correlations as the specification words them, by looking at every window: slow, and without any state but the events.

Source: Sigma correlation rules specification 2.1.0. Nothing here is shared with `breachwatch.detect.correlate`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import combinations, pairwise

OPERATORS: Mapping[str, Callable[[Fraction, Fraction], bool]] = {
    "gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le, "eq": operator.eq, "neq": operator.ne,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One match of one rule."""

    rule: str
    event: str
    at: Fraction
    fields: Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class Told:
    """A window that satisfied its correlation."""

    group: tuple[str, ...]
    first: Fraction
    last: Fraction
    events: frozenset[str]


@dataclass(kw_only=True)
class Oracle:
    """One correlation. `expression` replaces the bounds of a temporal one."""

    kind: str
    rules: Sequence[str]
    span: int
    bounds: Sequence[tuple[str, float]]
    group_by: Sequence[str] = ()
    aliases: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    counted: str = ""
    percent: int = 50
    expression: Callable[[set[str]], bool] | None = None
    hits: list[tuple[tuple[str, ...], Hit]] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)

    def feed(self, hit: Hit) -> Told | None:
        """What this match completes, given all that came before it."""
        names = [self.aliases.get(name, {}).get(hit.rule, name) for name in self.group_by]
        if any(hit.fields.get(name) is None for name in names):
            return None
        if self.counted and (hit.fields.get(self.counted) is None):
            return None
        if self.counted and self.kind != "value_count" and not isinstance(hit.fields[self.counted], int):
            return None
        group = tuple(str(hit.fields[name]) for name in names)
        if any(self._same(hit, other) for where, other in self.hits if where == group):
            return None
        self.hits.append((group, hit))
        for told in self.satisfied(group):
            holds_it = told.first <= hit.at <= told.last or told.last - self.span <= hit.at <= told.last
            if holds_it and all(abs(told.last - old.last) > self.span for old in self.told if old.group == group):
                self.told.append(told)
                return told
        return None

    def _same(self, one: Hit, other: Hit) -> bool:
        return one.event == other.event and (one.rule == other.rule or not self.kind.startswith("temporal"))

    def satisfied(self, group: tuple[str, ...]) -> list[Told]:
        """Every window of what is known now that satisfies the condition, by its end."""
        own = [hit for where, hit in self.hits if where == group]
        found = []
        for last in sorted({hit.at for hit in own}):
            window = [hit for hit in own if last - self.span <= hit.at <= last]
            if self.holds(window):
                found.append(Told(group=group, first=min(hit.at for hit in window), last=last,
                                  events=frozenset(hit.event for hit in window)))  # fmt: skip
        return found

    def holds(self, window: Sequence[Hit]) -> bool:
        """Whether one window satisfies the condition."""
        if self.expression is not None:
            return self.expression({hit.rule for hit in window})
        figure = self._figure(window)
        return all(OPERATORS[name](figure, Fraction(limit)) for name, limit in self.bounds)

    def _figure(self, window: Sequence[Hit]) -> Fraction:  # noqa: PLR0911  # one per kind
        if self.kind == "event_count":
            return Fraction(len(window))
        if self.kind == "temporal":
            return Fraction(len({hit.rule for hit in window}))
        if self.kind == "temporal_ordered":
            return Fraction(self._ordered(window))
        values = [hit.fields[self.counted] for hit in window]
        if self.kind == "value_count":
            return Fraction(len({str(value) for value in values}))
        numbers = sorted(Fraction(value) for value in values if isinstance(value, int))
        if self.kind == "value_sum":
            return sum(numbers, Fraction(0))
        if self.kind == "value_avg":
            return sum(numbers, Fraction(0)) / len(numbers)
        rank = Fraction(self.percent * (len(numbers) - 1), 100)
        low = numbers[int(rank)]
        return low + (numbers[min(int(rank) + 1, len(numbers) - 1)] - low) * (rank - int(rank))

    def _ordered(self, window: Sequence[Hit]) -> int:
        """The longest beginning of the list of rules that some choice of events shows in this order."""
        for length in range(len(self.rules), 0, -1):
            for chosen in combinations(sorted(window, key=lambda hit: (hit.at, self.rules.index(hit.rule))), length):
                in_order = all(one.at <= two.at for one, two in pairwise(chosen))
                if in_order and [hit.rule for hit in chosen] == list(self.rules[:length]):
                    return length
        return 0
