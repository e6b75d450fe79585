"""What a playbook has done so far for one incident, and who approved what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

StepValue = str | int | bool | None
"""What a step may leave behind: ids, hashes, counts, reasons. Never a contact."""


class StepState(StrEnum):
    """waiting -> prepared -> approved -> running -> done; cancelled from any but done."""

    WAITING = "waiting"
    """Could not be prepared yet (audience unreadable, fact missing, ...): tried again at `due_at`."""
    PREPARED = "prepared"
    """The draft exists and awaits approval."""
    APPROVED = "approved"
    """Enough people other than the requester approved exactly this content."""
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRun:
    """One performed step. Key (incident_id, step, n): writing it twice is impossible, so performing it twice is."""

    incident_id: str
    step: str
    """`<playbook>/<step id>`, or a key the planner made (`<playbook>/escalation.0.1`)."""
    n: int = 0
    """Attempt or grade, ascending; the highest is the present one."""
    state: StepState
    at_utc: datetime
    """When it came into this state."""
    due_at: datetime | None = None
    """When to look at it again."""
    output: Mapping[str, StepValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """One person's yes to content with one hash."""

    campaign_id: str
    content_hash: str
    approver: str
    at_utc: datetime
    os_user: str
