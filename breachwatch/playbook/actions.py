"""What a playbook wants done, as data: `app` performs it and writes the step row that keeps it from repeating."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from breachwatch.model import CampaignKind, Channel


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelChoice:
    """A channel of a notice, in the order they are tried."""

    channel: Channel
    if_undelivered: bool = False
    """Only for people whom the channels before it did not reach."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageTeam:
    """Call people who have to look at an incident."""

    step: str
    attempt: int
    """Counts up from 1 within the step: the `n` of its row."""
    to: str
    """A team or person of the configuration."""
    via: tuple[Channel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareNotice:
    """Freeze the audience and the words of a notice, and ask for approval. Nothing leaves."""

    step: str
    kind: CampaignKind
    audience: str
    """Key of an authority or of an audience source of the configuration."""
    templates: Mapping[str, str] = field(default_factory=dict)
    """Language to template name."""
    channels: tuple[ChannelChoice, ...]
    approvals_needed: int
    roles: tuple[str, ...]
    """Only people with one of these roles may approve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartCampaign:
    """Let an approved notice leave."""

    step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkNotifying:
    """The incident is about to be told to somebody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkNotified:
    """Every notice is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarnClock:
    """A legal clock has used up a part of its time (`fraction` 1.0: it is overdue)."""

    step: str
    n: int
    regime: str
    stage: str
    due_at: datetime
    fraction: float
    to: str = ""
    """Whom to tell: the last level of the escalation."""
    via: tuple[Channel, ...] = ()


Action = PageTeam | PrepareNotice | StartCampaign | MarkNotifying | MarkNotified | WarnClock
