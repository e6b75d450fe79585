"""Events that come one by one, or have many lines: a scan of their own values says which rules may match them.

Audit events, records of the journal, datagrams, changes of files: their lines are not skipped, so they are scanned once
they are read, a few together. What a rule needs is looked for in the values as they are compared (folded, as text), and
in the line for keywords: no encoding can hide anything there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from breachwatch.detect.engine import Detector
from breachwatch.detect.plan import Scope
from breachwatch.detect.predicate import record_texts
from breachwatch.detect.rule import And, Condition, Not, Or
from breachwatch.detect.ruleset import RuleSet
from breachwatch.detect.selector import Selector
from breachwatch.detect.values import folded
from breachwatch.model import Event, LogSource
from breachwatch.model.rawform import BETWEEN_VALUES, RawForm

VALUES = RawForm(name="values", is_values=True)
"""The form of what `text_of` makes."""

FEW_TESTS = 16
"""Rules with so many tests together are judged without a scan."""

FEW_EVENTS = 64
"""So many of a log source are judged without one: making a plan costs more."""

MAX_SOURCES = 64
"""Log sources with a plan of their own; JSON input may name any number."""

DOTTED_I = "\u0130"
"""Equals `i` in an expression, but becomes two characters in lower case: an event that holds it may match any rule."""


def text_of(event: Event) -> bytes:
    """The line of an event and all its values but those that we added, as they are compared, in one line."""
    raw, fields = event.raw, event.fields
    line = "" if fields.get("message") is raw else raw  # the line of a text log is a value itself
    text = BETWEEN_VALUES.join(["", *record_texts(fields), line, ""])
    dirty = b"\0" if DOTTED_I in text else b""  # plans take a line with a NUL for what may be anything
    return dirty + folded(text).replace("\n", " ").encode("utf-8", "surrogatepass") + b"\n"


class EventJudge:
    """The rules that events satisfy, as the reference finds them."""

    def __init__(self) -> None:
        self._events: Counter[LogSource] = Counter()
        """How many there were, by log source."""
        self._rules: RuleSet | None = None
        self._tests: dict[LogSource, int] = {}
        """How many tests these rules have for events of a log source."""

    def satisfied(self, events: Sequence[Event], detector: Detector, selector: Selector) -> list[Sequence[int]]:
        """Of each event the positions (ascending) of the rules for its log source whose conditions hold."""
        if detector.any_logsource:
            return self._of_source(events, None, detector, selector)
        sources = {event.logsource for event in events}
        if len(sources) == 1:
            return self._of_source(events, sources.pop(), detector, selector)
        found: list[Sequence[int]] = [()] * len(events)
        for source in sources:
            places = [place for place, event in enumerate(events) if event.logsource == source]
            verdicts = self._of_source([events[place] for place in places], source, detector, selector)
            for place, verdict in zip(places, verdicts, strict=True):
                found[place] = verdict
        return found

    def _of_source(
        self, events: Sequence[Event], source: LogSource | None, detector: Detector, selector: Selector
    ) -> list[Sequence[int]]:
        """The same of events of one log source; None: every rule is for every event."""
        judge, meant = selector.judge, detector.positions(source or events[0].logsource)
        if not self._is_worth_it(source or LogSource(), len(events), detector.rules, meant):
            if selector.looked_at is not None:
                selector.looked_at.update(dict.fromkeys(meant, len(events)))
            return [judge.satisfied(meant, event) for event in events]
        texts = [text_of(event) for event in events]
        scope = Scope(source, any_logsource=source is None)
        found: list[Sequence[int]] = []
        start = 0
        candidates = iter([*selector.look(VALUES, scope, b"".join(texts)).candidates, None])
        candidate = next(candidates)
        for event, text in zip(events, texts, strict=True):
            rules: Sequence[int] | None = ()
            if candidate is not None and candidate[0] == start:
                rules, candidate = candidate[2], next(candidates)
            found.append(judge.satisfied(meant if rules is None else rules, event) if rules != () else ())
            start += len(text)
        return found

    def _is_worth_it(self, source: LogSource, count: int, rules: RuleSet, meant: Sequence[int]) -> bool:
        """Take note of more events of a log source; true if there were enough, and are tests enough, for a plan."""
        if rules is not self._rules:
            self._rules, self._tests = rules, {}
        tests = self._tests.get(source)
        if tests is None:
            if len(self._tests) >= MAX_SOURCES:
                return False
            tests = self._tests[source] = sum(_tests_in(rules.rules[index].condition) for index in meant)
        if tests <= FEW_TESTS:
            return False
        self._events[source] += count
        return self._events[source] > FEW_EVENTS


def _tests_in(condition: Condition) -> int:
    if isinstance(condition, And | Or):
        return sum(map(_tests_in, condition.parts))
    return _tests_in(condition.part) if isinstance(condition, Not) else 1
