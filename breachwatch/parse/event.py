"""From a line and its fields to an Event: identity, text, and what to do with a line nobody can read."""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING

from breachwatch.model import Event, FieldValue, LogSource, RawLine
from breachwatch.parse.context import ParseContext

if TYPE_CHECKING:
    from datetime import datetime

MAX_LINE_BYTES = 65_536
"""Longer lines are cut before anything looks at them (watch cuts them too): bounds every field and every regex."""

EVENT_ID_BYTES = 16
"""128 bits: no accidental collision in any log a company will ever keep."""

JOURNAL_SOURCE = "journal"
"""The `source` of lines that have no file."""


@lru_cache(maxsize=1024)
def digest_of(host: str, generation: str) -> blake2b:
    """What the names of all events of a file begin with, hashed; to be copied."""
    start = f"{len(host)}:{host}{len(generation)}:{generation}"
    return blake2b(start.encode("utf-8", "surrogatepass"), digest_size=EVENT_ID_BYTES)


def event_id(line: RawLine, host: str, ordinal: int = 0) -> str:
    """Hex name of one event, from content alone: reading the same bytes of the same file again gives the same one."""
    digest = digest_of(host, line.generation).copy()
    if line.cursor:
        digest.update(b"%d:%d:%b\0" % (line.offset, ordinal, line.cursor.encode("utf-8", "surrogatepass")))
    else:
        digest.update(b"%d:%d:\0" % (line.offset, ordinal))
    digest.update(line.data)
    return digest.hexdigest()


def visible_text(data: bytes) -> str:
    r"""The line as text: undecodable bytes as `\xhh`, NUL as `\x00`, a carriage return at the end dropped."""
    text = data[:MAX_LINE_BYTES].decode("utf-8", "backslashreplace")
    if "\0" in text:
        text = text.replace("\0", "\\x00")
    return text.rstrip("\r\n")


def line_fields(line: RawLine, host: str, message: str) -> dict[str, FieldValue]:
    """The fields every event of a log line has; parsers add theirs."""
    fields: dict[str, FieldValue] = {"host.name": host, "message": message, "event.kind": "event"}
    if line.peer:
        fields["log.source.address"] = line.peer
    elif line.source != JOURNAL_SOURCE:
        fields["log.file.path"] = line.source
        fields["log.offset"] = line.offset
    if line.length_bytes > len(line.data) or len(line.data) > MAX_LINE_BYTES:
        fields["log.flags"] = ("truncated",)
    return fields


def unparsable(
    text: str, line: RawLine, context: ParseContext, *, reason: str, at_utc: datetime | None, logsource: LogSource
) -> Event:
    """A line that no parser could read, kept whole with the reason; its time is the last one known in the file."""
    fields = line_fields(line, context.host, text)
    fields["event.kind"] = "pipeline_error"
    fields["error.message"] = reason
    return Event(
        id=event_id(line, context.host),
        at_utc=at_utc or context.reference_utc,
        logsource=logsource,
        fields=fields,
        raw=text,
    )
