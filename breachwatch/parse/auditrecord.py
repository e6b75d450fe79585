"""One line of the Linux audit log: its type, time and serial, and its fields, decoded.

Source: auditd(8), linux/audit.h, the audit record format of linux-audit/audit-documentation.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import msgspec

MAX_FIELDS = 256
"""Fields kept of one record; the kernel writes some forty."""

MAX_VALUE_CHARS = 8_192
"""One argument of a command may be 128 KiB; nobody matches on more than its beginning."""

MAX_PLAIN = 512
"""What has to be no shorter whatever it is."""

_HEAD = re.compile(
    r"(?:node=(?P<node>[^\s=]{1,255}) )?type=(?P<type>[A-Z0-9_]{1,48}(?:\[\d{1,5}\])?) "
    r"msg=audit\((?P<seconds>\d{1,11})\.(?P<fraction>\d{1,3}):(?P<serial>\d{1,20})\):[ ]?"
)
_FIELD = re.compile(
    r"(?P<name>[A-Za-z0-9_-]{1,48}(?:\[\d{1,5}\])?)="
    r'(?:(?P<quote>")(?P<quoted>[^"]*)"|(?P<bare>\((?:null|none|unset)\)|[^\s"\x1d\']*))'
)
_HEX = re.compile(r"(?:[0-9A-F]{2})+\Z")
_ARGUMENT = re.compile(r"a\d{1,5}(?:\[\d{1,5}\])?\Z")

ENCODED = frozenset({
    "acct", "cmd", "comm", "cwd", "data", "dir", "exe", "file", "grp", "key", "name", "new", "ocomm", "old", "op",
    "path", "proctitle", "res", "vm", "watch", "root_dir", "device",
})  # fmt: skip
"""Fields that the kernel and libaudit write in hex where they hold blanks, quotes, control or non-ASCII characters."""

_ABSENT = frozenset({"(null)", "(none)", "(unset)", "?", ""})

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_INET, _INET6, _UNIX, _NETLINK = 2, 10, 1, 16


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One part of an audit event."""

    type: str
    node: str
    at_utc: datetime
    serial: str
    fields: Mapping[str, str]
    """As the kernel names them; enriched ones (`UID="root"`) in capitals. Absent values are left out."""

    @property
    def event_key(self) -> tuple[str, datetime, str]:
        """What the parts of one event have in common: serials start again at every boot."""
        return self.node, self.at_utc, self.serial


def read_record(text: str) -> AuditRecord | None:
    """The record of a line such as `type=CWD msg=audit(1783414661.350:487): cwd="/root"`; None if it is none."""
    found = _HEAD.match(text)
    if found is None:
        return None
    node, kind, seconds, fraction, serial = found.groups()
    at_utc = _instant(seconds, fraction)
    if at_utc is None:
        return None
    return AuditRecord(
        type=kind, node=node or "", at_utc=at_utc, serial=serial, fields=_fields(text[found.end() :], kind)
    )


@lru_cache(maxsize=16)
def _instant(seconds: str, fraction: str) -> datetime | None:
    """All parts of an event have the same; None for what no calendar has."""
    try:
        return _EPOCH + timedelta(seconds=int(seconds), milliseconds=int(fraction.ljust(3, "0")))
    except OverflowError:
        return None


def _fields(body: str, kind: str) -> dict[str, str]:
    """The kernel's words first, then those of a program (`msg='...'`): a program's never replace the kernel's."""
    fields: dict[str, str] = {}
    begin, end = body.find("msg='"), body.rfind("'")
    if 0 <= begin < end - 4:
        _read(body[:begin], kind, fields)
        _read(body[end + 1 :], kind, fields)
        _read(body[begin + 5 : end], kind, fields)
    else:
        _read(body, kind, fields)
    return fields


def _read(body: str, kind: str, fields: dict[str, str]) -> None:
    is_command = kind == "EXECVE"
    for name, quote, quoted, bare in _FIELD.findall(body):
        if name in fields:
            continue
        if quote:
            fields[name] = quoted[:MAX_VALUE_CHARS]
        elif bare not in _ABSENT:
            is_plain = not is_command and name not in ENCODED and len(bare) <= MAX_PLAIN
            fields[name] = bare if is_plain else _decoded(name, bare, kind)
        if len(fields) >= MAX_FIELDS:
            return


def _decoded(name: str, value: str, kind: str) -> str:
    if name == "saddr":
        return value[:512]
    is_encoded = name in ENCODED or (kind == "EXECVE" and _ARGUMENT.match(name) is not None)
    if not is_encoded or _HEX.match(value[: 2 * MAX_VALUE_CHARS]) is None:
        return value[:MAX_VALUE_CHARS]
    data = bytes.fromhex(value[: 2 * MAX_VALUE_CHARS])
    if name == "proctitle":
        data = data.rstrip(b"\0").replace(b"\0", b" ")
    return data.decode("utf-8", "backslashreplace").replace("\0", "\\x00")


def socket_address(saddr: str) -> tuple[str, int | str] | None:
    """(address, port) or ("unix", path) of a SOCKADDR record's `saddr`; None for anything else. Source: socket(7)."""
    if len(saddr) < 4 or len(saddr) % 2 or _HEX.match(saddr) is None:  # noqa: PLR2004
        return None
    data = bytes.fromhex(saddr)
    family = int.from_bytes(data[:2], "little")
    if family not in {_INET, _INET6, _UNIX}:
        family = int.from_bytes(data[:2], "big")  # written on a big-endian machine
    if family == _INET and len(data) >= 8:  # noqa: PLR2004
        return str(ipaddress.IPv4Address(data[4:8])), int.from_bytes(data[2:4], "big")
    if family == _INET6 and len(data) >= 24:  # noqa: PLR2004
        address = ipaddress.IPv6Address(data[8:24])
        return str(address.ipv4_mapped or address), int.from_bytes(data[2:4], "big")
    if family == _UNIX:
        path = data[2:].rstrip(b"\0")
        return "unix", path.replace(b"\0", b"@").decode("utf-8", "backslashreplace")
    return None
