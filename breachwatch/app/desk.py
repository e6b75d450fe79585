"""Where notices are written: templates, letterhead and sender of this installation, and the facts of an incident."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256

from breachwatch.app.state import StateLayout
from breachwatch.audit.keys import load_or_create_secret
from breachwatch.config.settings import Settings
from breachwatch.incident.grouping import ENTITY_FIELDS
from breachwatch.model import Channel, Incident
from breachwatch.notify.campaign import FrozenNotice, NoticeRenderer, freeze
from breachwatch.notify.template import TemplateSet, load_templates

MESSAGE_KEY_BYTES = 32
SHOWN_ENTITIES = 5
"""Values per field in a page: enough to act on, short enough for a telephone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeDesk:
    """Turns a template name, facts and people into a frozen notice."""

    templates: TemplateSet
    letterhead: Mapping[str, str]
    sender: str
    sender_name: str
    reply_to: str
    renderer: NoticeRenderer

    def freeze(
        self, names: Mapping[str, str], facts: Mapping[str, str], ids: Sequence[str], channels: Sequence[Channel]
    ) -> FrozenNotice:
        """The notice to these people. Raises: TemplateError (facts missing: all are named)."""
        return freeze(
            templates=self.templates,
            names=names,
            letterhead=self.letterhead,
            facts=facts,
            person_ids=ids,
            channels=channels,
            sender=self.sender,
            sender_name=self.sender_name,
            reply_to=self.reply_to,
        )


def open_desk(settings: Settings, layout: StateLayout) -> NoticeDesk:
    """The desk of this installation. Raises: TemplateError, AuditError (its key cannot be used)."""
    key = load_or_create_secret(layout.keys / "message-id.key", MESSAGE_KEY_BYTES)
    sender = settings.smtp.sender
    return NoticeDesk(
        templates=load_templates(settings.templates.directories),
        letterhead=settings.letterhead.model_dump(),
        sender=sender,
        sender_name=settings.letterhead.name,
        reply_to=settings.smtp.reply_to or settings.letterhead.email,
        renderer=NoticeRenderer(key=key, domain=sender.rpartition("@")[2] or "breachwatch.invalid"),
    )


def incident_facts(incident: Incident, stated: Mapping[str, str]) -> dict[str, str]:
    """What the incident itself says, and over it what people stated."""
    entities = "; ".join(
        f"{name} {', '.join(values[:SHOWN_ENTITIES])}" + (" …" if len(values) > SHOWN_ENTITIES else "")
        for name in ENTITY_FIELDS
        if (values := incident.entities.get(name, ()))
    )
    own = {
        "inc.reference": incident.id,
        "inc.title": incident.title,
        "inc.severity": str(incident.severity),
        "inc.detected": in_words(min(incident.first_seen, incident.opened_at)),
        "inc.occurred": in_words(incident.first_seen),
        "inc.entities": entities,
    }
    return {**{name: value for name, value in own.items() if value}, **stated}


def in_words(moment: datetime) -> str:
    """An instant as notices state it: to the minute, in UTC, and saying so."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def facts_digest(stated: Mapping[str, str]) -> str:
    """SHA-256 of the stated facts: a draft made from other ones is void."""
    return sha256(json.dumps(dict(stated), sort_keys=True).encode("ascii")).hexdigest()
