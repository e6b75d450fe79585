"""Files, .gz archives and standard input read once from beginning to end, for `scan` and for rotated archives."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from breachwatch.errors import WatchError
from breachwatch.model import Gap, RawLine
from breachwatch.ports import Clock
from breachwatch.watch.fingerprint import generation_of
from breachwatch.watch.source import display

CHUNK_BYTES = 1 << 20
GZIP_MAGIC = b"\x1f\x8b"


def read_lines(item: Path | BinaryIO, *, max_line_bytes: int, clock: Clock) -> Iterator[RawLine | Gap]:
    """Every line of a file (plain or .gz) or stream; the last one counts without a line end too.

    `offset` is the byte offset in the unpacked file. A damaged archive gives what was readable, then a Gap.

    Raises: WatchError when the file cannot be opened.
    """
    if not isinstance(item, Path):
        yield from lines_of(item, "stdin", clock=clock, max_line_bytes=max_line_bytes)
        return
    source = display(str(item))
    try:
        with item.open("rb") as file:
            packed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
            file.seek(0)
            stream: BinaryIO = gzip.GzipFile(fileobj=file) if packed else file  # type: ignore[assignment]
            yield from lines_of(stream, source, clock=clock, max_line_bytes=max_line_bytes)
    except OSError as error:
        raise WatchError(f"cannot be read: {error.strerror or error}", source=source) from error


def lines_of(
    stream: BinaryIO | gzip.GzipFile,
    source: str,
    *,
    clock: Clock,
    max_line_bytes: int,
    offset: int = 0,
    generation: str = "",
) -> Iterator[RawLine | Gap]:
    """Cut a stream into lines, in bounded memory."""
    cutter = _Cutter(source, clock, max_line_bytes, offset, generation)
    while True:
        try:
            chunk = stream.read(CHUNK_BYTES)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            yield from cutter.finish()
            yield cutter.gap("unreadable", None, f"the archive is damaged after byte {cutter.offset}: {error}")
            return
        if not chunk:
            yield from cutter.finish()
            return
        yield from cutter.feed(chunk)


class _Cutter:
    """Lines out of chunks; keeps at most one line's head of memory."""

    def __init__(self, source: str, clock: Clock, max_line_bytes: int, offset: int, generation: str) -> None:
        self.offset = offset
        self._source = source
        self._clock = clock
        self._max = max_line_bytes
        self._generation = generation
        self._head = b""
        self._length = 0

    def feed(self, chunk: bytes) -> Iterator[RawLine | Gap]:
        """Complete lines that end in this chunk."""
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            yield from self._emit(piece, ended_by=1)
        self._keep(rest)

    def finish(self) -> Iterator[RawLine | Gap]:
        """The last line, if it has no line end."""
        if self._length:
            yield from self._emit(b"", ended_by=0)

    def _keep(self, piece: bytes) -> None:
        self._length += len(piece)
        if len(self._head) < self._max + 1:
            self._head += piece[: self._max + 1 - len(self._head)]

    def _emit(self, piece: bytes, *, ended_by: int) -> Iterator[RawLine | Gap]:
        self._keep(piece)
        data, length = self._head[: self._max].removesuffix(b"\r"), self._length
        if not self._generation:
            self._generation = generation_of(data)
        yield RawLine(
            source=self._source,
            data=data,
            offset=self.offset,
            generation=self._generation,
            length_bytes=length,
            is_partial=not ended_by,
        )
        if length > self._max:
            yield self.gap("line_cut", length - self._max, f"line at byte {self.offset} has {length} bytes")
        self.offset += length + ended_by
        self._head, self._length = b"", 0

    def gap(self, reason: str, lost_bytes: int | None, detail: str) -> Gap:
        """A record of what could not be seen."""
        return Gap(source=self._source, reason=reason, at_utc=self._clock.now(), lost_bytes=lost_bytes, detail=detail)
