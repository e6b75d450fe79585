"""What each setting alone cannot know: names that refer to each other, things that exclude each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from ipaddress import ip_address

from breachwatch.config.lines import Location
from breachwatch.config.sections import Settings
from breachwatch.parse import FORMATS


def incoherences(settings: Settings) -> Iterator[tuple[Location, str]]:
    """Where, and what is wrong and allowed there."""
    yield from _logs(settings)
    yield from _syslog(settings)
    yield from _people(settings)
    yield from _groups(settings)
    yield from _audiences(settings)
    rooms = [room.name for room in settings.chat]
    for index, name in enumerate(rooms):
        if name in rooms[:index]:
            yield ("chat", index, "name"), f"chat.{index}.name: another room is called {name!r} already"


def _logs(settings: Settings) -> Iterator[tuple[Location, str]]:
    for index, log in enumerate(settings.watch.logs):
        if log.format not in FORMATS:
            where: Location = ("watch", "logs", index, "format")
            yield where, f"watch.logs.{index}.format: unknown format {log.format!r}: {_allowed(log.format, FORMATS)}"
        if not log.path.startswith("/"):
            yield ("watch", "logs", index, "path"), f"watch.logs.{index}.path: not an absolute path: {log.path}"


def _syslog(settings: Settings) -> Iterator[tuple[Location, str]]:
    taken: set[tuple[bool, str, int]] = set()
    for index, listener in enumerate(settings.watch.syslog):
        where: Location = ("watch", "syslog", index)
        path = f"watch.syslog.{index}"
        if listener.format not in FORMATS:
            said = f"unknown format {listener.format!r}: {_allowed(listener.format, FORMATS)}"
            yield (*where, "format"), f"{path}.format: {said}"
        try:
            ip_address(listener.address)
        except ValueError:
            yield (*where, "address"), f"{path}.address: not an IP address: {listener.address}"
        if (listener.protocol == "tls") != (listener.certificate is not None and listener.key is not None):
            said = "tls needs certificate and key" if listener.protocol == "tls" else "only tls has a certificate"
            yield where, f"{path}: {said}"
        if listener.client_ca is not None and listener.protocol != "tls":
            yield (*where, "client_ca"), f"{path}.client_ca: only tls has one"
        place = (listener.protocol == "udp", listener.address, listener.port)
        if place in taken:
            yield (*where, "port"), f"{path}.port: another entry listens there already"
        taken.add(place)


def _people(settings: Settings) -> Iterator[tuple[Location, str]]:
    people = settings.team.people
    names, accounts = [person.name for person in people], [person.os_user for person in people]
    rooms = {room.name for room in settings.chat}
    for index, person in enumerate(people):
        where: Location = ("team", "people", index)
        if person.name in names[:index]:
            yield (*where, "name"), f"team.people.{index}.name: another person is called {person.name!r} already"
        if person.os_user and person.os_user in accounts[:index]:
            said = "another person has this account already: an approval would not show who gave it"
            yield (*where, "os_user"), f"team.people.{index}.os_user: {said}"
        if person.chat and person.chat not in rooms:
            said = f"no room called {person.chat!r}: {_allowed(person.chat, rooms)}"
            yield (*where, "chat"), f"team.people.{index}.chat: {said}"


def _groups(settings: Settings) -> Iterator[tuple[Location, str]]:
    names = {person.name for person in settings.team.people}
    for group, members in settings.team.groups.items():
        where: Location = ("team", "groups", group)
        if group in names:
            yield where, f"team.groups.{group}: a person is called so already; playbooks could not tell them apart"
        for member in members:
            if member not in names:
                yield where, f"team.groups.{group}: no person called {member!r}: {_allowed(member, names)}"


def _audiences(settings: Settings) -> Iterator[tuple[Location, str]]:
    for name, audience in settings.audiences.items():
        where: Location = ("audiences", name)
        database = bool(audience.url.get_secret_value() or audience.url_file)
        if (audience.csv is not None) == database:
            yield where, f"audiences.{name}: give either csv, or url_file with query"
        elif database and not audience.query.strip():
            yield where, f"audiences.{name}: a database needs a query"


def _allowed(wrong: str, known: Iterable[str]) -> str:
    names = sorted(known)
    close = get_close_matches(wrong, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names) or 'none'}"
