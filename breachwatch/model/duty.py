"""A stage of a regime with its due time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Duty:
    """What the law wants done, by when. `due_at` None: no date, and `why` says why; never a guessed one."""

    regime: str
    stage: str
    recipients: tuple[str, ...]
    """Kinds of recipient: authority, subjects, public, controller, internal, ..."""
    authorities: tuple[str, ...] = ()
    starts_at: datetime | None = None
    """The instant the clock runs from."""
    due_at: datetime | None = None
    basis: str = ""
    """Title of the law and what it counts from."""
    condition: str = ""
    """Key of a condition a person has to judge (`high_risk`); empty: always."""
    why: str = ""
    """Why there is no due time."""
