"""Rules against real input: why they match, and whether the engine agrees with the reference."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from breachwatch.app.clock import SystemClock
from breachwatch.app.pipeline import Pipeline, Seen, SourceFormat
from breachwatch.detect.engine import Detector, as_event
from breachwatch.detect.explain import Step, explain, explain_window
from breachwatch.detect.rule import Rule, applies
from breachwatch.detect.ruleset import RuleSet
from breachwatch.detect.sample import Sampler
from breachwatch.errors import UsageError
from breachwatch.model import Event, LogSource, RuleRef
from breachwatch.watch.archive import read_pieces

ENGINES = {"fast": True, "reference": False}
"""Engines that `rules verify` can compare with the reference, and whether they skip lines that no rule can match."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One rule or correlation on one event."""

    rule: RuleRef
    event: Event
    wanted: LogSource
    """What the rule is for."""
    source_fits: bool
    """The event is of it."""
    steps: tuple[Step, ...]

    @property
    def matches(self) -> bool:
        """True if the rule matches the event."""
        return self.source_fits and self.steps[0].holds


def pieces_in(paths: Sequence[Path]) -> Iterator[Seen]:
    """These files, as a scan reads them. Raises: WatchError."""
    clock = SystemClock()
    for path in paths:
        yield from read_pieces(path, max_line_bytes=65_536, clock=clock)


def events_in(paths: Sequence[Path], log_format: str) -> Iterator[Event]:
    """The events of these files. Raises: WatchError."""
    pipeline = Pipeline(host="localhost", detector=Detector(RuleSet()), now=SystemClock().now)
    for seen in pieces_in(paths):
        yield from pipeline.parse(seen, SourceFormat(format=log_format))


def explained(rules: RuleSet, rule_id: str, events: Iterable[Event]) -> Iterator[Explanation]:
    """Why each event matches the rule or does not; of a correlation, what it makes of each match that it reads.

    Raises: UsageError.
    """
    for rule in rules.rules:
        if rule_id in (rule.ref.id, rule.name):
            return _explained_rule(rule, events)
    for correlation in rules.correlations:
        if rule_id in (correlation.ref.id, correlation.name):
            return _explained_windows(rules, correlation.ref, events)
    raise UsageError(f"no rule has the id {rule_id!r}", hint="see `breachwatch rules list`")


def _explained_rule(rule: Rule, events: Iterable[Event]) -> Iterator[Explanation]:
    for event in events:
        yield Explanation(
            rule=rule.ref,
            event=event,
            wanted=rule.logsource,
            source_fits=applies(rule.logsource, event.logsource),
            steps=tuple(explain(rule.condition, event)),
        )


def _explained_windows(rules: RuleSet, ref: RuleRef, events: Iterable[Event]) -> Iterator[Explanation]:
    detector = Detector(
        RuleSet(
            rules=tuple(replace(rule, emits=True) for rule in rules.rules),
            correlations=tuple(replace(one, emits=True) for one in rules.correlations),
        )
    )
    correlator = detector.correlators[ref.id]
    for event in events:
        found = detector.feed(event)
        fired = any(match.rule.id == ref.id for match in found)
        for match in found:
            if match.rule.id in correlator.definition.rules:
                read = as_event(match)
                steps = explain_window(correlator, match.rule.title, match.rule.id, read, fired=fired)
                yield Explanation(rule=ref, event=event, wanted=event.logsource, source_fits=True, steps=tuple(steps))


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """An event on which the two do not agree."""

    event: Event
    missed: tuple[str, ...]
    """Rules that the reference finds and the engine does not."""
    invented: tuple[str, ...]


@dataclass(slots=True)
class Verification:
    """An engine beside the reference: each with its own parsers, on the same pieces of input."""

    rules: RuleSet
    engine: str
    any_logsource: bool = False
    log_format: str = "auto"
    events: int = 0
    candidates: int = 0

    def run(self, pieces: Iterable[Seen]) -> Iterator[Difference]:
        """Each event on which they differ."""
        started = SystemClock().now()
        engine, reference = (
            self._pipeline(started, prefilter=prefilter) for prefilter in (ENGINES[self.engine], False)
        )
        how = SourceFormat(format=self.log_format)
        for seen in pieces:
            found, right = _matching(engine, seen, how), _matching(reference, seen, how)
            self.events, self.candidates = reference.events, engine.candidates
            for identity, (event, rules) in right.items():
                mine = found.pop(identity, (event, set[str]()))[1]
                if mine != rules:
                    yield _difference(event, mine, rules)
            for event, mine in found.values():
                yield _difference(event, mine, set())

    def _pipeline(self, now: datetime, *, prefilter: bool) -> Pipeline:
        rules = RuleSet(rules=tuple(replace(rule, emits=True) for rule in self.rules.rules))
        detector = Detector(rules, any_logsource=self.any_logsource)
        return Pipeline(
            host="localhost", detector=detector, now=lambda: now, prefilter=prefilter, sampler=Sampler(every=0)
        )


def _matching(pipeline: Pipeline, seen: Seen, how: SourceFormat) -> dict[tuple[str, datetime], tuple[Event, set[str]]]:
    """Events that match something, by id and time."""
    return {
        (event.id, event.at_utc): (event, {match.rule.id for match in matches})
        for event, matches in pipeline.matches(seen, how)
        if matches
    }


def _difference(event: Event, found: set[str], right: set[str]) -> Difference:
    return Difference(event=event, missed=tuple(sorted(right - found)), invented=tuple(sorted(found - right)))
