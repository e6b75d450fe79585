"""Texts of rules, and what came of them. Apart from the loader, which a start with parsed rules does without."""

from __future__ import annotations

from dataclasses import dataclass, field

from breachwatch.detect.rule import Correlation, Rule
from breachwatch.errors import RuleError


@dataclass(frozen=True, slots=True)
class RuleText:
    """One file."""

    source: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSet:
    """What loaded, what was refused and why."""

    rules: tuple[Rule, ...] = ()
    correlations: tuple[Correlation, ...] = ()
    """Referenced ones before those that read them."""
    refused: tuple[RuleError, ...] = ()
    fingerprint: str = ""
    key: str = field(default="", compare=False)
    """Sets with the same one hold the same rules; empty: nobody says so."""
