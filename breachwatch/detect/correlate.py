"""Correlations over exact sliding windows in event time.

A window holds both its ends: first and last event exactly `timespan` apart count together, and so do all events of one
moment. An event that lacks a group-by field is not counted. Events may come late and out of order: each one is judged
in every window that ends at or after it and still holds it, within LATENESS_S. While a burst goes on, a group fires
once per timespan, not once per event. Memory is bounded; what is evicted is counted.

No line can move a group's clock: what is kept is what lies near any of the last RECENT events, so that one forged time
in 2100 neither pushes the others out nor makes them late for ever.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from operator import attrgetter

import msgspec

from breachwatch.detect.rule import And, Condition, Correlation, Keyword, Not, Or
from breachwatch.detect.values import as_number, as_text, values_of
from breachwatch.model import Event, FieldValue, Window

LATENESS_S = 3_600
"""Events up to so much older than the newest of their group are still judged exactly."""

RECENT = 16
"""Events by which a group tells what time it is."""

MAX_GROUP_EVENTS = 10_000
"""Events kept per group; those farthest from the newest arrival are evicted first."""

MAX_GROUPS = 20_000
"""Groups kept per correlation; the one that was silent longest is evicted first."""

MAX_EVENTS = 100_000
"""Events kept per correlation, over all groups (about 40 MB); groups that were silent longest are evicted first."""

MAX_FIRED = 64
"""Windows of a group that are remembered as told."""

MAX_VALUE_TEXT = 256
"""Group and counted values are cut here: an attacker chooses them."""

COUNTS = frozenset({"event_count", "value_count"})
"""Types whose figure is at most the number of events kept."""

SECOND = 1_000_000
_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Seen(msgspec.Struct, array_like=True, order=True, frozen=True):
    """One counted event. Sorted by time."""

    at_us: int
    """Microseconds since 1970: sums and differences are exact."""
    rule: int
    """Position of the matching rule in the correlation: events of one moment stand in the order of the rules."""
    id: str
    value: str = ""
    number: float = 0.0


_time = attrgetter("at_us")


class Group(msgspec.Struct):
    """Events of one group, oldest first."""

    events: list[Seen] = []
    fired: list[int] = []
    """Ends of the windows that fired, in event time, oldest first."""
    recent: list[int] = []
    """Times of the last events in the order in which they came."""


class _Saved(msgspec.Struct):
    digest: str
    groups: list[tuple[list[str], Group]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Firing:
    """A window that satisfied its correlation."""

    group: Mapping[str, str]
    window: Window
    event_ids: tuple[str, ...]


def group_bound(definition: Correlation) -> int:
    """How many events of a group are kept: enough for what the condition counts."""
    wanted = max((limit for _, limit in definition.bounds), default=0.0)
    return int(min(MAX_EVENTS, max(MAX_GROUP_EVENTS, 2 * wanted if definition.type in COUNTS else 0)))


@dataclass(slots=True)
class Correlator:
    """The state of one correlation."""

    definition: Correlation
    evictions: int = 0
    late: int = 0
    _groups: dict[tuple[str, ...], Group] = field(default_factory=dict)
    _ids: dict[tuple[str, ...], set[tuple[str, int]]] = field(default_factory=dict)
    _held: int = 0

    def feed(self, rule_id: str, event: Event) -> Firing | None:
        """Count one match; the window that it completed."""
        key = self._key(rule_id, event)
        seen = None if key is None else self._seen(rule_id, event)
        if key is None or seen is None:
            return None
        group, ids = self._group(key), self._ids[key]
        identity = self._identity(seen)
        if identity in ids:
            return None
        if group.recent and seen.at_us < max(group.recent) - LATENESS_S * SECOND:
            self.late += 1
        insort(group.events, seen)
        ids.add(identity)
        self._held += 1
        group.recent = [*group.recent[1 - RECENT :], seen.at_us]
        self._trim(group, ids)
        self._make_room(key)
        window = self._completed(group, seen)
        return None if window is None else self._firing(key, window)

    # -- one event ------------------------------------------------------------------------------------------------

    def _values(self, rule_id: str, event: Event, name: str) -> Iterator[FieldValue]:
        also = self.definition.names.get(rule_id, {}).get(name, ())
        return values_of(event, name, also)

    def _key(self, rule_id: str, event: Event) -> tuple[str, ...] | None:
        key = []
        for name in self.definition.group_by:
            actual = self.definition.aliases.get(name, {}).get(rule_id, name)
            value = next((text for item in self._values(rule_id, event, actual) if (text := as_text(item))), None)
            if value is None:
                return None
            key.append(value[:MAX_VALUE_TEXT])
        return tuple(key)

    def _seen(self, rule_id: str, event: Event) -> Seen | None:
        definition = self.definition
        value, number = "", 0.0
        if definition.type == "value_count":
            values = [self._first_text(rule_id, event, name) for name in definition.fields]
            if None in values:
                return None
            value = "\0".join(str(item)[:MAX_VALUE_TEXT] for item in values)
        elif definition.type.startswith("value_"):
            found = next((as_number(item) for item in self._values(rule_id, event, definition.fields[0])), None)
            if found is None:
                return None
            number = found
        position = definition.rules.index(rule_id)
        return Seen((event.at_utc - _EPOCH) // _MICROSECOND, position, event.id, value, number)

    def _first_text(self, rule_id: str, event: Event, name: str) -> str | None:
        found = self._values(rule_id, event, name)
        return next((text for item in found if (text := as_text(item)) is not None), None)

    def _identity(self, seen: Seen) -> tuple[str, int]:
        """An event that two rules match is one event where events are counted, and two where rules are."""
        return seen.id, seen.rule if self.definition.type.startswith("temporal") else 0

    # -- windows --------------------------------------------------------------------------------------------------

    def _completed(self, group: Group, seen: Seen) -> list[Seen] | None:
        """The first window that ends at or after the new event, holds it, and satisfies the condition.

        There is no second: it would end within a timespan of the first, which is told once.
        """
        span = round(self.definition.timespan_s * SECOND)
        events = group.events
        end = bisect_left(events, seen.at_us, key=_time)
        while end < len(events) and (last := events[end].at_us) <= seen.at_us + span:
            end = bisect_right(events, last, lo=end, key=_time)
            near = bisect_left(group.fired, last - span)
            if near < len(group.fired) and group.fired[near] <= last + span:
                continue  # the burst that already fired
            start = bisect_left(events, last - span, key=_time)
            if self.definition.type == "event_count" and not self.definition.compare(end - start):
                continue
            window = events[start:end]
            if self._satisfied(window):
                insort(group.fired, last)
                if len(group.fired) > MAX_FIRED:
                    del group.fired[0 if last - group.fired[0] >= group.fired[-1] - last else -1]
                return window
        return None

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
            return definition.compare(_longest_chain(window, definition.rules))
        if kind == "value_sum":
            return definition.compare(_total(window))
        if kind == "value_avg":
            return definition.compare(_total(window) / len(window))
        return definition.compare(_percentile(sorted(seen.number for seen in window), definition.percentile))

    def _firing(self, key: tuple[str, ...], window: list[Seen]) -> Firing:
        group = dict(zip(self.definition.group_by, key, strict=True))
        span = Window(first=_moment(window[0].at_us), last=_moment(window[-1].at_us), count=len(window))
        return Firing(group=group, window=span, event_ids=tuple(dict.fromkeys(seen.id for seen in window)))

    # -- bounds ---------------------------------------------------------------------------------------------------

    def _group(self, key: tuple[str, ...]) -> Group:
        group = self._groups.pop(key, None)
        if group is None:
            group = Group(events=[], fired=[], recent=[])
            self._ids[key] = set()
        self._groups[key] = group  # moved to the end: the least recently used group stands first
        return group

    @property
    def _reach_us(self) -> int:
        """How far from the group's time an event can still be part of a window that is judged."""
        return round((self.definition.timespan_s + LATENESS_S) * SECOND)

    def _trim(self, group: Group, ids: set[tuple[str, int]]) -> None:
        """Drop what no window needs any more, then what is beyond the bound."""
        events, reach = group.events, self._reach_us
        earliest, latest = min(group.recent), max(group.recent)
        if latest - earliest <= 2 * reach:
            first, stop = 0, len(events)
            if events[0].at_us < earliest - reach:
                first = bisect_left(events, earliest - reach, key=_time)
            if events[-1].at_us > latest + reach:
                stop = bisect_right(events, latest + reach, key=_time)
            over = stop - first - group_bound(self.definition)
            if over > 0:
                self.evictions += over
                now = group.recent[-1]
                is_newest = now - events[first].at_us >= events[stop - 1].at_us - now
                first, stop = (first + over, stop) if is_newest else (first, stop - over)
            gone = events[:first] + events[stop:]
            del events[stop:], events[:first]
        else:  # somebody's clock is far off: keep what is near any of the times told
            gone = [seen for seen in events if all(abs(seen.at_us - at) > reach for at in group.recent)]
            if gone:
                group.events = sorted(set(events).difference(gone))
        self._held -= len(gone)
        ids.difference_update(self._identity(seen) for seen in gone)

    def _make_room(self, key: tuple[str, ...]) -> None:
        """Evict whole groups, silent ones first, never the one at hand."""
        while len(self._groups) > MAX_GROUPS or self._held > MAX_EVENTS:
            oldest = next(iter(self._groups))
            if oldest == key:
                return
            now, lost = self._groups[key].recent[-1], self._groups.pop(oldest).events
            self._held -= len(lost)
            self.evictions += sum(abs(seen.at_us - now) <= self._reach_us for seen in lost)
            del self._ids[oldest]

    # -- state ----------------------------------------------------------------------------------------------------

    def save(self) -> _Saved:
        """All of it, for one snapshot."""
        return _Saved(self.definition.digest, [(list(key), group) for key, group in self._groups.items()])

    def load(self, saved: _Saved) -> bool:
        """Take saved state over if it is of this very definition."""
        if saved.digest != self.definition.digest:
            return False
        self._groups = {tuple(key): group for key, group in saved.groups if group.events}
        self._ids = {key: {self._identity(seen) for seen in group.events} for key, group in self._groups.items()}
        self._held = sum(len(group.events) for group in self._groups.values())
        return True


def _holds(condition: Condition, present: set[str]) -> bool:
    if isinstance(condition, And):
        return all(_holds(part, present) for part in condition.parts)
    if isinstance(condition, Or):
        return any(_holds(part, present) for part in condition.parts)
    if isinstance(condition, Not):
        return not _holds(condition.part, present)
    assert isinstance(condition, Keyword)
    return condition.text in present


def _longest_chain(window: list[Seen], rules: tuple[str, ...]) -> int:
    """How many of the rules, in their order, match in the order of time. Events of one moment are in any order."""
    following = iter(window)
    for length, rule in enumerate(rules):
        position = rules.index(rule)
        if all(seen.rule != position for seen in following):
            return length
    return len(rules)


def _total(window: list[Seen]) -> float:
    """The sum, rounded once: it does not depend on the order. Infinite beyond what a float holds."""
    try:
        return math.fsum(seen.number for seen in window)
    except OverflowError:
        return sum(seen.number for seen in window)


def _percentile(numbers: list[float], percent: float) -> float:
    """Linear interpolation between the two nearest ranks."""
    position = (len(numbers) - 1) * percent / 100
    below = int(position)
    above = min(below + 1, len(numbers) - 1)
    return numbers[below] + (numbers[above] - numbers[below]) * (position - below)


def _moment(at_us: int) -> datetime:
    return _EPOCH + at_us * _MICROSECOND
