"""Which rules can never run here, because no source makes events of their kind. Nothing is skipped in silence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from breachwatch.detect.rule import Correlation, Rule, applies
from breachwatch.detect.ruleset import RuleSet
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
        missing = [name for name in correlation.rules if name in dead]
        if len(missing) == len(correlation.rules):
            reason = "none of the rules that it reads can run"
        elif missing and not _can_fire(correlation, dead):
            reason = f"it needs {', '.join(missing)}, which cannot run"
        else:
            continue
        dead.add(correlation.ref.id)
        lost.append(Unreachable(rule=correlation, reason=reason))
    return lost


def _can_fire(correlation: Correlation, dead: set[str]) -> bool:
    """Whether the rules that can run suffice: of temporal correlations mostly all are needed."""
    if correlation.type not in {"temporal", "temporal_ordered"} or correlation.expression is not None:
        return True
    alive = [name not in dead for name in correlation.rules]
    most = alive.index(False) if correlation.type == "temporal_ordered" else sum(alive)
    return any(correlation.compare(number) for number in range(1, most + 1))


def described(logsource: LogSource) -> str:
    """A log source in Sigma's words."""
    parts = (("product", logsource.product), ("category", logsource.category), ("service", logsource.service))
    return ", ".join(f"{name} {value}" for name, value in parts if value) or "any kind"
