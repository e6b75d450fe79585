"""Which ATT&CK techniques the rules name, as a table and as a layer for the ATT&CK Navigator."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from breachwatch.model import RuleRef

TECHNIQUE = re.compile(r"attack\.(t\d{4}(?:\.\d{3})?)", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Technique:
    """A technique and the rules that name it."""

    id: str
    rules: tuple[RuleRef, ...]


def coverage(rules: Iterable[RuleRef]) -> list[Technique]:
    """Techniques in the order of their ids."""
    named: dict[str, list[RuleRef]] = {}
    for rule in rules:
        found = {match[1].upper() for tag in rule.tags if (match := TECHNIQUE.fullmatch(tag))}
        for technique in found:
            named.setdefault(technique, []).append(rule)
    return [Technique(id=name, rules=tuple(named[name])) for name in sorted(named)]


def navigator_layer(techniques: Sequence[Technique]) -> dict[str, object]:
    """A layer whose score is the number of rules. Source: ATT&CK Navigator layer format 4.5."""
    entries = [
        {
            "techniqueID": technique.id,
            "score": len(technique.rules),
            "comment": "; ".join(rule.title for rule in technique.rules[:20]),
            "showSubtechniques": "." in technique.id,
        }
        for technique in techniques
    ]
    highest = max((len(technique.rules) for technique in techniques), default=1) if entries else 1
    return {
        "name": "BreachWatch rules",
        "versions": {"layer": "4.5", "navigator": "5.1.0"},
        "domain": "enterprise-attack",
        "description": "How many rules in force name each technique.",
        "techniques": entries,
        "gradient": {"colors": ["#ffffff", "#66b1ff"], "minValue": 0, "maxValue": highest},
    }
