"""PAM messages, in whichever program's name they are logged."""

from __future__ import annotations

import re

from breachwatch.model import FieldValue, LogSource
from breachwatch.parse.address import set_source

AUTH = LogSource("linux", "", "auth")

_PREFIX = re.compile(
    r"\(?(?P<module>pam_[a-z0-9_]{1,32})\)?(?:\((?P<service>[^\s:()]{1,64})(?::(?P<phase>[a-z]{1,16}))?\))?:? ",
    re.ASCII,
)
_USER_AT_END = re.compile(r"\s+user=(.*)$", re.DOTALL)
_SESSION = re.compile(
    r"session (opened|closed) for user ([^\s(]{1,256})(?:\(uid=(\d{1,10})\))?(?: by ([^\s(]{0,256})\(uid=(\d{1,10})\))?"
)
_PASSWORD_CHANGED = re.compile(r"password changed for (\S{1,256})$")
_SUMMARY = re.compile(r"PAM (\d{1,6}) more authentication failures?; ")


def names_pam(message: str) -> bool:
    """Whether a message is PAM's own."""
    return message.startswith(("pam_", "(pam_")) and _PREFIX.match(message) is not None


def read_pam(message: str, fields: dict[str, FieldValue], service: str = "") -> LogSource | None:
    """`pam_unix(sshd:auth): authentication failure; ... rhost=203.0.113.9`; None for what PAM says besides."""
    found = _PREFIX.match(message)
    if found is not None:
        fields["pam.module"] = found["module"]
        service = found["service"] or service
        message = message[found.end() :]
    if service:
        fields["pam.service"] = service
    if message.startswith("authentication failure; "):
        _failure(message, fields)
    elif message.startswith("session "):
        _session(message, fields)
    elif message.startswith("check pass; user unknown"):
        _event(fields, "pam_user_unknown", "unknown")
    elif (changed := _PASSWORD_CHANGED.match(message)) is not None:
        _event(fields, "password_changed", "success")
        fields["event.category"], fields["event.type"] = ("iam",), ("user", "change")
        fields["user.name"] = changed[1].strip("'")
    else:
        return None
    return AUTH


def read_summary(message: str, fields: dict[str, FieldValue]) -> bool:
    """`PAM 5 more authentication failures; ... rhost=203.0.113.9  user=root`: counts what was already logged."""
    found = _SUMMARY.match(message)
    if found is None:
        return False
    _failure(message[found.start(0) :], fields)
    _event(fields, "pam_summary", "unknown")
    fields["pam.failures"] = int(found[1])
    return True


def _event(fields: dict[str, FieldValue], action: str, outcome: str) -> None:
    fields["event.category"] = ("authentication",)
    fields["event.type"] = ("start",)
    fields["event.action"] = action
    fields["event.outcome"] = outcome


def _failure(message: str, fields: dict[str, FieldValue]) -> None:
    """The client chooses `ruser` and `user`, so either may hold a forged ` rhost=`.

    sshd leaves `ruser` empty: then the first `rhost` is PAM's. Elsewhere `user` is a real account, so the last one is.
    """
    _event(fields, "pam_authentication", "failure")
    at = message.find(" ruser= rhost=")
    at = at + len(" ruser=") if at >= 0 else message.rfind(" rhost=")
    if at < 0:
        return
    rest = message[at + len(" rhost=") :]
    host = rest.split(maxsplit=1)[0] if rest and not rest[0].isspace() else ""
    set_source(fields, host)
    named = _USER_AT_END.match(rest[len(host) :])
    if named is not None and named[1].strip():
        fields["user.name"] = named[1].strip()
    if (_ruser := _between(message, " ruser=", " rhost=")) is not None:
        fields["pam.ruser"] = _ruser
    if (tty := _between(message, " tty=", " ")) is not None:
        fields["pam.tty"] = tty


def _between(text: str, start: str, end: str) -> str | None:
    """What stands between two marks, None where it is empty or not there."""
    _, found, rest = text.partition(start)
    return (rest.partition(end)[0] or None) if found else None


def _session(message: str, fields: dict[str, FieldValue]) -> None:
    found = _SESSION.match(message)
    if found is None:
        return
    fields["event.category"] = ("session",)
    fields["event.type"] = ("start",) if found[1] == "opened" else ("end",)
    fields["event.action"] = f"session_{found[1]}"
    fields["event.outcome"] = "success"
    fields["user.name"] = found[2]
    if found[3]:
        fields["user.id"] = found[3]
    if found[4]:
        fields["pam.by_user"] = found[4]
