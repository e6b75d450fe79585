"""A notice frozen for approval, and the one function that builds its bytes for previews and for sending alike."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from types import MappingProxyType

from markupsafe import escape

from breachwatch.errors import TemplateError
from breachwatch.model import Campaign, Channel, Delivery, DeliveryState, OutgoingMessage, Person
from breachwatch.notify.mime import PersonalBody, build_email, message_id, one_line, quoted_printable
from breachwatch.notify.template import Rendered, TemplateSet, TemplateSource, nest

VERSION = 1

NO_CONTACT = "no-contact"
"""Recorded for a person whom no channel of the campaign can reach."""

_LETTERHEAD = MappingProxyType({"privacy_contact": "contact.privacy"})
_KINDS = {Channel.EMAIL: "txt", Channel.SMS: "sms", Channel.CHAT: "txt"}
MAX_NAME_CHARS = 200
KEPT_BODIES = 64
NAME_MARK = "\ue000name\ue000"
"""Stands for the name while a body is prepared; private-use characters, which no template escapes."""


class _Headers(dict[str, dict[str, str]]):
    """The headers of each language. RFC 3834: automatic replies to an automatic message stay away."""

    def __missing__(self, language: str) -> dict[str, str]:
        made = self[language] = {"Auto-Submitted": "auto-generated", "Content-Language": language}
        return made


_HEADERS = _Headers()


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

    def words(self, language: str, name: str, kind: str | None) -> Rendered:
        """The notice in words for somebody of this name (which may be empty). Raises: TemplateError."""
        about = {"name": name} if name.strip() else {}
        return self.templates.render(self.names[language], language, kind, {**self.facts, "person": about})


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
    _prepared: dict[tuple[str, str, bool], tuple[str, PersonalBody, PersonalBody | None]] = field(default_factory=dict)

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
        name = one_line(person.name)[:MAX_NAME_CHARS]
        if channel is not Channel.EMAIL:
            words = notice.words(language, name, _KINDS[channel])
            text = words.sms if channel is Channel.SMS else words.text
            return OutgoingMessage(
                channel=channel,
                to=address_of(person, channel),
                message_id=message_id,
                payload=(text or "").encode("utf-8", "replace"),
                subject=words.subject,
            )
        subject, plain, html = self._bodies(notice, language, name)
        payload = build_email(
            sender=notice.sender,
            sender_name=notice.sender_name,
            to=person.email,
            to_name=name,
            reply_to=notice.reply_to,
            subject=subject,
            text=plain,
            html=html,
            message_id=message_id,
            date=date.replace(microsecond=0),
            headers=_HEADERS[language],
        )
        return OutgoingMessage(
            channel=channel, to=person.email, message_id=message_id, payload=payload, subject=subject
        )

    def _bodies(self, notice: FrozenNotice, language: str, name: str) -> tuple[str, bytes, bytes | None]:
        """Subject, text and HTML; rendered once per campaign and language where only the name differs."""
        key = (notice.content_hash, language, bool(name))
        prepared = self._prepared.get(key)
        if prepared is None:
            mark = NAME_MARK if name else ""
            words = notice.words(language, mark, None)
            plainly = notice.templates.prints_person_plainly(notice.names[language], language)
            usable = plainly and NAME_MARK not in words.subject and name.count(NAME_MARK) == 0
            if not usable:
                whole = notice.words(language, name, None)
                html = None if whole.html is None else quoted_printable(whole.html)
                return whole.subject, quoted_printable(whole.text), html
            rich = None if words.html is None else PersonalBody(words.html, NAME_MARK)
            if len(self._prepared) >= KEPT_BODIES:
                self._prepared.clear()
            prepared = self._prepared[key] = (words.subject, PersonalBody(words.text, NAME_MARK), rich)
        subject, plain, rich = prepared
        return subject, plain.encode(name), None if rich is None else rich.encode(str(escape(name)))


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
