"""Short ways to parse a line, shared by the tests of this folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from breachwatch.model import Event, FieldValue, RawLine
from breachwatch.parse import Assembler, ParseContext, parser_for

CONTEXT = ParseContext(host="web01", reference_utc=datetime(2026, 3, 1, 12, 0, tzinfo=UTC))


def raw_line(text: str | bytes, offset: int = 0, source: str = "/var/log/x.log") -> RawLine:
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    return RawLine(source=source, data=data, offset=offset, generation="ab12", length_bytes=len(data))


def parse_all(text: str | bytes, kind: str = "syslog", context: ParseContext = CONTEXT) -> Sequence[Event]:
    return whole(kind, raw_line(text), context)


def whole(kind: str, line: RawLine, context: ParseContext = CONTEXT) -> Sequence[Event]:
    """All events of a file that has only this line."""
    parser = parser_for(kind)
    events = parser.parse(line, context)
    return [*events, *parser.flush(context, everything=True)] if isinstance(parser, Assembler) else events


def parse_one(text: str | bytes, kind: str = "syslog", context: ParseContext = CONTEXT) -> Event:
    events = parse_all(text, kind, context)
    assert len(events) == 1
    return events[0]


def fields_of(text: str | bytes, kind: str = "syslog") -> Mapping[str, FieldValue]:
    return parse_one(text, kind).fields


def sshd(message: str) -> Mapping[str, FieldValue]:
    return fields_of(f"Dec 10 06:55:46 web01 sshd[24200]: {message}")


def program(tag: str, message: str) -> Event:
    return parse_one(f"Dec 10 06:55:46 web01 {tag}: {message}")


def file_lines(path: Path) -> list[RawLine]:
    """The lines of a file as a tail would give them."""
    lines, offset = [], 0
    for data in path.read_bytes().split(b"\n"):
        if data:
            lines.append(raw_line(data, offset, str(path)))
        offset += len(data) + 1
    return lines
