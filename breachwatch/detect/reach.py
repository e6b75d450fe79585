"""Which rules can never run here, because no source makes events of their kind. Nothing is skipped in silence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from breachwatch.detect.load import RuleSet
from breachwatch.detect.rule import Correlation, Rule, applies
from breachwatch.model import LogSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreachable:
    """A rule without a source."""

    rule: Rule | Correlation
    reason: str


def unreachable(rules: RuleSet, sources: Iterable[LogSource]) -> list[Unreachable]:
    """Rules whose log source none of these sources provides, and correlations that read only such rules."""
    given = list(dict.fromkeys(sources))
    lost: list[Unreachable] = []
    dead: set[str] = set()
    for rule in rules.rules:
        if not any(applies(rule.logsource, source) for source in given):
            dead.add(rule.ref.id)
            lost.append(Unreachable(rule=rule, reason=f"no source makes events of {described(rule.logsource)}"))
    for correlation in rules.correlations:
        if all(name in dead for name in correlation.rules):
            dead.add(correlation.ref.id)
            lost.append(Unreachable(rule=correlation, reason="none of the rules that it reads can run"))
    return lost


def described(logsource: LogSource) -> str:
    """A log source in Sigma's words."""
    parts = (("product", logsource.product), ("category", logsource.category), ("service", logsource.service))
    return ", ".join(f"{name} {value}" for name, value in parts if value) or "any kind"
