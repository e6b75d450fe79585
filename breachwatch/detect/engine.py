"""Events in, matches out: rules by log source, then the correlations that read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b

import msgspec

from breachwatch.detect.correlate import Correlator, Firing, _Saved
from breachwatch.detect.reference import holds
from breachwatch.detect.rule import Rule, applies
from breachwatch.detect.ruleset import RuleSet
from breachwatch.model import Event, LogSource, Match, RuleRef

_Telling = tuple[str, RuleRef, bool, bool]
"""What the ids of a rule's matches begin with, what travels with these, whether there are any, and whether correlations
read it."""

_snapshot_decoder = msgspec.msgpack.Decoder(dict[str, _Saved])


class Detector:
    """One host's detection. `any_logsource` tries every rule on every event."""

    def __init__(self, rules: RuleSet, *, any_logsource: bool = False) -> None:
        self.rules = rules
        self.any_logsource = any_logsource
        self._positions: dict[LogSource, tuple[int, ...]] = {}
        self.correlators: Mapping[str, Correlator] = {item.ref.id: Correlator(item) for item in rules.correlations}
        """The windows of each correlation, by its id."""
        self._readers: dict[str, list[Correlator]] = {}
        for correlator in self.correlators.values():
            for name in correlator.definition.rules:
                self._readers.setdefault(name, []).append(correlator)
        self._meant: dict[tuple[tuple[int, ...], LogSource], tuple[int, ...]] = {}
        self._telling: dict[int, _Telling] = {}
        self._telling_of: dict[tuple[tuple[int, ...], LogSource], list[tuple[str, RuleRef]] | None] = {}
        self._dropped = 0
        self._changed = True
        self._snapshot = b""

    @property
    def evictions(self) -> int:
        """Events that left a window before their time because memory is bounded."""
        return self._dropped + sum(correlator.evictions for correlator in self.correlators.values())

    @property
    def late(self) -> int:
        """Events that came later than windows are kept for."""
        return sum(correlator.late for correlator in self.correlators.values())

    def feed(self, event: Event, satisfied: Sequence[int] | None = None) -> list[Match]:
        """What this event makes match: rules first, then correlations in the order of their references.

        `satisfied`: positions (ascending) of the rules for its log source (`meant`) whose conditions hold, where these
        are known; else all are judged here.
        """
        if satisfied is None:
            rules = self.rules.rules
            satisfied = [index for index in self.positions(event.logsource) if holds(rules[index].condition, event)]
        found: list[Match] = []
        telling, name = self._telling, event.id
        event_ids = (name,)
        for index in satisfied:
            mark, rule, emits, is_read = telling.get(index) or self._told_of(index)
            if emits:
                found.append(Match(id=mark + name, rule=rule, event=event, event_ids=event_ids))
            if is_read:
                self._correlate(rule.id, event, found)
        return found

    def feed_judged(self, event: Event, satisfied: tuple[int, ...]) -> list[Match]:
        """The same, where the conditions of just these rules hold, be they for its log source or not."""
        key = satisfied, event.logsource
        try:
            telling = self._telling_of[key]
        except KeyError:
            telling = self._telling_of_all(*key)
        if telling is None:
            return self.feed(event, self.meant(*key))
        found: list[Match] = []
        name = event.id
        event_ids = (name,)
        for mark, rule in telling:
            match = Match(id=mark + name, rule=rule, event=event, event_ids=event_ids)
            found.append(match)
        return found

    def _telling_of_all(self, satisfied: tuple[int, ...], logsource: LogSource) -> list[tuple[str, RuleRef]] | None:
        """Of those of the rules that are for a log source; None if there is more to any of them than matches."""
        if len(self._telling_of) > 10_000:  # noqa: PLR2004  # as in `meant`
            self._telling_of.clear()
        told = [self._told_of(index) for index in self.meant(satisfied, logsource)]
        is_all = all(emits and not is_read for _, _, emits, is_read in told)
        found = self._telling_of[satisfied, logsource] = [one[:2] for one in told] if is_all else None
        return found

    def _told_of(self, index: int) -> _Telling:
        rule = self.rules.rules[index]
        telling = self._telling[index] = _mark(rule.ref.id), rule.ref, rule.emits, rule.ref.id in self._readers
        return telling

    def matching(self, event: Event, *, judged: Sequence[int] | None = None) -> set[str]:
        """Ids of all the rules that the event satisfies, as `feed` would find them, with nothing remembered."""
        rules = self.rules.rules
        chosen = range(len(rules)) if judged is None else judged
        return {
            rule.ref.id
            for rule in (rules[index] for index in chosen)
            if self._fits(rule, event.logsource) and (judged is not None or holds(rule.condition, event))
        }

    def positions(self, logsource: LogSource) -> tuple[int, ...]:
        """Positions of the rules for events of a log source."""
        found = self._positions.get(logsource)
        if found is None:
            if len(self._positions) > 1_000:  # noqa: PLR2004  # JSON input may name any number of sources
                self._positions.clear()
            rules = self.rules.rules
            found = tuple([index for index, rule in enumerate(rules) if self._fits(rule, logsource)])
            self._positions[logsource] = found
        return found

    def meant(self, rules: tuple[int, ...], logsource: LogSource) -> tuple[int, ...]:
        """Those of the rules, by position, that are for events of a log source."""
        if self.any_logsource:
            return rules
        key = (rules, logsource)
        found = self._meant.get(key)
        if found is None:
            if len(self._meant) > 10_000:  # noqa: PLR2004  # hostile lines make any combination
                self._meant.clear()
            fitting = [index for index in rules if self._fits(self.rules.rules[index], logsource)]
            found = self._meant[key] = tuple(fitting)
        return found

    def _fits(self, rule: Rule, logsource: LogSource) -> bool:
        return self.any_logsource or applies(rule.logsource, logsource)

    def _correlate(self, rule_id: str, event: Event, found: list[Match]) -> None:
        for correlator in self._readers.get(rule_id, ()):
            self._changed = True
            definition = correlator.definition
            firing = correlator.feed(rule_id, event)
            if firing is None:
                continue
            match = _correlation_match(correlator, firing, event)
            if definition.emits:
                found.append(match)
            self._correlate(definition.ref.id, as_event(match), found)

    # -- state ----------------------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """All windows, to be stored with the offsets they came from. Equal bytes: nothing changed."""
        if self._changed:
            state = {name: correlator.save() for name, correlator in self.correlators.items()}
            self._snapshot = msgspec.msgpack.encode(state)
            self._changed = False
        return self._snapshot

    def restore(self, saved: bytes) -> None:
        """Take a snapshot over; windows of rules that changed since are dropped and counted as evictions."""
        try:
            state = _snapshot_decoder.decode(saved)
        except (msgspec.DecodeError, msgspec.ValidationError):
            self._dropped += 1
            return
        for name, part in state.items():
            correlator = self.correlators.get(name)
            if correlator is None or not correlator.load(part):
                self._dropped += sum(len(group.events) for _, group in part.groups)
        self._changed = True


def _mark(rule_id: str) -> str:
    """What the id of a rule's match begins with; the id of the event follows."""
    return blake2b(rule_id.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _match_id(*parts: str) -> str:
    return blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


def as_event(match: Match) -> Event:
    """What correlations read of a match: of a window its group, at the time at which it ends."""
    event, window = match.event, match.window
    if window is None:
        return event
    fields = {**event.fields, **match.group}
    return Event(id=match.id, at_utc=window.last, logsource=event.logsource, fields=fields, raw=event.raw)


def _correlation_match(correlator: Correlator, firing: Firing, event: Event) -> Match:
    ref = correlator.definition.ref
    return Match(
        id=_match_id(ref.id, *firing.group.values(), *firing.event_ids[-1:], firing.window.first.isoformat()),
        rule=ref,
        event=event,
        group=firing.group,
        window=firing.window,
        event_ids=firing.event_ids,
    )
