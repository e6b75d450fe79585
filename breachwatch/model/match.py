"""A rule or correlation matched."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

import msgspec

from breachwatch.model.event import Event


class Level(StrEnum):
    """Sigma levels, lowest first. Source: Sigma specification 2.1, `level`."""

    INFORMATIONAL = "informational"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    rank: int
    """0 (informational) to 4 (critical)."""


for _rank, _level in enumerate(Level):
    _level.rank = _rank  # looked up in a table by their hash, levels would cost more than what asks for them


class RuleRef(msgspec.Struct, frozen=True, kw_only=True):
    """What of a rule travels with its matches."""

    id: str
    title: str
    level: Level = Level.MEDIUM
    tags: tuple[str, ...] = ()
    author: str = ""
    group_by: tuple[str, ...] = ()
    """ECS fields whose values join matches into one incident (any shared value joins)."""
    within_s: float = 86_400.0
    """Matches further apart than this, in event time, do not join."""
    opens_incident: bool = True
    """False: the rule only adds to an incident that another rule opened, or feeds a correlation."""


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """The events a correlation counted."""

    first: datetime
    last: datetime
    count: int


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """`event` made `rule` match; for a correlation it is the event that completed the window."""

    id: str
    """Derived from rule id and event ids: the same evidence always gives the same id."""
    rule: RuleRef
    event: Event
    group: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Correlations: group-by field to value."""
    window: Window | None = None
    event_ids: tuple[str, ...] = ()
