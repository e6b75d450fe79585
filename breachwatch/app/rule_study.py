"""Rules against real input: why they match, and whether the engine agrees with the reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from breachwatch.app.clock import SystemClock
from breachwatch.app.pipeline import Pipeline, SourceFormat
from breachwatch.detect.engine import Detector
from breachwatch.detect.explain import Step, explain
from breachwatch.detect.load import RuleSet
from breachwatch.detect.rule import Rule, applies
from breachwatch.detect.verify import Difference, Judge, ReferenceJudge, differences
from breachwatch.errors import UsageError
from breachwatch.model import Event
from breachwatch.watch.archive import read_pieces

MakeJudge = Callable[[Sequence[Rule], bool], Judge]

ENGINES: dict[str, MakeJudge] = {"reference": ReferenceJudge}
"""Engines that `rules verify` can compare with the reference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One rule on one event."""

    rule: Rule
    event: Event
    source_fits: bool
    """The event is of the rule's log source."""
    steps: tuple[Step, ...]

    @property
    def matches(self) -> bool:
        """True if the rule matches the event."""
        return self.source_fits and self.steps[0].holds


def events_in(paths: Sequence[Path], log_format: str) -> Iterator[Event]:
    """The events of these files. Raises: WatchError."""
    clock = SystemClock()
    pipeline = Pipeline(host="localhost", detector=Detector(RuleSet()), now=clock.now)
    for path in paths:
        for seen in read_pieces(path, max_line_bytes=65_536, clock=clock):
            yield from pipeline.parse(seen, SourceFormat(format=log_format))


def explained(rules: RuleSet, rule_id: str, events: Iterator[Event]) -> Iterator[Explanation]:
    """Why each event matches the rule or does not. Raises: UsageError."""
    rule = next((rule for rule in rules.rules if rule_id in (rule.ref.id, rule.name)), None)
    if rule is None:
        raise UsageError(
            f"no rule has the id {rule_id!r}", hint="see `breachwatch rules list`; correlations have no line"
        )
    for event in events:
        yield Explanation(
            rule=rule,
            event=event,
            source_fits=applies(rule.logsource, event.logsource),
            steps=tuple(explain(rule.condition, event)),
        )


@dataclass(slots=True)
class Verification:
    """An engine beside the reference."""

    rules: RuleSet
    engine: str
    any_logsource: bool = False
    events: int = 0

    def run(self, events: Iterator[Event]) -> Iterator[Difference]:
        """Each event on which they differ."""
        engine = ENGINES[self.engine](self.rules.rules, self.any_logsource)
        reference = ReferenceJudge(self.rules.rules, self.any_logsource)
        return differences(self._counted(events), engine, reference)

    def _counted(self, events: Iterator[Event]) -> Iterator[Event]:
        for event in events:
            self.events += 1
            yield event
