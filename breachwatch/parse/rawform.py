"""What the parsers promise about raw lines, for the prefilter. Tests hold every promise against corpora and forgeries.

Whoever adds a field to a parser adds it here: in doubt to `derived`, which promises nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from breachwatch.model import LogSource
from breachwatch.model.passes import BACKSLASH, OTHER, RECORD, holds
from breachwatch.model.rawform import RawForm, Sign, Usual, Words
from breachwatch.parse.jsonlines import DATASETS
from breachwatch.parse.web import USUAL_FIELDS, usual_parts, usual_time

_SU: Words = ("su:", "su[", "su(", "su-l", " su ")
_GROUP: Words = ("to group", "to shadow group", "from group", "new group: ", "group added to")

ACTIONS: Mapping[str, Words] = {
    "ssh_login": ("failed ", "accepted "),
    "ssh_key_refused": ("failed publickey",),
    "ssh_login_step": ("postponed ", "partial "),
    "ssh_invalid_user": ("invalid user", "illegal user"),
    "ssh_user_checked": ("input_userauth_request",),
    "ssh_disconnect": (
        "connection closed by", "connection reset by", "disconnected from", "received disconnect from", "disconnecting",
    ),
    "ssh_connection": ("connection from",),
    "ssh_max_auth_attempts": ("too many authentication failures", "maximum authentication attempts exceeded"),
    "ssh_user_denied": ("not allowed because", "root login refused"),
    "ssh_pam_error": ("pam: ",),
    "ssh_reverse_mapping_failed": ("reverse mapping checking", "maps to"),
    "ssh_negotiation_failed": (
        "unable to negotiate", "did not receive identification", "bad protocol version", "ssh_dispatch_run_fatal",
        "banner exchange", "magic value check",
    ),
    "ssh_connection_refused": ("refused connect from",),
    "ssh_message": ("sshd",),
    "pam_authentication": ("authentication failure; ",),
    "pam_summary": ("more authentication failure",),
    "pam_user_unknown": ("check pass; user unknown",),
    "password_changed": ("password changed for", "password for "),
    "session_opened": ("session opened for user",),
    "session_closed": ("session closed for user",),
    "sudo_auth_failure": ("incorrect password attempt",),
    "sudo_denied": ("not in sudoers", "user not authorized on host", "command not allowed", "not allowed to",
                    "not in the sudoers file", "sorry, you are not allowed"),
    "sudo_password_required": ("a password is required", "no tty present"),
    "sudo_command": ("command=",),
    "sudo_message": ("sudo",),
    "su_login": _SU,
    "auth_message": _SU,
    "user_created": ("new user: name=",),
    "group_changed": _GROUP,
    "user_changed": (
        "change user", "changed user", "lock user", "change name of", " shell of", " shell for", " password of",
        " password for", " home of", " home for",
    ),
    "user_deleted": ("delete user", "remove user", "removed user"),
    "account_message": (
        "useradd", "adduser", "userdel", "usermod", "groupadd", "groupmod", "groupdel", "passwd", "chage", "chfn",
        "chsh",
    ),
    "cron_command": ("cmd",),
    "cron_changed": ("replace", "delete", "reload", "end edit"),
    "cron_message": ("cron",),
    "console_login": ("login",),
    "login_message": ("login",),
    "app_login": (
        "fail", "denied", "rejected", "refused", "invalid", "incorrect", "mismatch", "error", "wrong", "bad",
        "unsuccessful", "could not",
    ),
    "syslog_message": (),
    "http_request": (),
    "http_error": (),
    "http_authentication": (
        "authentication failure", "password mismatch", "not found", "in realm", "wrong authentication scheme",
        "client login failed",
    ),
    "http_message": ("nginx", "httpd", "apache"),
}  # fmt: skip
"""Every `event.action` of a text line, and the words it is read from."""

_ASKED_FOR: Words = ("auth", "login", "logon", "password", "credential", "username")
"""Of what a program refused it says one of these, too."""

OUTCOMES: Mapping[tuple[str, str], Words] = {
    ("ssh_login", "failure"): ("failed ",),
    ("ssh_login", "success"): ("accepted ",),
}

_ESCAPES = r"%(?:2[5de]|3[0-9]|4[1-9a-f]|5[0-9af]|6[1-9a-f]|7[0-9ae]|u|c[01]|e0%[89]|e2%84%aa|c4%b[01]|c5%bf)|\\x|\\\\"
r"""Escapes that may stand, in the end, for an unreserved character (RFC 3986 2.3) or for one that folds into one:
its own code, a nested `%25`, `%u....`, overlong UTF-8, Kelvin sign, dotless and dotted i, long s; what Apache writes as
`\x..`, and a backslash written twice. Honest clients do not encode unreserved characters."""

_TEXT_EXACT = frozenset({
    "message", "process.name", "process.pid", "process.command_line", "process.executable", "process.thread.id",
    "process.working_directory", "log.syslog.priority", "event.reason", "source.port", "sshd.method", "pam.module",
    "pam.by_user", "pam.failures", "pam.ruser", "pam.tty", "sudo.attempts", "sudo.tty", "sudo.group",
    "user.effective.name", "user.id", "group.id", "group.name", "account.home", "account.shell",
    "apache.error.module", "nginx.error.connection_id", "http.request.method", "http.request.referrer",
    "http.response.body.bytes", "http.response.status_code", "http.version", "tls.cipher", "tls.version_protocol",
    "url.original", "url.query", "url.scheme", "user_agent.original",
})  # fmt: skip

_TEXT_DERIVED = frozenset({
    "host.name", "event.kind", "event.category", "event.type", "event.outcome", "log.file.path", "log.offset",
    "log.flags", "log.level", "error.message", "source.ip", "source.address", "source.domain", "network.forwarded_ip",
    "url.domain", "user.name", "pam.service", "sshd.invalid_user",
})  # fmt: skip
"""Names and addresses are here because access lines put them together from several words."""

_SSHD = LogSource("linux", "", "sshd")
_SUDO = LogSource("linux", "", "sudo")
_CRON = LogSource("linux", "", "cron")

_PROGRAMS: Mapping[LogSource, tuple[Words, ...]] = {_SSHD: (("sshd",),), _SUDO: (("sudo",),), _CRON: (("cron",),)}


def _program_words(wanted: LogSource) -> tuple[Words, ...] | None:
    """A message of a program names it."""
    return _PROGRAMS.get(wanted, ())


def _syslog_words(wanted: LogSource) -> tuple[Words, ...] | None:
    """The same in a syslog file, where web servers are programs like others."""
    if wanted.category == "webserver" or wanted.product in ("nginx", "apache"):
        return (("nginx", "httpd", "apache"),)
    return _program_words(wanted)


_WORD = re.compile(r"[A-Za-z0-9_-]+")


def _dataset_words(wanted: LogSource) -> tuple[Words, ...] | None:
    """A record names its source in `event.dataset` (`"linux.auditd"`, or a name for another one) or part by part."""
    mapped = tuple(f'"{name}"' for name, source in DATASETS.items() if _fits(wanted, source))
    parts: list[Words] = [(f'"{wanted.product}',)] if wanted.product else []
    parts += [(f'"{wanted.category}"',)] if wanted.category else []
    parts += [(f".{wanted.service}", f'"{wanted.service}"')] if wanted.service else []
    if not all(_WORD.fullmatch(name) for name in (wanted.product, wanted.category, wanted.service) if name):
        return ()
    return tuple((*part, *mapped) for part in parts)


def _fits(wanted: LogSource, given: LogSource) -> bool:
    pairs = ((wanted.product, given.product), (wanted.category, given.category), (wanted.service, given.service))
    return all(not name or name == other for name, other in pairs)


TEXT = RawForm(
    name="text",
    exact=_TEXT_EXACT,
    decoded=frozenset({"url.path", "web.path_decoded", "web.query_decoded"}),
    escapes=_ESCAPES,
    derived=_TEXT_DERIVED,
    signs={"event.action": (ACTIONS, {**ACTIONS, "app_login": _ASKED_FOR})},
    pairs=OUTCOMES,
    sources=(
        LogSource(),
        _SSHD,
        _SUDO,
        _CRON,
        LogSource("linux", "", "auth"),
        LogSource("linux", "", "syslog"),
        LogSource("nginx", "webserver", ""),
        LogSource("nginx", "webserver", "error"),
        LogSource("apache", "webserver", ""),
        LogSource("apache", "webserver", "error"),
    ),
    words_of=_program_words,
    # what may be JSON; empty lines, lines that stand for the line before them, and parts of audit events
    dirty=(Sign(r"^[\x00-\x09\x0b-\x20\x80-\xff]*\{", needs=(b"{",), flag=RECORD),),
    dirty_words=("\n\n", "\n\r", "repeated", "msg=audit("),
    digits_fold=True,
)
"""Access and error logs, and what else is in their files."""

NGINX, APACHE = (
    replace(TEXT, name=name, usual=Usual(LogSource(name, "webserver", ""), usual_parts, usual_time, USUAL_FIELDS))
    for name in ("nginx", "apache")
)
"""Access logs, of whose lines nearly all are of one shape."""

_SYSLOG = replace(TEXT, name="syslog", words_of=_syslog_words)

_SSHD_ACTIONS = {
    action: words
    for action, words in ACTIONS.items()
    if action.startswith(("ssh_", "pam_", "session_")) or action == "password_changed"
}

SYSLOG = replace(
    _SYSLOG,
    named=r"(?:[A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8}|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}(?:\.[0-9]{1,6})?"
    r"(?:Z|[+-][0-9]{2}:[0-9]{2})) [a-z0-9][a-z0-9.-]{0,252} ([a-z-]{1,32})\[[0-9]{1,10}\]: ",
    programs=dict.fromkeys(
        ("sshd", "sshd-session", "sshd-auth"),
        # what has no valid time is no message of sshd but a line that nobody can read
        replace(_SYSLOG, sources=(_SSHD, LogSource("linux", "", "syslog")), signs={"event.action": (_SSHD_ACTIONS,)}),
    ),
)
"""Syslog."""

SYSLOG_AND_OTHERS = replace(
    SYSLOG,
    name="syslog and others",
    # lines that `auto` reads as those of a web server, whatever the file
    dirty=(
        *TEXT.dirty,
        Sign(r"\[[0-9]{2}/[a-z]{3}/[0-9]{4}:"),
        Sign(r"[0-9]{4}/[0-9]{2}/[0-9]{2} [0-9]{2}:"),
        Sign(r"\[[a-z]{3} [a-z]{3} [ 0-9][0-9] [0-9]{2}:"),
    ),
)
"""Syslog in a file whose format nobody named."""

JSON = RawForm(
    name="json",
    escapes_json=True,
    derived=frozenset({
        "log.file.path", "log.offset", "log.flags", "host.name", "event.kind", "error.message", "@timestamp",
    }),
    # characters written as escapes (control characters aside, which no literal holds), and lines that are no objects
    dirty=(
        Sign(r"\\(?:u(?:00[2-9a-f]|0[1-9a-f]|[1-9a-f])|/)", needs=(b"\\u", b"\\U", b"\\/"), flag=BACKSLASH),
        Sign(r"^[\x00-\x09\x0b-\x20]*[^\x00-\x09\x0b-\x20{]", flag=OTHER),
    ),
    dirty_words=("__realtime_timestamp",),  # `auto` reads these as records of the journal
    words_of=_dataset_words,
)  # fmt: skip
"""JSON records."""

FORMS: Mapping[str, RawForm] = {
    "syslog": SYSLOG,
    "syslog5424": SYSLOG,
    "sshd": SYSLOG,
    "nginx": NGINX,
    "apache": APACHE,
    "json": JSON,
}
"""By format; formats that are missing here are read line by line."""

SETTLED: Mapping[str, RawForm] = {**FORMS, "syslog": SYSLOG_AND_OTHERS}
"""By the format that `auto` settled on."""

_TIME_KEYS = (b'timestamp"', b'"time"', b'"ts"', b'"date"', b'"eventTime"', b"\\u00")
"""In every JSON line that has a time of its own; a letter of a name may be written as an escape."""


def last_time_key(data: bytes, start: int, stop: int) -> int:
    """A place in the last JSON line there that may have a time of its own; -1: no line has one."""
    last = -1
    for key in _TIME_KEYS:
        if last >= 0:
            last = max(last, data.rfind(key, last, stop))
        elif holds(data, key, start, stop):  # many times faster than `rfind`
            last = data.rfind(key, start, stop)
    return last
