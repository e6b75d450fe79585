"""Comparing an engine with the reference, event by event: any difference is an error of the engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from breachwatch.detect.reference import holds
from breachwatch.detect.rule import Rule, applies
from breachwatch.model import Event


class Judge(Protocol):
    """An engine, as far as plain rules go."""

    def rules_matching(self, event: Event) -> set[str]:
        """Ids of the rules that the event satisfies, those that only feed correlations included."""


@dataclass(frozen=True, slots=True)
class ReferenceJudge:
    """Every rule on every event."""

    rules: Sequence[Rule]
    any_logsource: bool = False

    def rules_matching(self, event: Event) -> set[str]:
        """Ids of the rules that the event satisfies."""
        return {
            rule.ref.id
            for rule in self.rules
            if (self.any_logsource or applies(rule.logsource, event.logsource)) and holds(rule.condition, event)
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """An event on which the two do not agree."""

    event: Event
    missed: tuple[str, ...]
    """Rules that the reference finds and the engine does not."""
    invented: tuple[str, ...]


def differences(events: Iterable[Event], engine: Judge, reference: Judge) -> Iterator[Difference]:
    """Each event on which they differ."""
    for event in events:
        found, right = engine.rules_matching(event), reference.rules_matching(event)
        if found != right:
            yield Difference(event=event, missed=tuple(sorted(right - found)), invented=tuple(sorted(found - right)))
