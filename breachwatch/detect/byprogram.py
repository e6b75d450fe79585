"""Lines of a program none of whose messages can match are dismissed by its name, before anything else of them is read.

What the messages of a program promise is a form of its own (`RawForm.programs`). A rule that requires what no line of
that form can say is out of the question, whatever literals the line holds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from breachwatch.detect.hits import Hit
from breachwatch.detect.plan import Plan, Scope, in_scope
from breachwatch.detect.rule import Rule
from breachwatch.detect.witness import NEVER, Extractor
from breachwatch.model.rawform import RawForm

OFTEN, SELDOM, REST = 64, 4, 4_096
"""Of so many lines with the same candidates: where so few are dismissed, no more are asked about for a while."""

MAX_COMBINATIONS = 4_096
"""Combinations of rules that are remembered; an attacker could make any number."""


class _Combination:
    """What is known of the lines that are candidates for the same rules."""

    __slots__ = ("asked", "out", "rest", "spared")

    def __init__(self, out: frozenset[bytes]) -> None:
        self.out = out
        """Programs whose lines match none of the rules."""
        self.asked = self.spared = self.rest = 0


class ByProgram:
    """Says of lines of one form in which a program is named that they match none of some rules."""

    def __init__(self, rules: Sequence[Rule], form: RawForm, scope: Scope) -> None:
        self._rules = rules
        self._scope = scope
        self._named = re.compile(form.named.encode("ascii")).match
        self._forms = [(name.encode("ascii"), one, Extractor(one)) for name, one in form.programs.items()]
        self._impossible: dict[tuple[bytes, int], bool] = {}
        self._combinations: dict[tuple[int, ...], _Combination] = {}

    def judged(self, rules: tuple[int, ...], hit: Hit, line: bytes, plan: Plan) -> tuple[int, ...] | None:  # noqa: ARG002  # as others judge
        """No rules if the line, which is not dirty, satisfies none of these; else None: not known."""
        one = self._combinations.get(rules) or self._new(rules)
        if one.rest:
            one.rest -= 1
            return None
        found = self._named(line) if one.out else None
        is_out = found is not None and found[1] in one.out
        one.asked += 1
        one.spared += is_out
        if one.asked == OFTEN:
            one.rest = REST if one.spared < SELDOM else 0
            one.asked = one.spared = 0
        return () if is_out else None

    def _new(self, rules: tuple[int, ...]) -> _Combination:
        if len(self._combinations) >= MAX_COMBINATIONS:
            self._combinations.clear()
        out = [name for name, form, of in self._forms if all(self._is_impossible(name, form, of, one) for one in rules)]
        made = self._combinations[rules] = _Combination(frozenset(out))
        return made

    def _is_impossible(self, name: bytes, form: RawForm, extractor: Extractor, index: int) -> bool:
        found = self._impossible.get((name, index))
        if found is None:
            rule = self._rules[index]
            found = not in_scope([rule], form, self._scope) or extractor.of_rule(rule, routed=False) == NEVER
            self._impossible[name, index] = found
        return found
