"""Accounts, passwords, scheduled jobs and console logins."""

from __future__ import annotations

import re

from breachwatch.model import FieldValue, LogSource
from breachwatch.parse.address import set_source
from breachwatch.parse.pam import AUTH, names_pam, read_pam

CRON = LogSource("linux", "", "cron")

Fields = dict[str, FieldValue]

_NAME = r"'?(?P<user>[^\s',]{1,256})'?"
_NEW_USER = re.compile(
    rf"new user: name={_NAME}, UID=(?P<uid>\d{{1,10}}), GID=(?P<gid>\d{{1,10}})(?P<rest>.*)", re.DOTALL
)
_GROUPED = re.compile(rf"add(?:ed)? (?:user )?{_NAME} to (?:shadow )?group '?(?P<group>[^\s',]{{1,256}})'?")
_GPASSWD = re.compile(
    r"user (?P<user>\S{1,256}) (?P<what>added|removed) by (?P<by>\S{1,256}) (?:to|from) group (?P<group>\S{1,256})"
)
_GROUP = re.compile(r"(?:new group: |group added to \S{1,64}: )name=(?P<group>[^\s,]{1,256})")
_UID_CHANGED = re.compile(rf"change user {_NAME} UID from '?(?P<old>\d{{1,10}})'? to '?(?P<uid>\d{{1,10}})'?")
_CHANGED = re.compile(
    r"(?:changed? user|lock user|unlock user|change name of|changed? (?:user )?(?:shell|password|home) (?:of|for)) "
    rf"{_NAME}"
)
_DELETED = re.compile(rf"(?:delete user|removed? user) {_NAME}")
_PASSWORD = re.compile(
    rf"(?:password for {_NAME} changed by '?(?P<by>[^\s']{{1,256}})'?|password changed for (?P<user2>\S{{1,256}}))"
)
_CRON = re.compile(r"\((?P<user>[^()]{1,256})\) (?P<verb>[A-Z][A-Z ]{1,24}?)(?: \((?P<what>.*)\))?$", re.DOTALL)
_LOGIN = re.compile(
    r"(?:FAILED LOGIN (?:SESSION )?\(?\d{0,4}\)?\s?(?:FROM|on) '?(?P<from>[^\s']{0,256})'?"
    r" FOR '?(?P<user>.{0,256}?)'?, (?P<reason>.{1,256})"
    r"|(?P<root>ROOT LOGIN) +(?:ON|on) '?(?P<tty>[^\s']{1,64})'?(?: FROM '?(?P<from2>[^\s']{1,256})'?)?"
    r"|LOGIN ON (?P<tty2>\S{1,64}) BY (?P<user2>\S{1,256})(?: FROM (?P<from3>\S{1,256}))?)$"
)


def _iam(fields: Fields, action: str, kind: tuple[str, ...]) -> LogSource:
    fields["event.category"], fields["event.type"] = ("iam",), kind
    fields["event.action"], fields["event.outcome"] = action, "success"
    return AUTH


def _other(fields: Fields, action: str, logsource: LogSource) -> LogSource:
    fields["event.category"], fields["event.type"] = ("host",), ("info",)
    fields["event.action"] = action
    return logsource


def read_accounts(message: str, fields: Fields) -> LogSource:
    """`new user: name=bob, UID=1001, GID=1001, home=/home/bob, shell=/bin/bash` and the like."""
    if names_pam(message):
        found_pam = read_pam(message, fields)
        return found_pam if found_pam is not None else _other(fields, "account_message", AUTH)
    found = _NEW_USER.match(message)
    if found is not None:
        fields["user.name"], fields["user.id"] = found["user"], found["uid"]
        fields["group.id"] = found["gid"]
        for part in found["rest"].split(", "):
            key, _, value = part.partition("=")
            if key in ("home", "shell") and value:
                fields[f"account.{key}"] = value
        return _iam(fields, "user_created", ("user", "creation"))
    return _membership(message, fields) or _changed(message, fields)


def _membership(message: str, fields: Fields) -> LogSource | None:
    found = _GROUPED.match(message) or _GPASSWD.match(message)
    if found is not None:
        fields["user.name"], fields["group.name"] = found["user"], found["group"]
        return _iam(fields, "group_changed", ("group", "change"))
    found = _GROUP.match(message)
    if found is not None:
        fields["group.name"] = found["group"]
        return _iam(fields, "group_changed", ("group", "creation"))
    return None


def _changed(message: str, fields: Fields) -> LogSource:
    found = _PASSWORD.match(message)
    if found is not None:
        fields["user.name"] = (found["user"] or found["user2"]).strip("'")
        return _iam(fields, "password_changed", ("user", "change"))
    found = _UID_CHANGED.match(message)
    if found is not None:
        fields["user.name"], fields["user.id"] = found["user"], found["uid"]
        return _iam(fields, "user_changed", ("user", "change"))
    found = _DELETED.match(message)
    if found is not None:
        fields["user.name"] = found["user"]
        return _iam(fields, "user_deleted", ("user", "deletion"))
    found = _CHANGED.match(message)
    if found is not None:
        fields["user.name"] = found["user"]
        return _iam(fields, "user_changed", ("user", "change"))
    return _other(fields, "account_message", AUTH)


def read_cron(message: str, fields: Fields) -> LogSource:
    """`(root) CMD (run-parts --report /etc/cron.hourly)`; REPLACE and the edits come from crontab."""
    if names_pam(message):
        found_pam = read_pam(message, fields, "cron")
        return found_pam if found_pam is not None else _other(fields, "cron_message", CRON)
    found = _CRON.match(message)
    if found is None:
        return _other(fields, "cron_message", CRON)
    fields["user.name"] = found["user"]
    if found["verb"] in ("CMD", "CMDEND"):
        fields["event.category"], fields["event.type"] = ("process",), ("start",)
        fields["event.action"], fields["event.outcome"] = "cron_command", "success"
        fields["process.command_line"] = (found["what"] or "").strip()
        return CRON
    if found["verb"] in ("REPLACE", "DELETE", "RELOAD", "END EDIT"):
        fields["event.category"], fields["event.type"] = ("configuration",), ("change",)
        fields["event.action"], fields["event.outcome"] = "cron_changed", "success"
        return CRON
    return _other(fields, "cron_message", CRON)


def read_login(message: str, fields: Fields) -> LogSource:
    """`FAILED LOGIN (1) on '/dev/tty1' FOR 'root', Authentication failure`, `ROOT LOGIN ON tty2`."""
    if names_pam(message):
        found_pam = read_pam(message, fields, "login")
        return found_pam if found_pam is not None else _other(fields, "login_message", AUTH)
    found = _LOGIN.match(message)
    if found is None:
        return read_pam(message, fields, "login") or _other(fields, "login_message", AUTH)
    fields["event.category"], fields["event.type"] = ("authentication",), ("start",)
    fields["event.action"] = "console_login"
    fields["event.outcome"] = "failure" if found["reason"] else "success"
    user = "root" if found["root"] else found["user"] or found["user2"]
    if user:
        fields["user.name"] = user
    origin = found["from"] or found["from2"] or found["from3"] or ""
    if not origin.startswith(("/dev/", "tty", "pts")):
        set_source(fields, origin)
    return AUTH
