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
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from operator import attrgetter

import msgspec

from breachwatch.detect.rule import And, Condition, Correlation, Keyword, Not, Or
from breachwatch.detect.values import as_number, as_text, is_there, values_of
from breachwatch.model import Event, Window

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

FEW_EVENTS = 8
"""A group of fewer has no index of its own."""

MAX_FIRED = 64
"""Windows of a group that are remembered as told."""

MAX_VALUE_TEXT = 256
"""Group and counted values are cut here: an attacker chooses them."""

COUNTS = frozenset({"event_count", "value_count"})
"""Types whose figure is at most the number of events kept."""

SECOND = 1_000_000
_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Seen(msgspec.Struct, array_like=True, order=True, frozen=True, gc=False):
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A group's window that ends with one event, for explanations."""

    is_counted: bool
    group: Mapping[str, str]
    missing: tuple[str, ...]
    """Fields that an event lacks which is not counted; none: they hold nothing that can be grouped or counted by."""
    figure: float
    is_enough: bool
    """The window satisfies the condition."""
    told: datetime | None
    """End of the window near it that was told of."""


def group_bound(definition: Correlation) -> int:
    """How many events of a group are kept: enough for what the condition counts."""
    wanted = max((limit for _, limit in definition.bounds), default=0.0)
    return int(min(MAX_EVENTS, max(MAX_GROUP_EVENTS, 2 * wanted if definition.type in COUNTS else 0)))


def least_events(definition: Correlation) -> float:
    """Fewer events than this satisfy no window."""
    if definition.type not in COUNTS:
        return 1
    return max((limit for op, limit in definition.bounds if op in {"gte", "gt", "eq"}), default=1)


@dataclass(frozen=True)
class _Reads:
    """What is read of the events of one rule."""

    position: int
    key: tuple[_Named, ...]
    values: tuple[_Named, ...]

    @cached_property
    def only(self) -> str:
        """The field of the key, if that is one that goes by one name; else none."""
        (name, also), *others = self.key or (("", ()),)
        return "" if also or others else name


_Named = tuple[str, tuple[str, ...]]
"""A field, and other names under which our parsers keep it."""


class Correlator:
    """The state of one correlation."""

    def __init__(self, definition: Correlation) -> None:
        self.definition = definition
        self.evictions = 0
        self.late = 0
        self._groups: OrderedDict[tuple[str, ...], Group | Seen] = OrderedDict()
        """Silent longest first; a single event, as nearly all groups of a noisy log have, stands for itself."""
        self._ids: dict[tuple[str, ...], set[tuple[str, int]]] = {}
        """Of groups that have, or had, many events."""
        self._held = 0
        self._span_us = round(definition.timespan_s * SECOND)
        self._reach_us = round((definition.timespan_s + LATENESS_S) * SECOND)
        """How far from the group's time an event can still be part of a window that is judged."""
        self._most = group_bound(definition)
        self._least = least_events(definition)
        self._is_temporal = definition.type.startswith("temporal")
        self._has_value = definition.type.startswith("value_")
        self._reads: dict[str, _Reads] = {}

    def feed(self, rule_id: str, event: Event) -> Firing | None:
        """Count one match; the window that it completed."""
        reads = self._reads.get(rule_id) or self._reading(rule_id)
        key = self._key(reads, event)
        seen = None if key is None else self._seen(reads, event)
        if key is None or seen is None:
            return None
        held = self._groups.get(key)
        group = None
        if held is None and self._least > 1:
            self._groups[key] = seen
            self._held += 1
        elif (group := self._joined(key, held, seen)) is None:
            return None
        if len(self._groups) > MAX_GROUPS or self._held > MAX_EVENTS:
            self._make_room(key, seen.at_us)
        window = None if group is None or len(group.events) < self._least else self._completed(group, seen)
        return None if window is None else self._firing(key, window)

    def _joined(self, key: tuple[str, ...], held: Group | Seen | None, seen: Seen) -> Group | None:
        """The group with an event more; None if it is there."""
        if held is None:
            group = self._groups[key] = Group(events=[seen], fired=[], recent=[seen.at_us])
            self._held += 1
            return group
        self._groups.move_to_end(key)
        identity, ids = self._identity(seen), self._ids.get(key)
        group = _group_of(held)
        events, recent, at_us = group.events, group.recent, seen.at_us
        if ids is None and len(events) >= FEW_EVENTS:
            ids = self._ids[key] = set(map(self._identity, events))
        if identity in (map(self._identity, events) if ids is None else ids):
            return None
        self._groups[key] = group
        if recent and at_us < max(recent) - LATENESS_S * SECOND:
            self.late += 1
        if events and at_us <= events[-1].at_us:
            insort(events, seen)
        else:
            events.append(seen)
        if ids is not None:
            ids.add(identity)
        self._held += 1
        group.recent = [*recent[1 - RECENT :], at_us]
        self._trim(group, ids)
        return group

    # -- one event ------------------------------------------------------------------------------------------------

    def _reading(self, rule_id: str) -> _Reads:
        definition = self.definition
        names = definition.names.get(rule_id, {})
        grouped = [definition.aliases.get(name, {}).get(rule_id, name) for name in definition.group_by]
        found = self._reads[rule_id] = _Reads(
            definition.rules.index(rule_id),
            tuple((name, names.get(name, ())) for name in grouped),
            tuple((name, names.get(name, ())) for name in definition.fields),
        )
        return found

    def _key(self, reads: _Reads, event: Event) -> tuple[str, ...] | None:
        value: object = event.fields.get(reads.only) if reads.only else None
        if type(value) is str and value:
            return (value[:MAX_VALUE_TEXT],)
        key = []
        for name, also in reads.key:
            value = event.fields.get(name)
            if type(value) is not str or not value:
                value = next((text for item in values_of(event, name, also) if (text := as_text(item))), None)
                if value is None:
                    return None
            key.append(value[:MAX_VALUE_TEXT])
        return tuple(key)

    def _seen(self, reads: _Reads, event: Event) -> Seen | None:
        at_us = _at_us(event.at_utc)
        if not self._has_value:
            return Seen(at_us, reads.position, event.id)
        value, number = "", 0.0
        if self.definition.type == "value_count":
            values = [_first_text(event, *named) for named in reads.values]
            if None in values:
                return None
            value = "\0".join([str(item)[:MAX_VALUE_TEXT] for item in values])
        else:
            found = next((as_number(item) for item in values_of(event, *reads.values[0])), None)
            if found is None:
                return None
            number = found
        return Seen(at_us, reads.position, event.id, value, number)

    def _identity(self, seen: Seen) -> tuple[str, int]:
        """An event that two rules match is one event where events are counted, and two where rules are."""
        return seen.id, seen.rule if self._is_temporal else 0

    # -- windows --------------------------------------------------------------------------------------------------

    def _completed(self, group: Group, seen: Seen) -> list[Seen] | None:
        """The first window that ends at or after the new event, holds it, and satisfies the condition.

        There is no second: it would end within a timespan of the first, which is told once.
        """
        span, events = self._span_us, group.events
        end = bisect_left(events, seen.at_us, key=_time)
        while end < len(events) and (last := events[end].at_us) <= seen.at_us + span:
            end = bisect_right(events, last, lo=end, key=_time)
            if self._told_near(group, last) is not None:
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

    def _told_near(self, group: Group, at_us: int) -> int | None:
        """The end of a window that fired within a timespan of that moment."""
        near = bisect_left(group.fired, at_us - self._span_us)
        is_near = near < len(group.fired) and group.fired[near] <= at_us + self._span_us
        return group.fired[near] if is_near else None

    def _satisfied(self, window: list[Seen]) -> bool:
        definition = self.definition
        if definition.type == "temporal" and definition.expression is not None:
            return _holds(definition.expression, {definition.rules[seen.rule] for seen in window})
        return definition.compare(self._figure(window))

    def _figure(self, window: list[Seen]) -> float:
        """What the condition is about."""
        kind = self.definition.type
        if kind == "event_count":
            return len(window)
        if kind == "value_count":
            return len({seen.value for seen in window})
        if kind == "temporal":
            return len({seen.rule for seen in window})
        if kind == "temporal_ordered":
            return _longest_chain(window, self.definition.rules)
        if kind in {"value_percentile", "value_median"}:
            return _percentile(sorted(seen.number for seen in window), self.definition.percentile)
        return _total(window) / (len(window) if kind == "value_avg" else 1)

    def standing(self, rule_id: str, event: Event) -> Standing:
        """Where the windows stand after a match was fed: of the one that ends with it."""
        reads = self._reads.get(rule_id) or self._reading(rule_id)
        key = self._key(reads, event)
        seen = None if key is None else self._seen(reads, event)
        if key is None or seen is None:
            wanted = (*reads.key, *reads.values)
            missing = tuple(name for name, also in wanted if not is_there(event, name, also))
            return Standing(is_counted=False, group={}, missing=missing, figure=0.0, is_enough=False, told=None)
        group, at = _group_of(self._groups[key]), seen.at_us
        start = bisect_left(group.events, at - self._span_us, key=_time)
        window = group.events[start : bisect_right(group.events, at, key=_time)]
        told = self._told_near(group, at)
        return Standing(
            is_counted=True,
            group=dict(zip(self.definition.group_by, key, strict=True)),
            missing=(),
            figure=self._figure(window) if window else 0.0,  # what is far off may have left at once
            is_enough=bool(window) and self._satisfied(window),
            told=None if told is None else _moment(told),
        )

    def _firing(self, key: tuple[str, ...], window: list[Seen]) -> Firing:
        group = dict(zip(self.definition.group_by, key, strict=True))
        span = Window(first=_moment(window[0].at_us), last=_moment(window[-1].at_us), count=len(window))
        return Firing(group=group, window=span, event_ids=tuple(dict.fromkeys(seen.id for seen in window)))

    # -- bounds ---------------------------------------------------------------------------------------------------

    def _trim(self, group: Group, ids: set[tuple[str, int]] | None) -> None:
        """Drop what no window needs any more, then what is beyond the bound."""
        events, reach = group.events, self._reach_us
        earliest, latest = min(group.recent), max(group.recent)
        if latest - earliest <= 2 * reach:
            first, stop = 0, len(events)
            if stop <= self._most and events[0].at_us >= earliest - reach and events[-1].at_us <= latest + reach:
                return
            if events[0].at_us < earliest - reach:
                first = bisect_left(events, earliest - reach, key=_time)
            if events[-1].at_us > latest + reach:
                stop = bisect_right(events, latest + reach, key=_time)
            over = stop - first - self._most
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
        if ids is not None:
            ids.difference_update(map(self._identity, gone))

    def _make_room(self, key: tuple[str, ...], now: int) -> None:
        """Evict whole groups, silent ones first, never the one at hand, whose newest arrival tells what time it is."""
        while len(self._groups) > MAX_GROUPS or self._held > MAX_EVENTS:
            oldest = next(iter(self._groups))
            if oldest == key:
                return
            held = self._groups.pop(oldest)
            lost = (held,) if isinstance(held, Seen) else held.events
            self._held -= len(lost)
            self.evictions += sum([abs(seen.at_us - now) <= self._reach_us for seen in lost])
            self._ids.pop(oldest, None)

    # -- state ----------------------------------------------------------------------------------------------------

    def save(self) -> _Saved:
        """All of it, for one snapshot."""
        return _Saved(self.definition.digest, [(list(key), _group_of(held)) for key, held in self._groups.items()])

    def load(self, saved: _Saved) -> bool:
        """Take saved state over if it is of this very definition."""
        if saved.digest != self.definition.digest:
            return False
        groups = [(tuple(key), group) for key, group in saved.groups if group.events]
        self._groups = OrderedDict(groups)
        self._ids = {}
        self._held = sum(len(group.events) for _, group in groups)
        return True


def _group_of(held: Group | Seen) -> Group:
    return Group(events=[held], fired=[], recent=[held.at_us]) if isinstance(held, Seen) else held


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


def _first_text(event: Event, name: str, also: tuple[str, ...]) -> str | None:
    value = event.fields.get(name)
    if type(value) is str:
        return value
    return next((text for item in values_of(event, name, also) if (text := as_text(item)) is not None), None)


@lru_cache(maxsize=64)
def _at_us(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _moment(at_us: int) -> datetime:
    return _EPOCH + at_us * _MICROSECOND
