"""Which of several sound witnesses to look for: what is rare in a sample of the lines. The choice changes only speed.

Every literal a rule could be found by is counted in the sample, in one pass, and the rarest are taken. Where events
name their log source, rules for sources that the sample does not name are found by that name alone.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from breachwatch.detect.garbage import uncollected
from breachwatch.detect.hits import PlainHits
from breachwatch.detect.plan import LINE_WORK
from breachwatch.detect.prefilter import scanner
from breachwatch.detect.rule import Condition, Rule
from breachwatch.detect.witness import (
    NEVER,
    SHORT,
    Extractor,
    Options,
    Pattern,
    Witness,
    literal,
    prior,
)
from breachwatch.model import LogSource
from breachwatch.model.rawform import RawForm

FEW_LINES = 4
"""Fewer say nothing: then the choice is a guess, made in half the time."""

SLICE_BYTES = 64 << 10
"""What is dear to count is counted in so much of the sample."""

REGEX_COST = 2e-4
"""What an expression has to save, in hits per line, to be worth more than a literal."""

EXPRESSION_WORK = 7e-5
"""What searching for an expression costs Hyperscan per byte, in hits. Rules whose literals are dearer try it."""

MAX_EXPRESSIONS = 8
"""So many rules, the dearest, may be found by expressions."""

MAX_EXPRESSION_BYTES = 2_048
"""Longer ones are left to the guards: there is a length that a scanner refuses."""

RARE = 1e-4
"""Cost of the words of a log source below which its rules are found by these alone."""

MeasuredCost = Callable[[Pattern, float | None], float]
"""Price of a pattern, given its hits per line in a sample; None: it was not counted."""


def cost_of(pattern: Pattern, rate: float | None) -> float:
    """Expected hits per line: as measured and, for what never occurred, the rarer the longer; unmeasured, a guess."""
    if rate is None:
        return prior(pattern)
    dear = REGEX_COST if pattern.is_regex else 0.0
    return rate + dear + 1e-3 * 0.5 ** min(len(pattern.data), 20)


@dataclass(frozen=True, slots=True)
class Choice:
    """What a plan looks for, and what that is expected to cost."""

    witnesses: Mapping[int, Witness | None]
    work_per_byte: float
    """Expected, as `Plan.work` counts it."""
    lines_per_byte: float


class Fitting:
    """The choice for one sample of lines of one form."""

    def __init__(
        self,
        rules: Sequence[Rule],
        form: RawForm,
        sample: bytes,
        *,
        library: str,
        cost: MeasuredCost = cost_of,
        expression_work: float = math.inf,
    ) -> None:
        """`library`: name of the scanner that counts.

        `expression_work`: what searching for an expression costs per byte, in hits.
        """
        self._rules = rules
        self._form = form
        self._rates = _Rates(sample if sample.count(b"\n") >= FEW_LINES else b"", library)
        self._cost = cost
        self._costs: dict[Pattern, float] = {}
        self._expression_work = expression_work

    def choice(self, among: Iterable[int], *, routed: bool) -> Choice:
        """Witnesses of the rules at these positions; `routed`: events say of which log source they are."""
        with uncollected():
            witnesses: dict[int, Witness | None] = dict.fromkeys(among)
            rest = self._found_by_source(witnesses) if routed else list(witnesses)
            extractor = _Extractor(self._form, self._price)
            self._measure(extractor, rest, routed=routed)
            for index in rest:
                witnesses[index] = extractor.of_rule(self._rules[index], routed=routed)
            if self._rates.lines and self._expression_work < math.inf:
                self._try_expressions(witnesses, rest, routed=routed)
        rates = self._rates
        rules = Counter(pattern for witness in witnesses.values() for pattern in witness or ())
        work = sum(rate * (LINE_WORK + count) for pattern, count in rules.items() if (rate := rates.rate(pattern)))
        lines_per_byte = rates.lines / max(1, rates.size)
        return Choice(witnesses, work * lines_per_byte, lines_per_byte)

    def _price(self, pattern: Pattern) -> float:
        found = self._costs.get(pattern)
        if found is None:
            found = self._costs[pattern] = self._cost(pattern, self._rates.known.get(pattern))
        return found

    def _measure(self, extractor: _Extractor, indexes: Iterable[int], *, routed: bool) -> None:
        """Count everything these rules could be found by."""
        if not self._rates.lines:
            return
        extractor.noted = set()
        for index in indexes:
            extractor.of_rule(self._rules[index], routed=routed)
        self._rates.measure(extractor.noted)
        extractor.noted = None

    def _try_expressions(self, witnesses: dict[int, Witness | None], rest: Iterable[int], *, routed: bool) -> None:
        """Let rules whose literals are in many lines be found by expressions, where these are worth a search."""
        own = self._expression_work * self._rates.size / self._rates.lines
        dear = sorted((-self._sum(found), index) for index in rest if (found := witnesses[index]))[:MAX_EXPRESSIONS]
        indexes = [index for price, index in dear if -price > own]
        extractor = _Extractor(self._form, lambda one: self._price(one) + (own if one.is_regex else 0.0), dear=True)
        self._measure(extractor, indexes, routed=routed)
        for index in indexes:
            witnesses[index] = extractor.of_rule(self._rules[index], routed=routed)

    def _found_by_source(self, witnesses: dict[int, Witness | None]) -> list[int]:
        """Fill in the rules for sources that the sample does not name; the other rules."""
        by_source: dict[LogSource, Sequence[Witness] | None] = {}
        for index in witnesses:
            source = self._rules[index].logsource
            if source not in by_source:
                words = self._form.words_of(source)
                by_source[source] = None if words is None else [frozenset(map(literal, one)) for one in words if one]
        if self._rates.lines:
            self._rates.measure({one for options in by_source.values() for option in options or () for one in option})
        chosen: dict[LogSource, Witness] = {}
        for source, options in by_source.items():
            if options is None:
                chosen[source] = NEVER
            elif options and self._rates.lines:
                best = min(options, key=self._sum)
                if self._sum(best) < RARE:
                    chosen[source] = best
        rest = []
        for index in witnesses:
            found = chosen.get(self._rules[index].logsource)
            if found is None:
                rest.append(index)
            else:
                witnesses[index] = found
        return rest

    def _sum(self, witness: Witness) -> float:
        return sum(map(self._price, witness))


class _Extractor(Extractor):
    """One that remembers what leaves offer, so that asking twice costs little."""

    def __init__(self, form: RawForm, cost: Callable[[Pattern], float], *, dear: bool = False) -> None:
        """`dear`: expressions are offered too."""
        super().__init__(form, self._noting)
        self._dear = dear
        self._real = cost
        self.noted: set[Pattern] | None = None
        """Patterns asked about, while it is a set: they cost nothing then."""
        self._offered: dict[tuple[int, bool], Options] = {}

    def _noting(self, pattern: Pattern) -> float:
        if self.noted is None:
            return self._real(pattern)
        self.noted.add(pattern)
        return 0.0

    def options(self, leaf: Condition, *, negated: bool) -> Options:
        """All the witnesses a leaf has."""
        key = id(leaf), negated  # the rules hold their leaves as long as this lives
        found = self._offered.get(key)
        if found is None:
            found = super().options(leaf, negated=negated)
            expressions = self.expressions(leaf) if self._dear and not negated else NEVER
            is_short = all(len(one.data) <= MAX_EXPRESSION_BYTES for one in expressions)
            self._offered[key] = found = [*found, expressions] if expressions and is_short else found
        return found


class _Rates:
    """Hits per line in a sample."""

    def __init__(self, sample: bytes, library: str) -> None:
        self._low = sample.lower()
        self._library = library
        self.size = len(sample)
        self.lines = sample.count(b"\n")
        cut = self._low.rfind(b"\n", 0, SLICE_BYTES) + 1
        self._part = self._low[:cut] if cut else self._low[:SLICE_BYTES]
        self._part_lines = max(1, self._part.count(b"\n"))
        self.known: dict[Pattern, float] = {}

    def rate(self, pattern: Pattern) -> float:
        """As measured; of what was not measured, none."""
        return self.known.get(pattern, 0.0)

    def measure(self, patterns: Iterable[Pattern]) -> None:
        """Count those that are not known yet."""
        literals: list[Pattern] = []
        for one in sorted(set(patterns) - self.known.keys()):
            if not one.is_regex and len(one.data) >= SHORT:
                literals.append(one)
            else:  # finding all the places of short ones would cost more than counting them in a part
                self.known[one] = self._in_part(one) / self._part_lines
        if literals:
            places = PlainHits()
            scanner(literals, self._library).scan(self._low, places)
            hits = Counter(number for _, number in places.found)
            lines = max(1, self.lines)
            self.known.update((one, hits[number] / lines) for number, one in enumerate(literals))

    def _in_part(self, pattern: Pattern) -> int:
        if not pattern.is_regex:
            return self._part.count(pattern.data)
        return sum(1 for _ in re.finditer(b"(?m)" + pattern.data.lower(), self._part))
