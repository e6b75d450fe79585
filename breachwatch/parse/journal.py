"""Records of the systemd journal as `journalctl -o json` writes them. Source: systemd.journal-fields(7)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from breachwatch.model import Event, FieldValue, LogSource, RawLine
from breachwatch.parse.context import ParseContext
from breachwatch.parse.event import event_id, line_fields, unparsable, visible_text
from breachwatch.parse.jsonlines import decoded_record, epoch_time
from breachwatch.parse.memory import Memory
from breachwatch.parse.programs import PROGRAMS, SYSLOG, Fields, read_any
from breachwatch.parse.syslog import SEVERITIES, SyslogParser

_PLAIN = {
    "_COMM": "journal.comm",
    "_EXE": "process.executable",
    "_UID": "journal.uid",
    "_SYSTEMD_UNIT": "journal.unit",
    "_TRANSPORT": "journal.transport",
    "_BOOT_ID": "host.boot.id",
}
"""Trusted fields (set by the journal itself, not by the sender) worth keeping, and our name for them."""


class JournalParser:
    """The journal of one host, by its own clock."""

    format = "journal"

    def __init__(self, memory: Memory | None = None) -> None:
        self._syslog = SyslogParser()
        self.memory = memory or Memory()

    def parse(self, line: RawLine, context: ParseContext) -> Sequence[Event]:
        """One event."""
        text = visible_text(line.data)
        events = self.read(text, line, context)
        if events is not None:
            return events
        reason = "no journal record"
        at_utc = self.memory.pass_over()
        return (unparsable(text, line, context, reason=reason, at_utc=at_utc, logsource=SYSLOG),)

    def read(self, text: str, line: RawLine, context: ParseContext) -> Sequence[Event] | None:  # noqa: ARG002  # Reader
        """The event of the record, or None where it is none."""
        record = decoded_record(line.data)
        if isinstance(record, str):
            return None
        at_utc = _instant(record)
        if at_utc is None:
            return None
        self.memory.note(at_utc)
        host = _text(record.get("_HOSTNAME")) or context.host
        message = _text(record.get("MESSAGE")).strip()
        tag = _text(record.get("SYSLOG_IDENTIFIER")) or _text(record.get("_COMM"))
        pid = _text(record.get("SYSLOG_PID")) or _text(record.get("_PID"))
        fields, logsource = self._fields(line, (host, tag[:128], pid, message), record)
        return (
            Event(
                id=event_id(line, host),
                at_utc=at_utc,
                logsource=logsource,
                fields=fields,
                raw=f"{tag}[{pid}]: {message}",
            ),
        )

    def _fields(self, line: RawLine, said: tuple[str, str, str, str], record: Fields) -> tuple[Fields, LogSource]:
        host, tag, pid, message = said
        number = pid if pid.isdecimal() and len(pid) <= 10 else None  # noqa: PLR2004
        if is_impostor(tag, record):
            fields = line_fields(line, host, message)
            logsource = read_any("", fields)  # its words are kept, but nothing in them is believed
            fields.update({"process.name": tag, "journal.identifier_mismatch": True})
        else:
            fields, logsource = self._syslog.message_fields(line, host, tag, number, message)
        for name, ours in _PLAIN.items():
            if value := _text(record.get(name)):
                fields.setdefault(ours, value)
        priority = _text(record.get("PRIORITY"))
        if priority in "01234567" and priority:
            fields["log.level"] = SEVERITIES[int(priority)]
        return fields, logsource


def is_impostor(tag: str, record: Fields) -> bool:
    """Whether an ordinary user logged under the name of a program whose word we take (`logger -t sshd ...`).

    The identifier is the sender's choice; `_UID` and `_COMM` are the kernel's. Set-uid programs (sudo, su) keep the
    caller's `_UID` but their own `_COMM`.
    """
    if tag.lower().partition("(")[0] not in PROGRAMS:
        return False
    uid, comm = _text(record.get("_UID")), _text(record.get("_COMM"))
    if uid in ("", "0") or not comm:
        return False
    return not (comm.startswith(tag[:15]) or tag.startswith(comm))


def _instant(record: Fields) -> datetime | None:
    """When journald took the record: microseconds since 1970."""
    value = _text(record.get("__REALTIME_TIMESTAMP"))
    if not value.isdecimal() or len(value) > 17:  # noqa: PLR2004  # microseconds until the year 5138
        return None
    return epoch_time(int(value) / 1e6)


def _text(value: FieldValue) -> str:
    """A journal field: text, a list of byte values (not UTF-8 or with control characters), or several of either."""
    if isinstance(value, str):
        return value.replace("\0", "\\x00")
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list) and value:
        if all(isinstance(item, int) and 0 <= item <= 255 for item in value):  # noqa: PLR2004  # octets
            return visible_text(bytes(item for item in value if isinstance(item, int)))
        return _text(value[0]) if not isinstance(value[0], list) else ""
    return ""
