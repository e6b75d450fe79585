"""Cutting bytes at known offsets into blocks, lines and gaps: bounded memory, whatever is in them."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from dataclasses import dataclass

from breachwatch.model import Block, Gap, RawLine
from breachwatch.ports import Clock
from breachwatch.watch.fingerprint import generation_of
from breachwatch.watch.framing import UTF_8, Encoding, Framing, whole_characters

CHUNK_BYTES = 256 * 1024
"""Read at a time: fits the processor's cache (facts: larger chunks are slower)."""

NUL_RUN = 16
"""So many NUL bytes at a line's start are a hole left by truncation under a writer, not content."""

_NULS = b"\0" * NUL_RUN
_HOLE = b"\n" + _NULS

Piece = Block | RawLine | Gap


def chunk_size(max_line_bytes: int) -> int:
    """Bytes to read at a time: a record and an unfinished line behind it always fit, so a tail never stalls."""
    return max(CHUNK_BYTES, 2 * max_line_bytes + 8)


@dataclass(slots=True)
class _LongLine:
    """A line larger than the limit, while its end is searched."""

    start: int
    head: bytes


class Cutter:
    """Feeds on consecutive chunks; whoever owns it keeps what was not used and shows it again with more behind it.

    `offset` is the place of the next chunk. `safe` is the place to start again from after a crash: they differ only
    inside a line that is longer than the limit.
    """

    def __init__(
        self, source: str, *, clock: Clock, max_line_bytes: int, framing: Framing, offset: int = 0, generation: str = ""
    ) -> None:
        self.offset = offset
        self.generation = generation
        self._source = source
        self._clock = clock
        self._max = max_line_bytes
        self._framing = framing
        self._starts = framing.starts_record()
        self._encoding: Encoding | None = None if framing.encoding == "auto" else framing.encoding_of(b"")
        self._long: _LongLine | None = None
        self._out: list[Piece] = []

    @property
    def safe(self) -> int:
        """Everything before this byte was given out."""
        return self.offset if self._long is None else self._long.start

    def sniff(self, head: bytes) -> None:
        """Learn the encoding from the file's first bytes, before the first chunk if that does not start at 0."""
        if self._encoding is None:
            self._encoding = self._framing.encoding_of(head)

    def cut(self, chunk: bytes, *, flush: bool = False) -> tuple[list[Piece], int]:
        """What the chunk holds, and how many of its bytes are used up. `flush`: a record has no more lines to come."""
        if self.offset == 0:
            self.sniff(chunk[:4])
        start = self.offset
        position = 0
        while position < len(chunk):
            used = self._step(chunk, position, flush=flush)
            if used == 0:
                break
            position += used
            self.offset = start + position
        pieces, self._out = self._out, []
        return pieces, position

    def last_words(self, rest: bytes, length: int) -> list[Piece]:
        """An unfinished last line of `length` bytes that nobody will finish; `rest` is what of it is at hand."""
        if self._long is not None:
            start, head = self._long.start, self._long.head
            length += self.offset - start
            self._long = None
        else:
            start, head = self.offset, rest[: self._max]
        if length:
            self._line(head, start, length, is_partial=True)
        self.offset = start + length
        pieces, self._out = self._out, []
        return pieces

    def _step(self, chunk: bytes, at: int, *, flush: bool) -> int:
        """Handle what begins at `at`; returns bytes used, 0 if more has to come first."""
        encoding = self._encoding or UTF_8
        if self._long is not None:
            return self._end_long(chunk, at, encoding)
        if chunk.startswith(_NULS, at):
            return self._hole(chunk, at)
        if encoding.unit > 1:
            end = self._last_feed(chunk, at, encoding)
        else:
            hole = chunk.find(_HOLE, at) if b"\0" in chunk else -1  # one byte is found many times faster than a run
            end = chunk.rfind(b"\n", at, hole + 1 if hole >= 0 else len(chunk)) + 1
        if end <= at:
            return self._begin_long(chunk, at, encoding)
        if not self.generation:
            self.generation = generation_of(chunk[at : chunk.find(encoding.line_feed, at)])
        if self._starts is not None:
            return self._records(chunk, at, end, encoding, flush=flush)
        if encoding is UTF_8:
            return self._blocks(chunk, at, end)
        for position, line in _split(chunk, at, end, encoding, self.offset - at):
            self._line(line[: self._max], self.offset - at + position, len(line))
        return end - at

    # -- ordinary lines -------------------------------------------------------------------------------------------

    def _blocks(self, chunk: bytes, at: int, end: int) -> int:
        """One block for all lines up to the first one that needs a word of its own, then that one."""
        if self.offset == 0 and chunk.startswith(codecs.BOM_UTF8):
            first = chunk.find(b"\n", at)
            self._line(chunk[at:first][: self._max], 0, first - at)
            return first + 1 - at
        begin = at
        while begin < end:
            feed = chunk.rfind(b"\n", begin, min(begin + self._max + 1, end))
            if feed < 0:
                break
            begin = feed + 1
        if begin > at:
            self._out.append(
                Block(source=self._source, data=chunk[at:begin], offset=self.offset, generation=self.generation)
            )
        if begin >= end:
            return begin - at
        feed = chunk.find(b"\n", begin)
        self._line(chunk[begin : begin + self._max], self.offset + begin - at, feed - begin)
        return feed + 1 - at

    def _line(self, head: bytes, offset: int, length: int, *, is_partial: bool = False) -> None:
        """One line on its own: its head, and a gap for what was cut off."""
        encoding = self._encoding or UTF_8
        if length > len(head):
            head = head[: len(head) - len(head) % encoding.unit]
            head = whole_characters(head) if encoding is UTF_8 else head
        kept = len(head)
        if offset == 0:
            head = head.removeprefix(codecs.BOM_UTF8 if encoding is UTF_8 else _mark(encoding))
        data = head if encoding is UTF_8 else encoding.text(head)
        self._out.append(
            RawLine(
                source=self._source,
                data=data.removesuffix(b"\r"),
                offset=offset,
                generation=self._generation_of(head),
                length_bytes=length,
                is_partial=is_partial,
            )
        )
        if length > kept:
            self._gap("line_cut", length - kept, f"line at byte {offset} has {length} bytes")

    def _generation_of(self, head: bytes) -> str:
        if not self.generation:
            self.generation = generation_of(head)
        return self.generation

    # -- records of several lines ---------------------------------------------------------------------------------

    def _records(self, chunk: bytes, at: int, end: int, encoding: Encoding, *, flush: bool) -> int:
        """Whole records; the last one stays until the next begins, unless it is too large or `flush`."""
        record = _Record(at)
        base = self.offset - at
        for position, line in _split(chunk, at, end, encoding, base):
            text = line if encoding is UTF_8 else encoding.text(line)
            begins = self._starts is None or self._starts(text) is not None
            too_large = record.lines and (
                len(record.lines) >= self._framing.max_lines or record.size + len(text) >= self._max
            )
            if record.lines and (begins or too_large):
                self._record(record, base)
                if not begins:
                    detail = f"the record at byte {base + record.start} goes on after {len(record.lines)} lines"
                    self._gap("record_split", 0, detail)
                record = _Record(position)
            record.add(line, text)
        if flush:
            self._record(record, base)
            return end - at
        return record.start - at

    def _record(self, record: _Record, base: int) -> None:
        offset = base + record.start
        if len(record.lines) == 1 and len(record.raw[0]) > self._max:
            self._line(record.raw[0][: self._max], offset, len(record.raw[0]))
            return
        data = b"\n".join(line.removesuffix(b"\r") for line in record.lines)
        self._out.append(
            RawLine(
                source=self._source, data=data, offset=offset, generation=self.generation, length_bytes=len(data)
            )
        )  # fmt: skip

    # -- what is special ------------------------------------------------------------------------------------------

    def _hole(self, chunk: bytes, at: int) -> int:
        end = len(chunk) - len(chunk[at:].lstrip(b"\0"))
        self._gap("nul_run", end - at, f"{end - at} NUL bytes at byte {self.offset} skipped")
        return end - at

    def _begin_long(self, chunk: bytes, at: int, encoding: Encoding) -> int:
        if len(chunk) - at <= self._max + 2 * encoding.unit:
            return 0  # still being written
        self._long = _LongLine(self.offset, chunk[at : at + self._max])
        used = len(chunk) - at
        return used - used % encoding.unit

    def _end_long(self, chunk: bytes, at: int, encoding: Encoding) -> int:
        assert self._long is not None
        feed = _find_feed(chunk, at, encoding, self.offset - at)
        if feed < 0:
            used = len(chunk) - at
            return used - used % encoding.unit
        long, self._long = self._long, None
        self._line(long.head, long.start, self.offset + feed - at - long.start)
        return feed + len(encoding.line_feed) - at

    @staticmethod
    def _last_feed(chunk: bytes, at: int, encoding: Encoding) -> int:
        """End of the last line in the chunk whose units count from `at`; 0 if there is none."""
        end = len(chunk)
        while (feed := chunk.rfind(encoding.line_feed, at, end)) >= 0:
            if (feed - at) % encoding.unit == 0:
                return feed + len(encoding.line_feed)
            end = feed + len(encoding.line_feed) - 1
        return 0

    def _gap(self, reason: str, lost_bytes: int | None, detail: str) -> None:
        self._out.append(
            Gap(source=self._source, reason=reason, at_utc=self._clock.now(), lost_bytes=lost_bytes, detail=detail)
        )


class _Record:
    """Lines that belong together, while they are collected."""

    __slots__ = ("lines", "raw", "size", "start")

    def __init__(self, start: int) -> None:
        self.start = start
        self.lines: list[bytes] = []
        self.raw: list[bytes] = []
        self.size = 0

    def add(self, raw: bytes, text: bytes) -> None:
        self.lines.append(text)
        self.raw.append(raw)
        self.size += len(text) + 1


def _mark(encoding: Encoding) -> bytes:
    return "\ufeff".encode(encoding.name) if encoding.unit > 1 else b""


def _find_feed(chunk: bytes, at: int, encoding: Encoding, base: int) -> int:
    """The next line feed at a unit's boundary, -1 if none. `base` is the offset of chunk[0]."""
    feed = chunk.find(encoding.line_feed, at)
    while feed >= 0 and (base + feed) % encoding.unit:
        feed = chunk.find(encoding.line_feed, feed + 1)
    return feed


def _split(chunk: bytes, at: int, end: int, encoding: Encoding, base: int) -> list[tuple[int, bytes]]:
    """(position in the chunk, line without its line feed) of whole lines."""
    lines: list[tuple[int, bytes]] = []
    width = len(encoding.line_feed)
    find: Callable[[bytes, int, Encoding, int], int] = _find_feed
    while at < end:
        feed = find(chunk, at, encoding, base)
        lines.append((at, chunk[at:feed]))
        at = feed + width
    return lines
