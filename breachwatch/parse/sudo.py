"""sudo and su: who became whom, and what they ran."""

from __future__ import annotations

import re

from breachwatch.model import FieldValue, LogSource
from breachwatch.parse.pam import AUTH, names_pam, read_pam

SUDO = LogSource("linux", "", "sudo")

Fields = dict[str, FieldValue]

_WHO = re.compile(r"\s*(\S{1,256}) : ")
_ATTEMPTS = re.compile(r"(\d{1,4}) incorrect password attempts?")

DENIED = (
    "user NOT in sudoers",
    "user NOT authorized on host",
    "command not allowed",
    "NOT in sudoers",
    "not allowed to",
    "not in the sudoers file",
    "sorry, you are not allowed",
)
"""What sudo says when policy forbids; the rest of its refusals are about passwords."""

_KEYS = {"TTY": "sudo.tty", "PWD": "process.working_directory", "USER": "user.effective.name", "GROUP": "sudo.group"}


def read_sudo(message: str, fields: Fields) -> LogSource:
    """`bob : TTY=pts/0 ; PWD=/home/bob ; USER=root ; COMMAND=/bin/ls -la`."""
    if names_pam(message):
        return AUTH if read_pam(message, fields, "sudo") is not None else _other(fields, SUDO)
    found = _WHO.match(message)
    if found is None:
        return _other(fields, SUDO)
    fields["user.name"] = found[1]
    head, command_found, command = message[found.end() :].partition("COMMAND=")
    # the command holds anything, so the first COMMAND= is sudo's; the directory is the caller's choice too
    reason = _details(head, fields)
    if command_found:
        fields["process.command_line"] = command
        fields["process.executable"] = command.split(" ", 1)[0]
    _judge(reason, fields, ran=bool(command_found))
    return SUDO


def _details(head: str, fields: Fields) -> str:
    """Take `KEY=value` parts; returns the first part without a key: the reason of a refusal."""
    reason = ""
    for part in head.split(" ; "):
        key, equals, value = part.strip(" ;").partition("=")
        name = _KEYS.get(key)
        if equals and name is not None:
            fields.setdefault(name, value)
        elif not equals and key and not reason:
            reason = key
    return reason


def _judge(reason: str, fields: Fields, *, ran: bool) -> None:
    attempts = _ATTEMPTS.match(reason)
    fields["event.category"], fields["event.type"] = ("authentication",), ("start",)
    if attempts is not None:
        fields["event.action"], fields["event.outcome"] = "sudo_auth_failure", "failure"
        fields["sudo.attempts"] = int(attempts[1])
    elif any(denied in reason for denied in DENIED):
        fields["event.action"], fields["event.outcome"] = "sudo_denied", "failure"
        fields["event.reason"] = reason[:256]
    elif reason in ("a password is required", "no tty present and no askpass program specified"):
        fields["event.action"], fields["event.outcome"] = "sudo_password_required", "failure"
    elif ran and not reason:
        fields["event.action"], fields["event.outcome"] = "sudo_command", "success"
        fields["event.category"], fields["event.type"] = ("process",), ("start",)
    else:
        fields["event.action"], fields["event.type"] = "sudo_message", ("info",)


_SU = (
    (re.compile(r"Successful su for (?P<to>\S{1,256}) by (?P<by>\S{1,256})"), "success"),
    (re.compile(r"FAILED su for (?P<to>\S{1,256}) by (?P<by>\S{1,256})"), "failure"),
    (re.compile(r"\+ (?P<tty>\S{1,64}) (?P<by>[^\s:]{1,256})[:-](?P<to>\S{1,256})"), "success"),
    (re.compile(r"- (?P<tty>\S{1,64}) (?P<by>[^\s:]{1,256})[:-](?P<to>\S{1,256})"), "failure"),
    (re.compile(r"FAILED SU \(to (?P<to>\S{1,256}?)\) (?P<by>\S{1,256}) on (?P<tty>\S{1,64})"), "failure"),
    (re.compile(r"\(to (?P<to>\S{1,256}?)\) (?P<by>\S{1,256}) on (?P<tty>\S{1,64})"), "success"),
    (re.compile(r"'su(?: -)? (?P<to>\S{1,256}?)' succeeded for (?P<by>\S{1,256}) on (?P<tty>\S{1,64})"), "success"),
    (re.compile(r"'su(?: -)? (?P<to>\S{1,256}?)' failed for (?P<by>\S{1,256}) on (?P<tty>\S{1,64})"), "failure"),
    (re.compile(r"BAD SU (?P<by>\S{1,256}) to (?P<to>\S{1,256}) on (?P<tty>\S{1,64})"), "failure"),
    (re.compile(r"(?P<by>\S{1,256}) to (?P<to>\S{1,256}) on (?P<tty>\S{1,64})"), "success"),
)


def read_su(message: str, fields: Fields) -> LogSource:
    """`(to root) bob on pts/1`, `FAILED su for root by bob`, and what other systems write."""
    if names_pam(message):
        return AUTH if read_pam(message, fields, "su") is not None else _other(fields, AUTH)
    for pattern, outcome in _SU:
        found = pattern.match(message)
        if found is not None:
            fields["event.category"], fields["event.type"] = ("authentication",), ("start",)
            fields["event.action"], fields["event.outcome"] = "su_login", outcome
            fields["user.name"], fields["user.effective.name"] = found["by"], found["to"]
            return AUTH
    return _other(fields, AUTH)


def _other(fields: Fields, logsource: LogSource) -> LogSource:
    fields["event.category"], fields["event.type"] = ("session",), ("info",)
    fields["event.action"] = f"{logsource.service}_message"
    return logsource
