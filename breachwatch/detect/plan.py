"""What to look for in the lines of one form, and which rules a line then is a candidate for.

The promise: a rule that matches a line is among the candidates that `Plan.candidates` gives for it. Tests compare that
with the reference; `Sampler` (sample.py) does so on live data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

from breachwatch.detect.foreign import foreign_lines
from breachwatch.detect.prefilter import Hits, Scanner, scanner
from breachwatch.detect.rule import Rule, applies
from breachwatch.detect.witness import Cost, Extractor, Pattern, Witness, prior
from breachwatch.model import LogSource
from breachwatch.model.rawform import RawForm

MAX_LINE_BYTES = 65_536
"""Parsers cut longer lines, which may tear a character: such a line is a candidate for every rule."""

MAX_SETS = 50_000
"""Combinations of hits that are remembered; an attacker could make any number."""

EVERY: tuple[int, ...] | None = None
"""Stands for all rules of a plan: the line is not what it seems."""

NUL = Pattern(is_regex=False, data=b"\0")


class Candidate(NamedTuple):
    """A line that may match, by its place in the data."""

    start: int
    end: int
    """Behind its line feed."""
    rules: tuple[int, ...] | None
    """Positions of the rules it may match; EVERY: any rule of the plan."""


class Scope(NamedTuple):
    """Which rules a source is for."""

    logsource: LogSource | None = None
    """All its events are of this log source; None: the parser says of each."""
    any_logsource: bool = False
    """Every rule is tried, whatever its log source."""

    @property
    def is_routed(self) -> bool:
        """Events are of various log sources, and rules are for some."""
        return not self.any_logsource and self.logsource is None


class Plan:
    """Patterns of all the rules that lines of one form can match."""

    def __init__(
        self,
        rules: Sequence[Rule],
        form: RawForm,
        scope: Scope,
        *,
        cost: Cost = prior,
        anchored: frozenset[int] = frozenset(),
        backend: str | None = None,
        known: Mapping[int, Witness | None] | None = None,
    ) -> None:
        """`known`: witnesses to keep, of all the rules but those that are `anchored`."""
        self.form = form
        if known is None:
            self.rules = tuple(index for index, rule in enumerate(rules) if _in_scope(rule, form, scope))
        else:
            self.rules = tuple(known)
        extractor = Extractor(form, cost, anchored=anchored)
        self.witnesses: Mapping[int, Witness | None] = {
            index: extractor.of_rule(index, rules[index], routed=scope.is_routed)
            if known is None or index in anchored
            else known[index]
            for index in self.rules
        }
        self.open = tuple(index for index, witness in self.witnesses.items() if witness is None)
        """Rules about which the bytes of a line say nothing: every line is a candidate for these."""
        by_pattern: dict[Pattern, list[int]] = {}
        for index, witness in self.witnesses.items():
            for pattern in witness or ():
                by_pattern.setdefault(pattern, []).append(index)
        self.patterns = [
            *sorted(by_pattern),
            NUL,
            *(Pattern(is_regex=True, data=one.encode("ascii")) for one in form.dirty),
        ]
        self._rules_of = [frozenset(by_pattern[pattern]) for pattern in self.patterns[: len(by_pattern)]]
        self._dirty = len(by_pattern)
        """Patterns from this number on make a line dirty."""
        self._backend = backend
        self._sets: dict[frozenset[int] | int, tuple[int, ...] | None] = {}

    def candidates(self, data: bytes) -> list[Candidate]:
        """Lines that may match, in order. `data` holds whole lines, each with its line feed."""
        hits = self._hits(data)
        found: list[Candidate] = []
        put = found.append
        find, find_back, candidate_rules = data.find, data.rfind, self._candidate_rules
        start = end = 0
        first = -1
        more: set[int] | None = None
        for stop, number in hits:
            if stop > end:
                if first >= 0:
                    put(Candidate(start, end, candidate_rules(first, more)))
                    more = None
                before = find_back(b"\n", end, stop - 1)
                start = before + 1 if before >= 0 else end
                end = find(b"\n", stop - 1) + 1 or len(data)
                first = number
            elif number != first:
                if more is None:
                    more = {first}
                more.add(number)
        if first >= 0:
            put(Candidate(start, end, candidate_rules(first, more)))
        return self._with_open(data, found) if self.open else found

    @cached_property
    def _scanner(self) -> Scanner:
        """Compiled when first needed: many a plan is made only to be weighed."""
        return scanner(self.patterns, self._backend)

    def _hits(self, data: bytes) -> Hits:
        hits = self._scanner.hits(data)
        dirty = self._dirty
        if data[:1] in (b"\n", b"\r"):
            hits.append((1, dirty))
        hits.extend((stop, dirty) for stop in foreign_lines(data, digits=self.form.digits_fold))
        hits.extend((stop, dirty) for stop in _long_lines(data))
        hits.sort()
        return hits

    def _candidate_rules(self, first: int, more: set[int] | None) -> tuple[int, ...] | None:
        key = first if more is None else frozenset(more)
        try:
            return self._sets[key]
        except KeyError:
            pass
        numbers: Iterable[int] = (first,) if more is None else more
        rules: tuple[int, ...] | None
        if max(numbers) >= self._dirty:
            rules = EVERY
        else:
            rules = tuple(sorted(frozenset(self.open).union(*(self._rules_of[number] for number in numbers))))
        if len(self._sets) >= MAX_SETS:
            self._sets.clear()
        self._sets[key] = rules
        return rules

    def _with_open(self, data: bytes, found: list[Candidate]) -> list[Candidate]:
        """The same, and every other line for the open rules."""
        every: list[Candidate] = []
        at = 0
        for candidate in found:
            every.extend(_lines(data, at, candidate.start, self.open))
            every.append(candidate)
            at = candidate.end
        every.extend(_lines(data, at, len(data), self.open))
        return every


def _in_scope(rule: Rule, form: RawForm, scope: Scope) -> bool:
    if scope.any_logsource:
        return True
    if scope.logsource is not None:
        return applies(rule.logsource, scope.logsource)
    return not form.sources or any(applies(rule.logsource, source) for source in form.sources)


def _lines(data: bytes, start: int, stop: int, rules: tuple[int, ...]) -> Iterable[Candidate]:
    while start < stop:
        end = data.find(b"\n", start, stop) + 1 or stop
        yield Candidate(start, end, rules)
        start = end


def _long_lines(data: bytes) -> Iterable[int]:
    """Offset behind some byte of each line that is longer than parsers read."""
    start, size = 0, len(data)
    while size - start > MAX_LINE_BYTES:
        before = data.rfind(b"\n", start, start + MAX_LINE_BYTES + 1)
        if before >= 0:
            start = before + 1
            continue
        yield start + 1
        start = data.find(b"\n", start) + 1 or size
