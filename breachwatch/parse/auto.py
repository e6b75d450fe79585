"""Finding the format: by what the first lines look like, the path only where they could be several."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from breachwatch.model import Block, Event, LogSource, RawLine
from breachwatch.parse.auditd import AuditdParser
from breachwatch.parse.context import Ahead, ParseContext, Reader
from breachwatch.parse.event import unparsable, visible_text
from breachwatch.parse.journal import JournalParser
from breachwatch.parse.jsonlines import REALTIME, JsonParser
from breachwatch.parse.memory import Memory
from breachwatch.parse.syslog import SyslogParser
from breachwatch.parse.web import WebParser

SAMPLE_LINES = 50
"""Enough to outvote a few odd first lines."""

_SYSLOG = re.compile(rb"(?:<\d{1,3}>)?(?:[A-Z][a-z]{2} {1,2}\d{1,2} |\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)")
_SYSLOG_5424 = re.compile(rb"<\d{1,3}>1 (?:\d{4}-|- )")
_APACHE_ERROR = re.compile(rb"\[[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?:\.\d{1,6})? \d{4}\] \[")
_NGINX_ERROR = re.compile(rb"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[[a-z]{2,8}\] \d")
_ACCESS = re.compile(
    rb'[^"]{1,2048}?\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d(?: [+-]\d{4})?\] |\[\d\d/[A-Z][a-z]{2}/\d{4}:'
)
_AUDITD = re.compile(rb"(?:node=\S{1,255} )?type=[A-Z0-9_\[\]]{1,56} msg=audit\(\d{1,11}\.\d{1,3}:\d{1,20}\):")
_BARE = re.compile(rb"[A-Za-z0-9][\w.-]{0,254} [A-Za-z][\w./-]{0,63}\[\d{1,10}\]: ")
_SHAPES = (
    ("auditd", _AUDITD),
    ("syslog5424", _SYSLOG_5424),
    ("apache", _APACHE_ERROR),
    ("nginx", _NGINX_ERROR),
    ("syslog", _SYSLOG),
    ("syslog", _BARE),
)
"""Most telling first."""
_APACHE_PATH = re.compile(r"apache|httpd", re.IGNORECASE)


def detect_format(path: str, sample: Sequence[bytes]) -> str:
    """The format most lines of the sample have, from FORMATS; `auto` where none is recognised."""
    votes = Counter(shape for data in sample[:SAMPLE_LINES] if (shape := _shape(data)) != "")
    if not votes:
        return "auto"
    winner = votes.most_common(1)[0][0]
    return _web_product(path) if winner == "web" else winner


def _shape(data: bytes) -> str:
    """What one line looks like; empty where nothing fits."""
    head = data[:4096].lstrip()
    if head.startswith(b"{"):
        return "journal" if REALTIME.encode() in data else "json"
    known = next((name for name, shape in _SHAPES if shape.match(head)), "")
    return known or ("web" if _ACCESS.match(head) else "")


def _web_product(path: str) -> str:
    """Access logs of both servers look the same: the path decides, and without a hint nginx."""
    return "apache" if _APACHE_PATH.search(path) else "nginx"


class AutoParser:
    """A file of unknown format: lines go to the parser of the first one recognised, else to the one they look like.

    Which parser comes first never depends on later lines, so an odd line (or a forged one) changes nothing behind it.
    """

    format = "auto"

    def __init__(self) -> None:
        self._readers: dict[str, Reader] = {}
        self._audit: AuditdParser | None = None
        self._current: Reader | None = None
        self.memory = Memory()

    @property
    def settled(self) -> str | None:
        """The format of the first line that was recognised: lines of it are read by the same parser for good."""
        return None if self._current is None else self._current.format

    def parse(self, line: RawLine, context: ParseContext) -> Sequence[Event]:
        """The events of the first parser that knows the line."""
        text = visible_text(line.data)
        if self._current is not None and not (self._current.format == "json" and self._is_journal(line)):
            events = self._current.read(text, line, context)
            if events is not None:
                return events
        shape = detect_format(line.source, (line.data,))
        if shape != "auto":
            reader = self._reader(shape)
            events = None if reader is self._current else reader.read(text, line, context)
            if events is not None:
                self._current = self._current or reader
                return events
        reason = "the format of this line is not known" if text else "empty line"
        at_utc = self.memory.pass_over()
        return (unparsable(text, line, context, reason=reason, at_utc=at_utc, logsource=LogSource()),)

    def ahead(self, block: Block, context: ParseContext) -> Ahead | None:
        """How lines of JSON are read before it is their turn, but for records of the journal."""
        ahead = self._current.ahead(block, context) if isinstance(self._current, JsonParser) else None
        if ahead is None:
            return None
        return ahead._replace(
            read=lambda places: [None if one is None or REALTIME in one[1] else one for one in ahead.read(places)]
        )

    @property
    def is_holding(self) -> bool:
        """True while an audit event is unfinished."""
        return self._audit is not None and self._audit.is_holding

    @property
    def waiting(self) -> Sequence[RawLine]:
        """Lines of unfinished audit events."""
        return () if self._audit is None else self._audit.waiting

    def flush(self, context: ParseContext, *, everything: bool = False) -> Sequence[Event]:
        """Audit events that have waited long enough."""
        return () if self._audit is None else self._audit.flush(context, everything=everything)

    @staticmethod
    def _is_journal(line: RawLine) -> bool:
        return REALTIME.encode() in line.data

    def _reader(self, shape: str) -> Reader:
        shape = "syslog" if shape == "syslog5424" else shape  # one reader knows both, and the running year
        reader = self._readers.get(shape)
        if reader is None:
            reader = self._readers[shape] = _new_reader(shape, self.memory)
            if isinstance(reader, AuditdParser):
                self._audit = reader
        return reader


def _new_reader(shape: str, memory: Memory) -> Reader:
    match shape:
        case "journal":
            return JournalParser(memory)
        case "json":
            return JsonParser(memory)
        case "nginx" | "apache":
            return WebParser(shape, memory)
        case "auditd":
            return AuditdParser(memory)
        case _:
            return SyslogParser(memory=memory)
