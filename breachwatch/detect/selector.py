"""The plans of one set of rules: one for each form of lines and scope, made when first needed."""

from __future__ import annotations

from breachwatch.detect.load import RuleSet
from breachwatch.detect.plan import Plan, Scope
from breachwatch.detect.prefilter import backend
from breachwatch.detect.witness import Pattern, prior
from breachwatch.model.rawform import RawForm


class Selector:
    """Which lines a set of rules has to look at."""

    def __init__(self, rules: RuleSet, *, library: str | None = None) -> None:
        self._rules = rules
        self._library = backend() if library is None else library
        self._plans: dict[tuple[str, Scope], Plan] = {}

    @property
    def is_able(self) -> bool:
        """False where no scanner is installed: then every line is read."""
        return bool(self._library)

    def plan(self, form: RawForm, scope: Scope) -> Plan:
        """The plan for lines of this form."""
        key = (form.name, scope)
        found = self._plans.get(key)
        if found is None:
            found = self._plans[key] = Plan(self._rules.rules, form, scope, cost=self.cost, backend=self._library)
        return found

    def cost(self, pattern: Pattern) -> float:
        """Expected hits of a pattern per line."""
        return prior(pattern)
