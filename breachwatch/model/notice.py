"""Campaigns, deliveries and the people they reach."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum


class Channel(StrEnum):
    """How a notice travels."""

    EMAIL = "email"
    SMS = "sms"
    CHAT = "chat"


class CampaignKind(StrEnum):
    """Who is told."""

    PAGE = "page"
    """Staff: the security team."""
    AUTHORITY = "authority"
    CUSTOMERS = "customers"


class CampaignState(StrEnum):
    """A campaign's life. Nothing is sent before RUNNING."""

    AWAITING_APPROVAL = "awaiting_approval"
    RUNNING = "running"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    DONE = "done"


class DeliveryState(IntEnum):
    """facts/notify.md 4.3. Terminal: ACCEPTED, FAILED, SUPPRESSED, BOUNCED, CANCELLED."""

    READY = 0
    CLAIMED = 1
    ACCEPTED = 2
    FAILED = 3
    SUPPRESSED = 4
    AMBIGUOUS = 5
    BOUNCED = 6
    CANCELLED = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """One person to tell. Exists only in memory and, encrypted, in the vault."""

    ref: str
    """Stable key from the audience source (customer id); appears nowhere but in the vault and as a commitment."""
    name: str = ""
    email: str = ""
    phone: str = ""
    language: str = "en"
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """A notice to one audience."""

    id: str
    incident_id: str
    step: str
    kind: CampaignKind
    state: CampaignState
    content_hash: str
    """SHA-256 over template bytes, audience snapshot hash and count, channels, schedule: what an approval is of."""
    audience_count: int
    channels: tuple[Channel, ...]
    created_at: datetime
    created_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One notice to one person on one channel. Primary key (campaign_id, person_id, channel)."""

    campaign_id: str
    person_id: str
    """Keyed commitment to `Person.ref` (hex): not personal data without the vault's key."""
    channel: Channel
    state: DeliveryState = DeliveryState.READY
    attempts: int = 0
    due_at: datetime
    worker: str = ""
    message_id: str = ""
    """Derived from campaign, person and channel: the same in every resend."""
    provider_id: str = ""
    code: str = ""
    sent_sha256: str = ""
    created_at: datetime | None = None
    """When it was put into the outbox: what the patience of a retry policy counts from."""
    sent_at: datetime | None = None
    """The Date of the bytes last sent: with it the same bytes can be built again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The next hop took responsibility."""

    code: str
    """Reply code, e.g. `250` or `http 200`."""
    provider_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryResult:
    """What became of one claimed delivery. Counts only for the claim (worker, attempts) that it was made under."""

    campaign_id: str
    person_id: str
    channel: Channel
    worker: str
    attempts: int
    state: DeliveryState
    """READY: not handed over, to be tried again at `due_at`."""
    tried: bool = True
    """False: it was handed back untouched, which gives the attempt back."""
    due_at: datetime
    code: str = ""
    provider_id: str = ""
    sent_sha256: str = ""
    sent_at: datetime | None = None
    """The Date of the bytes sent: with it the same bytes can be built again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingMessage:
    """The exact bytes for one person on one channel. Exists only in memory."""

    channel: Channel
    to: str
    """Address, number or room: a contact, so never logged."""
    message_id: str
    payload: bytes
    """E-mail: the whole message with CRLF lines. SMS and chat: the text as UTF-8."""
    subject: str = ""
