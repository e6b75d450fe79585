"""Syslog lines: BSD, ISO and RFC 5424 headers; the message goes to the reader of the program that wrote it.

Source: RFC 3164, RFC 5424; the dialects of rsyslog (RSYSLOG_FileFormat, Traditional, Forward), BSD and Chrome OS.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from breachwatch.model import Event, LogSource, RawLine
from breachwatch.parse.context import ParseContext
from breachwatch.parse.event import event_id, line_fields, unparsable, visible_text
from breachwatch.parse.memory import Memory, Said
from breachwatch.parse.pam import read_pam
from breachwatch.parse.programs import PROGRAMS, SYSLOG, Fields, Reader, old_pam_tag, read_any, reader_for
from breachwatch.parse.sshd import SSHD, usual_login
from breachwatch.parse.timestamp import YearlessClock, iso

MAX_REPEATS = 1000
"""`message repeated N times` stands for at most this many events: a forged N must not fill the memory."""

SEVERITIES = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
"""By number. Source: RFC 5424 table 2."""

_CHROME_SEVERITIES = frozenset({"EMERG", "ALERT", "CRIT", "ERR", "WARNING", "NOTICE", "INFO", "DEBUG"})

_BODY = re.compile(r"([^\s\[\]]*[^\s:\[\]]) +([^\s:\[]{1,128})(?:\[(\d{1,10})\])?: ?(.*)", re.DOTALL)
"""`host tag[pid]: message`"""
_BODY_NO_HOST = re.compile(r"([^\s:\[]{1,128})(?:\[(\d{1,10})\])?: ?(.*)", re.DOTALL)
_BODY_ODD_TAG = re.compile(
    r"([^\s\[\]]*[^\s:\[\]]) +((?:-- )?[^\s:\[]{1,64}(?: \d[\w.]{0,15}| <\w{1,16}>)?)"
    r"(?:\[(\d{1,10})\])?(?: <\w{1,16}>)?: ?(.*)",
    re.DOTALL,
)
"""`syslogd 1.4.1: restart.`, ` -- root[2421]: ROOT LOGIN ON tty2`, `sockerfilterfw[1985] <Info>: ...`"""
_BODY_NO_TAG = re.compile(r"([^\s:\[\]]{1,255}) (.*)", re.DOTALL)
_BSD_HEAD = re.compile(
    r"(?:<(?P<pri>\d{1,3})>)?(?P<month>[A-Z][a-z]{2}) {1,2}(?P<day>\d{1,2}) (?:(?P<year>\d{4}) )?"
    r"(?P<clock>\d\d:\d\d:\d\d)"
    r"(?P<fraction>\.\d{1,9})?(?: (?P<zone>[A-Z]{3,4}))?:? (?:<[\w.]{1,32}> )?"
)
_ISO_HEAD = re.compile(
    r"(?:<(?P<pri>\d{1,3})>)?(?P<time>\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?) "
)
_RFC5424 = re.compile(
    r"<(?P<pri>\d{1,3})>1 (?P<time>\S{1,64}) (?P<host>\S{1,255}) (?P<app>\S{1,48}) (?P<pid>\S{1,128}) "
    r"(?P<msgid>\S{1,32}) ?"
)
_NO_TIME = re.compile(r"([A-Za-z0-9][\w.-]{0,254}) ([A-Za-z][\w./-]{0,63})\[(\d{1,10})\]: (.*)", re.DOTALL)
_REPEATED = re.compile(r"\s*message repeated (\d{1,7}) times: \[ ?(.*?)\]?\s*$", re.DOTALL)
_LAST_REPEATED = re.compile(r"(?:-+ )?last message repeated (\d{1,7}) times?(?: -+)?$")


class SyslogParser:
    """One syslog file: remembers the running year, the last time seen and the last message."""

    def __init__(self, format: str = "syslog", memory: Memory | None = None) -> None:  # noqa: A002  # as on the command line
        self.format = format
        self.memory = memory or Memory()
        self._clock = YearlessClock()
        self._readers: dict[str, tuple[str, Reader, str | None]] = {}

    def parse(self, line: RawLine, context: ParseContext) -> Sequence[Event]:
        """One event, or N for `message repeated N times`."""
        text = visible_text(line.data)
        events = self.read(text, line, context)
        if events is not None:
            return events
        reason = "no syslog header" if text else "empty line"
        at_utc = self.memory.pass_over()
        return (unparsable(text, line, context, reason=reason, at_utc=at_utc, logsource=SYSLOG),)

    def read(self, text: str, line: RawLine, context: ParseContext) -> Sequence[Event] | None:
        """The events of the line, or None where it has no syslog header."""
        if text[6:7] == " " and text[15:16] == " " and text[3:4] == " ":
            at_utc = self._clock.at(text[:15], context)
            if at_utc is not None:
                if (events := self._login(text, 16, line, at_utc)) is not None:
                    return events
                body = _BODY.match(text, 16)
                if body is not None:
                    return self._tagged(body.groups(), text, line, at_utc, context)
        return self._read_slowly(text, line, context)

    def _login(self, text: str, at: int, line: RawLine, at_utc: datetime) -> Sequence[Event] | None:
        """The event of a login tried, which is what hosts under attack log; None for any other line."""
        login = usual_login(text, at, line)
        if login is None:
            return None
        said, fields = login
        self.memory.note(at_utc, said)
        return (Event(id=event_id(line, said[0]), at_utc=at_utc, logsource=SSHD, fields=fields, raw=text),)

    def _read_slowly(self, text: str, line: RawLine, context: ParseContext) -> Sequence[Event] | None:
        if (found := _RFC5424.match(text)) is not None:
            return self._read_5424(found, text, line, context)
        priority: str | None = None
        if (found := _ISO_HEAD.match(text)) is not None:
            at_utc, priority = iso(found["time"], context.tz), found["pri"]
        elif (found := _BSD_HEAD.match(text)) is not None:
            at_utc, priority = self._bsd(found, context), found["pri"]
        elif (bare := _NO_TIME.fullmatch(text)) is not None:
            at_utc = self.memory.at_utc or context.reference_utc
            return self._tagged(bare.groups(), text, line, at_utc, context)
        else:
            return None
        if at_utc is None:
            return None
        if priority is None and (events := self._login(text, found.end(), line, at_utc)) is not None:
            return events
        return self._headed(text, found.end(), line, at_utc, context, priority=priority)

    def _bsd(self, found: re.Match[str], context: ParseContext) -> datetime | None:
        if found["year"]:
            context = ParseContext(
                host=context.host, reference_utc=context.reference_utc, tz=context.tz, year=int(found["year"])
            )
            at_utc = YearlessClock().at(f"{found['month']} {found['day']:>2} {found['clock']}", context)
        else:
            at_utc = self._clock.at(f"{found['month']} {found['day']:>2} {found['clock']}", context)
        if at_utc is not None and found["fraction"]:
            return at_utc.replace(microsecond=int(found["fraction"][1:7].ljust(6, "0")))
        return at_utc

    def _headed(
        self, text: str, at: int, line: RawLine, at_utc: datetime, context: ParseContext, *, priority: str | None
    ) -> Sequence[Event]:
        """What follows the time: host and tag, either of which may be missing."""
        rest = text[at:]
        if (body := _BODY.match(rest) or _BODY_ODD_TAG.match(rest)) is not None:
            return self._tagged(body.groups(), text, line, at_utc, context, priority=priority)
        if (body := _BODY_NO_HOST.match(rest)) is not None:
            return self._tagged((context.host, *body.groups()), text, line, at_utc, context, priority=priority)
        host, message = context.host, rest
        if not rest.startswith("-") and (body := _BODY_NO_TAG.fullmatch(rest)) is not None:
            host, message = body.groups()
        return self._tagged((host, "", None, message), text, line, at_utc, context, priority=priority)

    def _tagged(
        self,
        body: tuple[str | None, ...],
        text: str,
        line: RawLine,
        at_utc: datetime,
        context: ParseContext,
        *,
        priority: str | None = None,
    ) -> Sequence[Event]:
        host, tag, pid, message = body
        assert host is not None
        assert tag is not None
        assert message is not None
        severity = None
        if host in _CHROME_SEVERITIES:
            severity, host = host.lower(), context.host
        message = message.strip()
        said = (host, tag, pid, message)
        if "repeated" in message[:64] and (events := self._repeated(said, text, line, at_utc)):
            return events
        self.memory.note(at_utc, said)
        fields, logsource = self.message_fields(line, host, tag, pid, message)
        if priority is not None:
            number = int(priority)
            severity = SEVERITIES[number & 7]
            fields["log.syslog.priority"] = number
        if severity is not None:
            fields["log.level"] = severity
        return (Event(id=event_id(line, host), at_utc=at_utc, logsource=logsource, fields=fields, raw=text),)

    def message_fields(
        self, line: RawLine, host: str, tag: str, pid: str | None, message: str
    ) -> tuple[Fields, LogSource]:
        """The fields of one program's message and where it belongs."""
        known = self._readers.get(tag)
        if known is None:
            known = self._reader(tag)
        name, reader, old_service = known
        fields = line_fields(line, host, message)
        if name:
            fields["process.name"] = name
        if pid is not None:
            fields["process.pid"] = int(pid)
        if old_service is not None and (logsource := read_pam(message, fields, old_service)) is not None:
            return fields, logsource
        return fields, reader(message, fields)

    def _reader(self, tag: str) -> tuple[str, Reader, str | None]:
        name = tag.rpartition("/")[2] if tag.startswith("/") else tag
        known = (name, reader_for(name.lower()) if name else read_any, old_pam_tag(name))
        if len(self._readers) < 4096:  # noqa: PLR2004  # forged tags must not fill the memory
            self._readers[tag] = known
        return known

    def _repeated(self, said: Said, text: str, line: RawLine, at_utc: datetime) -> list[Event] | None:
        """N events for a message that stands for N, where its program has a reader; None for all other lines."""
        host, tag, pid, message = said
        if (found := _REPEATED.match(message)) is not None:
            inner = found[2]
        elif (found := _LAST_REPEATED.match(message)) is not None and self.memory.said is not None:
            host, tag, pid, inner = self.memory.said
        else:
            return None
        if tag.rpartition("/")[2].lower().partition("(")[0] not in PROGRAMS:
            return None
        self.memory.note(at_utc, (host, tag, pid, inner))
        events = []
        for ordinal in range(min(int(found[1]), MAX_REPEATS)):
            fields, logsource = self.message_fields(line, host, tag, pid, inner)
            fields["message"] = message
            events.append(
                Event(id=event_id(line, host, ordinal), at_utc=at_utc, logsource=logsource, fields=fields, raw=text)
            )
        return events

    def _read_5424(
        self, found: re.Match[str], text: str, line: RawLine, context: ParseContext
    ) -> Sequence[Event] | None:
        at_utc = iso(found["time"], context.tz)
        if at_utc is None:
            if found["time"] != "-":
                return None
            at_utc = self.memory.at_utc or context.reference_utc
        message = _after_structured_data(text, found.end())
        host = context.host if found["host"] == "-" else found["host"]
        tag = "" if found["app"] == "-" else found["app"]
        pid = found["pid"] if found["pid"].isdecimal() and len(found["pid"]) <= 10 else None  # noqa: PLR2004
        return self._tagged((host, tag, pid, message), text, line, at_utc, context, priority=found["pri"])


def _after_structured_data(text: str, at: int) -> str:
    r"""The message behind `-` or `[id key="value"]...`, in which `\"`, `\\` and `\]` are escaped (RFC 5424 6.3)."""
    if text.startswith("-", at):
        return text[at + 1 :].lstrip(" \ufeff")
    end = at
    while text.startswith("[", end):
        quoted = False
        end += 1
        while end < len(text) and (quoted or text[end] != "]"):
            if text[end] == "\\":
                end += 1
            elif text[end] == '"':
                quoted = not quoted
            end += 1
        end += 1
    return text[end:].lstrip(" \ufeff")
