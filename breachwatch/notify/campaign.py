"""A notice frozen for approval, and the one function that builds its bytes for previews and for sending alike."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from types import MappingProxyType

from breachwatch.errors import TemplateError
from breachwatch.model import Campaign, Channel, Delivery, DeliveryState, OutgoingMessage, Person
from breachwatch.notify.mime import build_email, message_id
from breachwatch.notify.template import TemplateSet, TemplateSource, nest

VERSION = 1

NO_CONTACT = "no-contact"
"""Recorded for a person whom no channel of the campaign can reach."""

_LETTERHEAD = MappingProxyType({"privacy_contact": "contact.privacy"})
_KINDS = {Channel.EMAIL: "txt", Channel.SMS: "sms", Channel.CHAT: "txt"}
_HEADERS = {"Auto-Submitted": "auto-generated"}
"""RFC 3834: holiday replies stay away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenNotice:
    """Everything that decides what people will read, as one document; its hash is what an approval is of."""

    content: bytes
    content_hash: str
    names: Mapping[str, str]
    """Language to template name."""
    channels: tuple[Channel, ...]
    sender: str
    sender_name: str
    reply_to: str
    templates: TemplateSet = field(repr=False, compare=False)
    facts: Mapping[str, Mapping[str, str]] = field(repr=False)

    def language_for(self, person: Person) -> str:
        """The person's language if the notice has it, else English, else the first there is."""
        if person.language in self.names:
            return person.language
        return "en" if "en" in self.names else min(self.names)


def freeze(
    *,
    templates: TemplateSet,
    names: Mapping[str, str],
    letterhead: Mapping[str, str],
    facts: Mapping[str, str],
    person_ids: Iterable[str],
    channels: Sequence[Channel],
    sender: str,
    sender_name: str = "",
    reply_to: str = "",
) -> FrozenNotice:
    """The notice in `names` (language to template) with these facts to these people; the same input, the same hash.

    `letterhead` has plain keys (`name`, `hotline`), `facts` dotted ones (`inc.place`).
    Raises: TemplateError: a template, language or fact is missing (all missing facts are named).
    """
    if not names or not channels:
        raise TemplateError("a notice needs a template and a channel")
    values = {**letterhead_facts(letterhead), **{name: value for name, value in facts.items() if value.strip()}}
    kinds = {_KINDS[channel] for channel in channels}
    for language, name in sorted(names.items()):
        templates.check(name, [language], values, kinds=kinds)
    people = sorted(person_ids)
    document = {
        "v": VERSION,
        "names": dict(names),
        "templates": {language: dict(templates.sources(name, language)) for language, name in names.items()},
        "facts": values,
        "audience": {"count": len(people), "sha256": sha256("\n".join(people).encode("ascii")).hexdigest()},
        "channels": [str(channel) for channel in channels],
        "sender": sender,
        "sender_name": sender_name,
        "reply_to": reply_to,
    }
    return thaw(json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii"))


def thaw(content: bytes) -> FrozenNotice:
    """The notice from its stored bytes, after a restart. Raises: TemplateError."""
    try:
        document = json.loads(content)
        if document["v"] != VERSION:
            raise TemplateError(f"frozen notice of version {document['v']}; this program knows {VERSION}")
        names: dict[str, str] = document["names"]
        sources = {
            (names[language], language, kind): TemplateSource(text, f"frozen {names[language]}.{language}.{kind}")
            for language, kinds in document["templates"].items()
            for kind, text in kinds.items()
        }
        return FrozenNotice(
            content=content,
            content_hash=sha256(content).hexdigest(),
            names=names,
            channels=tuple(Channel(name) for name in document["channels"]),
            sender=document["sender"],
            sender_name=document["sender_name"],
            reply_to=document["reply_to"],
            templates=TemplateSet(sources),
            facts=nest(document["facts"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TemplateError(f"the frozen notice cannot be read: {type(error).__name__}") from error


def letterhead_facts(letterhead: Mapping[str, str]) -> dict[str, str]:
    """Settings of the letterhead as facts: `hotline` is `org.hotline`; law forms' names where they differ."""
    facts = {_LETTERHEAD.get(key, f"org.{key}"): value for key, value in letterhead.items() if value.strip()}
    phone_web = ", ".join(letterhead[key] for key in ("hotline", "website") if letterhead.get(key, "").strip())
    if phone_web:
        facts["org.phone_web"] = phone_web
    return facts


@dataclass(slots=True)
class NoticeRenderer:
    """Builds messages. `key` makes Message-IDs that nobody else can guess; `domain` is their right-hand side."""

    key: bytes = field(repr=False)
    domain: str
    _opened: dict[bytes, FrozenNotice] = field(default_factory=dict)

    def message_id(self, campaign_id: str, person_id: str, channel: Channel) -> str:
        """The same for every try; for gateways without a domain."""
        domain = self.domain if channel is Channel.EMAIL else ""
        return message_id(self.key, campaign_id, person_id, str(channel), domain)

    def open(self, content: bytes) -> FrozenNotice:
        """The notice behind stored bytes, compiled once. Raises: TemplateError."""
        digest = sha256(content).digest()
        notice = self._opened.get(digest)
        if notice is None:
            if len(self._opened) >= 32:  # noqa: PLR2004  # more campaigns than this never run side by side
                self._opened.clear()
            notice = self._opened[digest] = thaw(content)
        return notice

    def build(
        self, notice: FrozenNotice, *, message_id: str, person: Person, channel: Channel, date: datetime
    ) -> OutgoingMessage:
        """The exact bytes for one person; `date` (whole seconds count) is the only thing that a later try changes.

        Raises: TemplateError.
        """
        language = notice.language_for(person)
        name = notice.names[language]
        about = {"name": person.name} if person.name.strip() else {}
        values = {**notice.facts, "person": about}
        if channel is not Channel.EMAIL:
            words = notice.templates.render(name, language, _KINDS[channel], values)
            text = words.sms if channel is Channel.SMS else words.text
            return OutgoingMessage(
                channel=channel,
                to=address_of(person, channel),
                message_id=message_id,
                payload=(text or "").encode("utf-8", "replace"),
                subject=words.subject,
            )
        words = notice.templates.render(name, language, None, values)
        payload = build_email(
            sender=notice.sender,
            sender_name=notice.sender_name,
            to=person.email,
            to_name=person.name,
            reply_to=notice.reply_to,
            subject=words.subject,
            text=words.text,
            html=words.html,
            message_id=message_id,
            date=date.replace(microsecond=0),
            headers={**_HEADERS, "Content-Language": language},
        )
        return OutgoingMessage(
            channel=channel, to=person.email, message_id=message_id, payload=payload, subject=words.subject
        )


def preview(
    renderer: NoticeRenderer,
    notice: FrozenNotice,
    *,
    campaign_id: str,
    person_id: str,
    person: Person,
    channel: Channel,
    date: datetime,
) -> OutgoingMessage:
    """The bytes that will be sent, made by what sends. With `Delivery.sent_at` as `date`: the bytes that were sent.

    Raises: TemplateError.
    """
    identity = renderer.message_id(campaign_id, person_id, channel)
    return renderer.build(notice, message_id=identity, person=person, channel=channel, date=date)


def address_of(person: Person, channel: Channel) -> str:
    """Where the person is on this channel; empty if nowhere. Chat rooms are in `extra["chat"]`."""
    if channel is Channel.EMAIL:
        return person.email
    return person.phone if channel is Channel.SMS else person.extra.get("chat", "")


def next_channel(person: Person, channels: Sequence[Channel], after: Channel | None = None) -> Channel | None:
    """The first channel (behind `after`) on which the person can be reached."""
    behind = channels[channels.index(after) + 1 :] if after in channels else channels
    return next((channel for channel in behind if channel is not after and address_of(person, channel)), None)


def first_deliveries(
    renderer: NoticeRenderer, campaign: Campaign, person_id: str, person: Person, *, now: datetime, every: bool = False
) -> list[Delivery]:
    """The outbox rows that a person starts with: the first usable channel, or `every` one (pages).

    Whom no channel reaches gets a failed row, so that the list of undeliverable people names them.
    """
    if every:
        chosen = [channel for channel in campaign.channels if address_of(person, channel)]
    else:
        first = next_channel(person, campaign.channels)
        chosen = [] if first is None else [first]
    state = DeliveryState.READY if chosen else DeliveryState.FAILED
    return [
        Delivery(
            campaign_id=campaign.id,
            person_id=person_id,
            channel=channel,
            state=state,
            due_at=now,
            message_id=renderer.message_id(campaign.id, person_id, channel),
            code="" if chosen else NO_CONTACT,
        )
        for channel in chosen or campaign.channels[:1]
    ]
