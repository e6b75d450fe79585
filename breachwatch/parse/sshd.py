"""What sshd writes. The client chooses the user name, so every address is read from where sshd itself put it."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from breachwatch.model import FieldValue, LogSource, RawLine
from breachwatch.parse.address import MAX_PORT, ip_of, set_source, set_source_port
from breachwatch.parse.event import line_fields
from breachwatch.parse.memory import Said
from breachwatch.parse.pam import names_pam, read_pam, read_summary

SSHD = LogSource("linux", "", "sshd")

Fields = dict[str, FieldValue]
_Handler = Callable[[str, Fields], bool]

_VERB = r"(?:Failed|Accepted|Postponed|Partial) (?P<method>\S{1,64}) for (?P<invalid>(?:invalid|illegal) user )?"
_ADDRESS = r"(?P<address>\S{1,256})"
_END = r"(?: port (?P<port>\d{1,5}))?(?: \[preauth\])?"

_TRIED = re.compile(
    rf"{_VERB}(?P<user>.*) from {_ADDRESS} port (?P<port>\d{{1,5}})(?: ssh[12])?"
    r"(?: \[preauth\])?(?:: [A-Z][-\w@.]{1,63} \S{16,128})?",
    re.DOTALL,
)
"""Greedy user, everything after it anchored: the last ` from ... port ...` is sshd's, whatever the user is called."""

_USUAL = re.compile(
    r"([a-z0-9][a-z0-9.-]{0,252}) sshd\[(\d{1,10})\]: "
    r"((Failed|Accepted) ([a-z-]{1,32})(?:/[a-z]{1,32})? for (invalid user )?([!-~]{1,64}) "
    r"from ((?:\d{1,3}\.){3}\d{1,3}) port ([1-9]\d{0,4}) ssh2(?:: [A-Z]{2,16} [!-~]{16,128})?)",
    re.ASCII,
)
"""What follows the time in nearly all lines of `_TRIED`: no part holds a blank, so there is one way to read it."""

_TRIED_WITH_DETAIL = re.compile(
    rf"{_VERB}(?P<user>.*?) from {_ADDRESS} port (?P<port>\d{{1,5}}) ssh[12](?:: .*)?",
    re.DOTALL,
)
"""Certificate ids and host-based client names follow the address and are the client's too: here the first counts."""

_INVALID = re.compile(rf"(?:Invalid|Illegal) user (?P<user>.*) from {_ADDRESS}{_END}", re.DOTALL)
_CLOSED_BY_USER = re.compile(
    r"(?:Connection (?:closed|reset) by|Disconnected from) (?P<who>invalid|authenticating) user (?P<user>.*) "
    rf"{_ADDRESS} port (?P<port>\d{{1,5}})(?: \[preauth\])?",
    re.DOTALL,
)
_CLOSED = re.compile(
    rf"(?:Connection (?:closed|reset) by|Disconnected from) (?:user (?P<user>\S{{1,256}}) )?{_ADDRESS}{_END}"
)
_RECEIVED = re.compile(
    r"Received disconnect from (?P<address>\S{1,256}?)(?: port (?P<port>\d{1,5}):|: )(?P<code>\d{1,5}): ?"
    r"(?P<reason>.*)",
    re.DOTALL,
)
_DISCONNECTING = re.compile(
    r"Disconnecting(?: (?P<who>invalid|authenticating) user (?P<user>.*))?"
    r" (?P<address>[0-9A-Fa-f.:]{3,45}) port (?P<port>\d{1,5}): "
    r"(?P<reason>Change of username or service not allowed: |Too many authentication failures)",
    re.DOTALL,
)
_TOO_MANY = re.compile(
    r"(?:Disconnecting: Too many authentication failures(?: for (?:invalid user )?(?P<user1>\S{1,256}))?"
    r"|maximum authentication attempts exceeded for (?P<invalid>invalid user )?(?P<user>.*)"
    rf" from {_ADDRESS} port (?P<port>\d{{1,5}})(?: ssh[12])?)(?: \[preauth\])?",
    re.DOTALL,
)
_NOT_ALLOWED = re.compile(rf"User (?P<user>\S{{1,256}}) from {_ADDRESS} not allowed because (?P<reason>.*)", re.DOTALL)
_ROOT_REFUSED = re.compile(rf"ROOT LOGIN REFUSED FROM {_ADDRESS}{_END}")
_PAM_ERROR = re.compile(
    r"PAM: (?P<reason>.{1,128}?) for (?P<invalid>illegal user |invalid user )?(?P<user>.*)"
    r" from (?P<address>\S{1,256})(?: via \S{1,256})? ?",
    re.DOTALL,
)
_REVERSE = re.compile(
    r"(?:reverse mapping checking getaddrinfo for \S{1,1024} \[(?P<address>\S{1,64})\] failed"
    r"|Address (?P<address2>\S{1,64}) maps to \S{1,1024}, but this does not map back)"
)
_NEGOTIATION = re.compile(
    r"(?:Unable to negotiate with (?P<address>\S{1,256}) port (?P<port>\d{1,5}): (?P<reason>.{1,512})"
    r"|Did not receive identification string from (?P<address2>\S{1,256})(?: port (?P<port2>\d{1,5}))?"
    r"|Bad protocol version identification '.*' from (?P<address3>\S{1,256})(?: port (?P<port3>\d{1,5}))?"
    r"|(?:ssh_dispatch_run_fatal: Connection from|banner exchange: Connection from)"
    r" (?P<address4>\S{1,256}) port (?P<port4>\d{1,5}): .{1,256}"
    r"|Magic value check failed \(\d{1,10}\) on obfuscated handshake"
    r" from (?P<address5>\S{1,256}) port (?P<port5>\d{1,5})"
    r"|Unable to negotiate a key exchange method"
    r")(?: \[preauth\])?",
    re.DOTALL,
)
_REFUSED = re.compile(
    r"refused connect from (?:.{0,1024} \((?P<address>[^\s()]{1,256})\)|(?P<address2>\S{1,256}))", re.DOTALL
)
_OPENED = re.compile(
    rf"Connection from {_ADDRESS} port (?P<port>\d{{1,5}})(?: on \S{{1,256}} port \d{{1,5}})?(?: rdomain .*)?"
)
_INPUT = re.compile(r"input_userauth_request: (?:invalid|illegal) user (?P<user>.*?)(?: \[preauth\])?", re.DOTALL)
_LEVEL = re.compile(
    r"(?:\[ID \d{1,10} [a-z0-9.]{1,32}\] |kernel:\s?\[ ?\d{1,12}\.\d{1,9}\] |(?:error|fatal|debug\d|warning): )+"
)

FAILED_REASONS = ("Auth fail", "No more user authentication methods")
"""What clients give as reason when they were refused."""


def read_sshd(message: str, fields: Fields) -> LogSource:
    """The fields of one message of sshd; what it says besides stays a plain message of sshd."""
    handler = _BY_WORD.get(message.partition(" ")[0])
    if handler is not None and handler(message, fields):
        return SSHD
    if names_pam(message):
        return SSHD if read_pam(message, fields) is not None else _other(fields)
    level = _LEVEL.match(message)
    if level is not None:
        message = message[level.end() :]
        handler = _BY_WORD.get(message.partition(" ")[0])
        if handler is not None and handler(message, fields):
            return SSHD
    return _other(fields)


def usual_login(text: str, at: int, line: RawLine) -> tuple[Said, Fields] | None:
    """What the syslog parser and `read_sshd` say of a line with a login tried, in one step; None for any other line.

    `at`: where the host begins. A host under attack logs hardly anything else.
    """
    found = _USUAL.fullmatch(text, at)
    if found is None:
        return None
    host, pid, message, verb, method, invalid, user, address, port = found.groups()
    ip, number = ip_of(address), int(port)
    if ip is None or number > MAX_PORT:
        return None
    fields = line_fields(line, host, message)
    fields["process.name"] = "sshd"
    fields["process.pid"] = int(pid)
    fields.update(_attempt(verb[0], method, invalid is not None))
    fields["user.name"] = user
    fields["source.address"] = address
    fields["source.ip"] = ip
    fields["source.port"] = number
    return (host, "sshd", pid, message), fields


def _other(fields: Fields) -> LogSource:
    fields["event.category"] = ("session",)
    fields["event.type"] = ("info",)
    fields["event.action"] = "ssh_message"
    return SSHD


def _event(fields: Fields, action: str, outcome: str) -> None:
    fields["event.category"] = ("authentication",)
    fields["event.type"] = ("start",)
    fields["event.action"] = action
    fields["event.outcome"] = outcome


def _who(fields: Fields, found: re.Match[str]) -> None:
    """User, address and port, where the pattern has them."""
    groups = found.groupdict()
    user = groups.get("user")
    if user:
        fields["user.name"] = user
    if groups.get("address"):
        set_source(fields, found["address"])
        set_source_port(fields, groups.get("port"))


def _tried(message: str, fields: Fields) -> bool:
    found = _TRIED.fullmatch(message) or _TRIED_WITH_DETAIL.fullmatch(message)
    if found is None:
        return False
    method, invalid, user, address, port = found.group("method", "invalid", "user", "address", "port")
    fields.update(_attempt(message[0], method.partition("/")[0], bool(invalid)))
    fields["user.name"] = user
    set_source(fields, address)
    set_source_port(fields, port)
    return True


@lru_cache(64)
def _attempt(first: str, method: str, is_invalid: bool) -> Fields:
    """What a login tried says beside who tried it, to be copied; `first`: letter of the message."""
    fields: Fields = {}
    if first == "F" and method == "publickey" and not is_invalid:
        _event(fields, "ssh_key_refused", "unknown")  # clients offer every key they hold: no failed login yet
    elif first == "P":
        _event(fields, "ssh_login_step", "unknown")
    else:
        _event(fields, "ssh_login", "failure" if first == "F" else "success")
    fields["sshd.method"] = method
    fields["sshd.invalid_user"] = is_invalid
    return fields


def _invalid(message: str, fields: Fields) -> bool:
    found = _INVALID.fullmatch(message)
    if found is None:
        return False
    _event(fields, "ssh_invalid_user", "failure")
    fields["sshd.invalid_user"] = True
    _who(fields, found)
    return True


def _input(message: str, fields: Fields) -> bool:
    found = _INPUT.fullmatch(message)
    if found is None:
        return False
    _event(fields, "ssh_user_checked", "unknown")  # the same attempt as the `Invalid user` line before it
    fields["sshd.invalid_user"] = True
    _who(fields, found)
    return True


def _connection(message: str, fields: Fields) -> bool:
    found = _CLOSED_BY_USER.fullmatch(message) or _CLOSED.fullmatch(message)
    if found is None:
        return _opened(message, fields)
    who = found.groupdict().get("who")
    # `Received disconnect` already told of an authenticating user who leaves
    lost = message.endswith("[preauth]") and not (message[0] == "D" and who == "authenticating")
    _event(fields, "ssh_disconnect", "failure" if lost else "unknown")
    fields["event.type"] = ("end",)
    if who == "invalid":
        fields["sshd.invalid_user"] = True
    _who(fields, found)
    return True


def _opened(message: str, fields: Fields) -> bool:
    found = _OPENED.fullmatch(message)
    if found is None:
        return False
    fields["event.category"] = ("network",)
    fields["event.type"] = ("connection", "start")
    fields["event.action"] = "ssh_connection"
    _who(fields, found)
    return True


def _received(message: str, fields: Fields) -> bool:
    found = _RECEIVED.fullmatch(message)
    if found is None:
        return False
    lost = message.endswith("[preauth]") or any(reason in found["reason"] for reason in FAILED_REASONS)
    _event(fields, "ssh_disconnect", "failure" if lost else "unknown")
    fields["event.type"] = ("end",)
    fields["event.reason"] = found["reason"].removesuffix(" [preauth]")
    _who(fields, found)
    return True


def _disconnecting(message: str, fields: Fields) -> bool:
    found = _TOO_MANY.fullmatch(message)
    if found is not None:
        _event(fields, "ssh_max_auth_attempts", "failure")
        _who(fields, found)
        if found["user1"]:
            fields["user.name"] = found["user1"]
        return True
    found = _DISCONNECTING.match(message)
    if found is None:
        return False
    many = found["reason"].startswith("Too many")
    _event(fields, "ssh_max_auth_attempts" if many else "ssh_disconnect", "failure")
    fields["event.reason"] = found["reason"].rstrip(": ")
    _who(fields, found)
    return True


def _not_allowed(message: str, fields: Fields) -> bool:
    found = _NOT_ALLOWED.fullmatch(message)
    if found is None:
        return False
    _event(fields, "ssh_user_denied", "failure")
    fields["event.reason"] = found["reason"][:256]
    _who(fields, found)
    return True


def _root_refused(message: str, fields: Fields) -> bool:
    found = _ROOT_REFUSED.fullmatch(message)
    if found is None:
        return False
    _event(fields, "ssh_user_denied", "failure")
    fields["user.name"] = "root"
    _who(fields, found)
    return True


def _pam(message: str, fields: Fields) -> bool:
    if read_summary(message, fields):
        return True
    found = _PAM_ERROR.fullmatch(message)
    if found is None:
        return False
    _event(fields, "ssh_pam_error", "failure")  # the same attempt as PAM's own line
    fields["pam.service"] = "sshd"
    fields["event.reason"] = found["reason"]
    fields["sshd.invalid_user"] = bool(found["invalid"])
    _who(fields, found)
    return True


def _reverse(message: str, fields: Fields) -> bool:
    found = _REVERSE.match(message)
    if found is None:
        return False
    fields["event.category"] = ("network",)
    fields["event.type"] = ("info",)
    fields["event.action"] = "ssh_reverse_mapping_failed"  # bad DNS, not a failed login
    set_source(fields, found["address"] or found["address2"])
    return True


def _negotiation(message: str, fields: Fields) -> bool:
    found = _NEGOTIATION.fullmatch(message)
    if found is None:
        return False
    fields["event.category"] = ("network",)
    fields["event.type"] = ("connection", "denied")
    fields["event.action"] = "ssh_negotiation_failed"
    fields["event.outcome"] = "failure"
    if found["reason"]:
        fields["event.reason"] = found["reason"].removesuffix(" [preauth]")
    for index in ("", "2", "3", "4", "5"):
        if found["address" + index]:
            set_source(fields, found["address" + index])
            set_source_port(fields, found["port" + index])
    return True


def _refused(message: str, fields: Fields) -> bool:
    found = _REFUSED.fullmatch(message)
    if found is None:
        return False
    fields["event.category"] = ("network",)
    fields["event.type"] = ("connection", "denied")
    fields["event.action"] = "ssh_connection_refused"
    fields["event.outcome"] = "failure"
    set_source(fields, found["address"] or found["address2"])
    return True


_BY_WORD: dict[str, _Handler] = {
    "Failed": _tried,
    "Accepted": _tried,
    "Postponed": _tried,
    "Partial": _tried,
    "Invalid": _invalid,
    "Illegal": _invalid,
    "input_userauth_request:": _input,
    "Connection": _connection,
    "Disconnected": _connection,
    "Received": _received,
    "Disconnecting": _disconnecting,
    "Disconnecting:": _disconnecting,
    "maximum": _disconnecting,
    "User": _not_allowed,
    "ROOT": _root_refused,
    "PAM": _pam,
    "PAM:": _pam,
    "reverse": _reverse,
    "Address": _reverse,
    "Unable": _negotiation,
    "Did": _negotiation,
    "Bad": _negotiation,
    "ssh_dispatch_run_fatal:": _negotiation,
    "banner": _negotiation,
    "Magic": _negotiation,
    "refused": _refused,
}
