"""Who is meant: team members, authorities and audiences of the configuration become people with contacts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from breachwatch.config.settings import Settings
from breachwatch.errors import AudienceError
from breachwatch.model import Channel, Person
from breachwatch.model.contact import AudienceProblem, ContactError, normal_email, normal_phone
from breachwatch.notify.audience import read_csv


@dataclass(frozen=True, slots=True)
class Addressees:
    """The people behind the names that playbooks use."""

    settings: Settings

    def channels(self, wanted: Sequence[Channel]) -> tuple[Channel, ...]:
        """Those of `wanted` that this installation can use, in their order."""
        settings = self.settings
        usable = {
            Channel.EMAIL: bool(settings.smtp.host),
            Channel.SMS: bool(settings.sms.url),
            Channel.CHAT: bool(settings.chat),
        }
        return tuple(channel for channel in wanted if usable[channel])

    def team(self, name: str) -> list[Person]:
        """One person or the members of a group; empty if nobody is called so."""
        team = self.settings.team
        wanted = set(team.groups.get(name, (name,)))
        return [
            Person(
                ref=f"team:{person.name}",
                name=person.name,
                email=_usable(normal_email, person.email),
                phone=_usable(normal_phone, person.phone),
                language=person.language,
                extra={"chat": person.chat} if person.chat else {},
            )
            for person in team.people
            if person.name in wanted
        ]

    def everybody(self) -> list[Person]:
        """The whole team: whom a page goes to when the one who was meant cannot be reached."""
        return [person for member in self.settings.team.people for person in self.team(member.name)]

    def authority(self, key: str) -> Person:
        """An authority as the one person of its audience. Raises: AudienceError."""
        authority = self.settings.authorities.get(key)
        if authority is None:
            raise AudienceError("no such authority", source=f"authorities.{key}", hint="add it to the configuration")
        email = _usable(normal_email, authority.email)
        if not email:
            raise AudienceError("its e-mail address is none", source=f"authorities.{key}.email", hint="correct it")
        return Person(ref=f"authority:{key}", name=authority.name, email=email, language=authority.language)

    def audience(self, key: str) -> Iterator[Person | AudienceProblem]:
        """People and unusable rows of an audience source, read now. Raises: AudienceError."""
        source = self.settings.audiences.get(key)
        where = f"audiences.{key}"
        if source is None:
            raise AudienceError("no such audience", source=where, hint="add it to the configuration")
        if source.csv is None:
            from breachwatch.store.audience import read_query

            yield from read_query(source.url.get_secret_value(), source.query, source=where)
            return
        try:
            with source.csv.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
                yield from read_csv(file, str(source.csv))
        except OSError as error:
            raise AudienceError(f"cannot be read: {error.strerror}", source=str(source.csv)) from error


def _usable(normal: object, text: str) -> str:
    assert callable(normal)
    try:
        return str(normal(text))
    except ContactError:
        return ""
