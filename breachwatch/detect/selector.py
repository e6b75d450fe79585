"""The plans of one set of rules: one for each form of lines and scope, made when needed, then fitted to the lines.

Which of several sound witnesses is looked for changes only the speed. So the first lines of a form are counted for all
of them, and the plan is made again with what is rare there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from breachwatch.detect.eventview import Judge
from breachwatch.detect.load import RuleSet
from breachwatch.detect.partial import Programs
from breachwatch.detect.plan import Plan, Scope
from breachwatch.detect.prefilter import backend, scanner
from breachwatch.detect.witness import Cost, Extractor, Pattern, prior
from breachwatch.model.rawform import RawForm

SAMPLE_BYTES = 1 << 20
"""Lines that a plan is fitted to."""

LEAST_BYTES = 1 << 20
RULE_BYTES = 4 << 10
"""Fitting begins after so many bytes, and so many for each rule: before, it would cost more than it gains."""

SHORT = 3
"""Shorter literals are everywhere: counting them costs more than knowing it."""

REGEX_COST = 2e-4
"""What an expression has to save, in hits per line, to be worth more than a literal."""


@dataclass(slots=True)
class _Fitted:
    """A plan, and the lines seen until it is fitted to them."""

    plan: Plan
    lines: list[bytes] = field(default_factory=list)
    size_bytes: int = 0
    passed_bytes: int = 0
    is_fitted: bool = False


class Selector:
    """Which lines a set of rules has to look at."""

    def __init__(self, rules: RuleSet, *, library: str | None = None) -> None:
        self._rules = rules
        self._library = backend() if library is None else library
        self._plans: dict[tuple[str, Scope], _Fitted] = {}
        self._programs: dict[str, Programs] = {}

    @cached_property
    def judge(self) -> Judge:
        """The rules as code over events."""
        return Judge(self._rules.rules)

    @property
    def is_able(self) -> bool:
        """False where no scanner is installed: then every line is read."""
        return bool(self._library)

    def plan(self, form: RawForm, scope: Scope, data: bytes = b"") -> Plan:
        """The plan for lines of this form, of which `data` are the next ones."""
        key = (form.name, scope)
        found = self._plans.get(key)
        if found is None:
            found = self._plans[key] = _Fitted(self._plan(form, scope, self.cost))
        if not found.is_fitted:
            room = SAMPLE_BYTES - found.size_bytes
            found.lines.append(data[:room])
            found.size_bytes += len(data[:room])
            found.passed_bytes += len(data)
            if found.passed_bytes >= max(LEAST_BYTES, RULE_BYTES * len(found.plan.rules)):
                found.plan = self._fit(form, scope, found.plan.rules, b"".join(found.lines))
                found.is_fitted, found.lines = True, []
        return found.plan

    def programs(self, form: RawForm) -> Programs | None:
        """What narrows the candidate rules of a line by a few of its fields; None for forms that have none."""
        if not form.escapes_json:
            return None
        found = self._programs.get(form.name)
        if found is None:
            found = self._programs[form.name] = Programs(self._rules.rules, form.derived)
        return found

    def cost(self, pattern: Pattern) -> float:
        """Expected hits of a pattern per line, before any was seen."""
        return prior(pattern)

    def _plan(self, form: RawForm, scope: Scope, cost: Cost) -> Plan:
        return Plan(self._rules.rules, form, scope, cost=cost, backend=self._library)

    def _fit(self, form: RawForm, scope: Scope, rules: Iterable[int], sample: bytes) -> Plan:
        """The plan that looks for what is rare in the sample."""
        asked: set[Pattern] = set()

        def note(pattern: Pattern) -> float:
            asked.add(pattern)
            return 0.0

        extractor = Extractor(form, note)
        for index in rules:
            extractor.of_rule(self._rules.rules[index], routed=scope.is_routed)
        fresh = sorted(one for one in asked if len(one.data) >= SHORT)
        return self._plan(form, scope, _Rates(self._counted(fresh, sample)).cost)

    def _counted(self, patterns: Sequence[Pattern], sample: bytes) -> dict[Pattern, float]:
        """Hits per line of each."""
        lines = max(1, sample.count(b"\n"))
        hits = Counter(number for _, number in scanner(patterns, self._library).hits(sample))
        return {pattern: hits[number] / lines for number, pattern in enumerate(patterns)}


@dataclass(frozen=True, slots=True)
class _Rates:
    """Measured frequencies; what was too short to measure is taken for common."""

    known: Mapping[Pattern, float]

    def cost(self, pattern: Pattern) -> float:
        """Expected hits per line: as measured and, for what never occurred, the rarer the longer."""
        measured = self.known.get(pattern)
        if measured is None:
            return max(0.1, prior(pattern))
        dear = REGEX_COST if pattern.is_regex else 0.0
        return measured + dear + 1e-3 * 0.5 ** min(len(pattern.data), 20)
