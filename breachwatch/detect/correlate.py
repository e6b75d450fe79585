"""Correlations over exact sliding windows in event time.

A window holds both its ends: first and last event exactly `timespan` apart count together. An event that lacks a
group-by field is not counted. Events may come late and out of order: each one is judged in every window that ends at
or after it and still holds it, within LATENESS_S. While a burst goes on, a group fires once per timespan, not once per
event. Memory is bounded; what is evicted is counted.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from breachwatch.detect.rule import And, Condition, Correlation, Keyword, Not, Or
from breachwatch.detect.values import as_number, as_text, raw_values
from breachwatch.model import Event, Window

LATENESS_S = 3_600.0
"""Events up to so much older than the newest of their group are still judged exactly."""

MAX_GROUP_EVENTS = 10_000
"""Events kept per group; the oldest are evicted first."""

MAX_GROUPS = 20_000
"""Groups kept per correlation; the one that was silent longest is evicted first."""

MAX_VALUE_TEXT = 256
"""Group and counted values are cut here: an attacker chooses them."""


class Seen(msgspec.Struct, array_like=True, order=True, frozen=True):
    """One counted event. Sorted by time."""

    at: float
    id: str
    rule: int
    """Position of the matching rule in the correlation."""
    value: str = ""
    number: float = 0.0


class Group(msgspec.Struct):
    """Events of one group, oldest first."""

    events: list[Seen] = []
    fired_at: float = float("-inf")
    """End of the window that fired last, in event time."""


class _Saved(msgspec.Struct):
    digest: str
    groups: list[tuple[list[str], Group]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Firing:
    """A window that satisfied its correlation."""

    group: Mapping[str, str]
    window: Window
    event_ids: tuple[str, ...]


@dataclass(slots=True)
class Correlator:
    """The state of one correlation."""

    definition: Correlation
    evictions: int = 0
    late: int = 0
    _groups: dict[tuple[str, ...], Group] = field(default_factory=dict)
    _ids: dict[tuple[str, ...], set[str]] = field(default_factory=dict)

    def feed(self, rule_id: str, event: Event) -> list[Firing]:
        """Count one match; the windows that it completed."""
        key = self._key(rule_id, event)
        if key is None:
            return []
        seen = self._seen(rule_id, event)
        if seen is None:
            return []
        group = self._group(key)
        ids = self._ids[key]
        if seen.id in ids:
            return []
        if group.events and seen.at < group.events[-1].at - LATENESS_S:
            self.late += 1
        insort(group.events, seen)
        ids.add(seen.id)
        self._trim(group, ids)
        return [self._firing(key, window) for window in self._completed(group, seen)]

    # -- one event ------------------------------------------------------------------------------------------------

    def _key(self, rule_id: str, event: Event) -> tuple[str, ...] | None:
        key = []
        for name in self.definition.group_by:
            actual = self.definition.aliases.get(name, {}).get(rule_id, name)
            value = next((text for item in raw_values(event, actual) if (text := as_text(item))), None)
            if value is None:
                return None
            key.append(value[:MAX_VALUE_TEXT])
        return tuple(key)

    def _seen(self, rule_id: str, event: Event) -> Seen | None:
        definition = self.definition
        value, number = "", 0.0
        if definition.type == "value_count":
            values = [_first_text(event, name) for name in definition.fields]
            if None in values:
                return None
            value = "\0".join(str(item)[:MAX_VALUE_TEXT] for item in values)
        elif definition.type.startswith("value_"):
            found = next((as_number(item) for item in raw_values(event, definition.fields[0])), None)
            if found is None:
                return None
            number = found
        position = definition.rules.index(rule_id)
        return Seen(event.at_utc.timestamp(), event.id, position, value, number)

    # -- windows --------------------------------------------------------------------------------------------------

    def _completed(self, group: Group, seen: Seen) -> Iterator[list[Seen]]:
        """Windows that end at or after the new event, hold it, and satisfy the condition."""
        span = self.definition.timespan_s
        events = group.events
        start = 0
        for end, last in enumerate(events):
            if last.at < seen.at:
                continue
            if last.at - seen.at > span:
                return
            while last.at - events[start].at > span:
                start += 1
            if last.at <= group.fired_at + span and last.at >= group.fired_at - span:
                continue  # the burst that already fired
            window = events[start : end + 1]
            if self._satisfied(window):
                group.fired_at = last.at
                yield window

    def _satisfied(self, window: list[Seen]) -> bool:  # noqa: PLR0911  # one return per type of correlation
        definition = self.definition
        kind = definition.type
        if kind == "event_count":
            return definition.compare(len(window))
        if kind == "value_count":
            return definition.compare(len({seen.value for seen in window}))
        if kind == "temporal":
            present = {definition.rules[seen.rule] for seen in window}
            if definition.expression is not None:
                return _holds(definition.expression, present)
            return definition.compare(len(present))
        if kind == "temporal_ordered":
            return definition.compare(_longest_chain(window, len(definition.rules)))
        numbers = sorted(seen.number for seen in window)
        if kind == "value_sum":
            return definition.compare(sum(numbers))
        if kind == "value_avg":
            return definition.compare(sum(numbers) / len(numbers))
        return definition.compare(_percentile(numbers, definition.percentile))

    def _firing(self, key: tuple[str, ...], window: list[Seen]) -> Firing:
        group = dict(zip(self.definition.group_by, key, strict=True))
        span = Window(first=_moment(window[0].at), last=_moment(window[-1].at), count=len(window))
        return Firing(group=group, window=span, event_ids=tuple(seen.id for seen in window))

    # -- bounds ---------------------------------------------------------------------------------------------------

    def _group(self, key: tuple[str, ...]) -> Group:
        group = self._groups.pop(key, None)
        if group is None:
            group = Group(events=[])
            self._ids[key] = set()
            if len(self._groups) >= MAX_GROUPS:
                oldest = next(iter(self._groups))
                self.evictions += len(self._groups.pop(oldest).events)
                del self._ids[oldest]
        self._groups[key] = group  # moved to the end: the least recently used group stands first
        return group

    def _trim(self, group: Group, ids: set[str]) -> None:
        horizon = group.events[-1].at - self.definition.timespan_s - LATENESS_S
        cut = 0
        while group.events[cut].at < horizon:
            cut += 1
        over = max(0, len(group.events) - cut - MAX_GROUP_EVENTS)
        self.evictions += over
        for seen in group.events[: cut + over]:
            ids.discard(seen.id)
        del group.events[: cut + over]

    # -- state ----------------------------------------------------------------------------------------------------

    def save(self) -> _Saved:
        """All of it, for one snapshot."""
        return _Saved(self.definition.digest, [(list(key), group) for key, group in self._groups.items()])

    def load(self, saved: _Saved) -> bool:
        """Take saved state over if it is of this very definition."""
        if saved.digest != self.definition.digest:
            return False
        self._groups = {tuple(key): group for key, group in saved.groups}
        self._ids = {key: {seen.id for seen in group.events} for key, group in self._groups.items()}
        return True


def _first_text(event: Event, name: str) -> str | None:
    return next((text for item in raw_values(event, name) if (text := as_text(item)) is not None), None)


def _holds(condition: Condition, present: set[str]) -> bool:
    if isinstance(condition, And):
        return all(_holds(part, present) for part in condition.parts)
    if isinstance(condition, Or):
        return any(_holds(part, present) for part in condition.parts)
    if isinstance(condition, Not):
        return not _holds(condition.part, present)
    assert isinstance(condition, Keyword)
    return condition.text in present


def _longest_chain(window: list[Seen], rules: int) -> int:
    """How many of the rules, in their order, match in the order of time."""
    wanted = 0
    for seen in window:
        if wanted < rules and seen.rule == wanted:
            wanted += 1
    return wanted


def _percentile(numbers: list[float], percent: float) -> float:
    """Linear interpolation between the two nearest ranks."""
    position = (len(numbers) - 1) * percent / 100
    below = int(position)
    above = min(below + 1, len(numbers) - 1)
    return numbers[below] + (numbers[above] - numbers[below]) * (position - below)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
