"""What an agent tells its hub, in order, through a store that both can reach."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from breachwatch.model.match import Match
from breachwatch.model.source import Gap


class SignalKind(StrEnum):
    """The closed set of things an agent says."""

    MATCH = "match"
    GAP = "gap"
    DAEMON = "daemon"
    """A child crashed, was restarted, rules were reloaded or refused, ..."""
    HEARTBEAT = "heartbeat"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One statement of an agent. `id` comes from content; a store keeps each id once."""

    id: str
    kind: SignalKind
    at_utc: datetime
    host: str
    match: Match | None = None
    gap: Gap | None = None
    action: str = ""
    """Daemon signals: snake_case verb, e.g. `child_restarted`."""
    detail: str = ""
    seq: int = 0
    """Position in the store; 0 until stored."""
