"""One statement for the audit trail. Holds no personal data: only ids, hashes and keyed commitments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

EntryValue = str | int | bool | None | list["EntryValue"] | dict[str, "EntryValue"]
"""Restricted JSON: no floats, integers below 2**53, ASCII keys (facts/audit.md 2.3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What happened, to be appended. `type` is dotted: incident.opened, notify.intent, daemon.child_restarted, ..."""

    type: str
    at_utc: datetime
    actor: str = "system"
    """`system`, `agent:<host>` or `usr:<name of account>`."""
    incident_id: str = ""
    body: Mapping[str, EntryValue] = field(default_factory=dict)
