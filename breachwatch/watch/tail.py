"""Turning the growth of one file into lines: nothing lost, bounded memory, whatever is in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from breachwatch.model import Checkpoint, Gap, RawLine
from breachwatch.ports import Clock
from breachwatch.watch.fingerprint import HEAD_BYTES, TAIL_BYTES, generation_of, head_hash, is_same_content

CHUNK_BYTES = 256 * 1024
"""Read at a time: fits the processor's cache (facts: larger chunks are slower)."""

NUL_RUN = 16
"""So many NUL bytes at a line's start are a hole left by truncation under a writer, not content."""


@dataclass(slots=True)
class _LongLine:
    """A line larger than the limit, while its end is searched."""

    start: int
    head: bytes
    read_to: int


class FileTail:
    """One life of one open file. The caller owns the schedule and stores `checkpoint()` with what it took."""

    def __init__(self, descriptor: int, source: str, *, clock: Clock, max_line_bytes: int) -> None:
        status = os.fstat(descriptor)
        self.source = source
        self.device, self.inode = status.st_dev, status.st_ino
        self.offset = 0
        self.changed = True
        self.quiet_since: float | None = None
        """Monotonic seconds since when a rotated file has not grown; None while it is the current one."""
        self._fd = descriptor
        self._clock = clock
        self._max = max_line_bytes
        self._generation = ""
        self._head = b""
        self._tail = b""
        self._long: _LongLine | None = None

    def read_at(self, length: int, offset: int) -> bytes:
        """Bytes of the file, fewer at its end."""
        return os.pread(self._fd, length, max(0, offset))

    def size(self) -> int:
        """Present size in bytes."""
        return os.fstat(self._fd).st_size

    def links(self) -> int:
        """Names the file has left; 0 when it was deleted."""
        return os.fstat(self._fd).st_nlink

    def resume(self, known: Checkpoint) -> bool:
        """Continue where a checkpoint ended, if this still is that file; False (and offset 0) if not."""
        if self.size() < known.offset or not is_same_content(self.read_at, known):
            return False
        self.offset, self._generation, self._tail = known.offset, known.generation, known.tail
        self._head = self.read_at(known.head_len, 0)
        self.changed = False
        return True

    def checkpoint(self) -> Checkpoint:
        """How far lines were taken, and how to recognise the file."""
        return Checkpoint(
            source=self.source,
            device=self.device,
            inode=self.inode,
            offset=self.offset,
            generation=self._generation,
            head_hash=head_hash(self._head),
            head_len=len(self._head),
            tail=self._tail,
        )

    def has_more(self) -> bool:
        """True if there are bytes that were not looked at yet."""
        read_to = self._long.read_to if self._long else self.offset
        return self.size() != read_to

    def check(self) -> Gap | None:
        """Say if the file was cut or rewritten under us; the tail then starts over. Source: ATT&CK T1070.002."""
        size = self.size()
        if size < self.offset:
            gap = self._gap("truncated", lost_bytes=None, detail=f"{self.offset} bytes read before, {size} now")
        elif not is_same_content(self.read_at, self.checkpoint()):
            gap = self._gap("rewritten", lost_bytes=None, detail=f"what was read before byte {self.offset} has changed")
        else:
            return None
        self.start_over()
        return gap

    def start_over(self) -> None:
        """A new life begins at byte 0."""
        self.offset, self._generation, self._head, self._tail, self._long = 0, "", b"", b"", None
        self.changed = True

    def skip_to_end(self) -> None:
        """Take what is there as read."""
        self._jump(self.size())

    def lines(self, budget_bytes: int) -> Iterator[RawLine | Gap]:
        """Complete lines, about `budget_bytes` of them. An unfinished last line stays in the file."""
        left = budget_bytes
        while left > 0:
            read_to = self._long.read_to if self._long else self.offset
            chunk = self.read_at(max(CHUNK_BYTES, self._max + 2), read_to)
            if not chunk:
                return
            left -= len(chunk)
            before = (self.offset, read_to)
            yield from self._finish_long(chunk) if self._long else self._cut(chunk)
            if before == (self.offset, self._long.read_to if self._long else self.offset):
                return  # only an unfinished line is left

    def _cut(self, chunk: bytes) -> Iterator[RawLine | Gap]:
        holes = len(chunk) - len(chunk.lstrip(b"\0")) if chunk.startswith(b"\0" * NUL_RUN) else 0
        if holes:
            self._consume(chunk[:holes])
            yield self._gap("nul_run", lost_bytes=holes, detail=f"{holes} NUL bytes skipped")
            chunk = chunk[holes:]
        end = chunk.rfind(b"\n") + 1
        if end == 0:
            if len(chunk) > self._max:
                self._long = _LongLine(self.offset, chunk[: self._max], self.offset + len(chunk))
            return
        start = self.offset
        if not self._generation:
            self._generation = generation_of(chunk[: chunk.find(b"\n")])
        position = 0
        for line in chunk[: end - 1].split(b"\n"):
            yield from self._emit(line, start + position, len(line))
            position += len(line) + 1
        self._consume(chunk[:end])

    def _emit(self, line: bytes, offset: int, length: int) -> Iterator[RawLine | Gap]:
        kept = line[: self._max]
        if kept.endswith(b"\r"):
            kept = kept[:-1]
        yield RawLine(source=self.source, data=kept, offset=offset, generation=self._generation, length_bytes=length)
        if length > self._max:
            lost = length - len(kept)
            yield self._gap("line_cut", lost_bytes=lost, detail=f"line at byte {offset} has {length} bytes")

    def _finish_long(self, chunk: bytes) -> Iterator[RawLine | Gap]:
        assert self._long is not None
        long = self._long
        end = chunk.find(b"\n")
        if end < 0:
            long.read_to += len(chunk)
            return
        length = long.read_to + end - long.start
        if not self._generation:
            self._generation = generation_of(long.head)
        self._long = None
        yield from self._emit(long.head, long.start, length)
        self._jump(long.start + length + 1)

    def last_words(self) -> Iterator[RawLine | Gap]:
        """The unfinished last line of a file that nobody writes to any more."""
        end = self.size()
        if end <= self.offset:
            return
        data = self.read_at(self._max, self.offset)
        if not self._generation:
            self._generation = generation_of(data)
        yield RawLine(
            source=self.source,
            data=data.removesuffix(b"\r"),
            offset=self.offset,
            generation=self._generation,
            length_bytes=end - self.offset,
            is_partial=True,
        )
        self._long = None
        self._jump(end)

    def _consume(self, taken: bytes) -> None:
        if len(self._head) < HEAD_BYTES and self.offset == len(self._head):
            self._head += taken[: HEAD_BYTES - len(self._head)]
        self.offset += len(taken)
        self._tail = (self._tail + taken[-TAIL_BYTES:])[-TAIL_BYTES:]
        self.changed = True

    def _jump(self, offset: int) -> None:
        self.offset = offset
        self._head = self.read_at(min(HEAD_BYTES, offset), 0)
        self._tail = self.read_at(min(TAIL_BYTES, offset), offset - min(TAIL_BYTES, offset))
        self.changed = True

    def _gap(self, reason: str, *, lost_bytes: int | None, detail: str) -> Gap:
        return Gap(source=self.source, reason=reason, at_utc=self._clock.now(), lost_bytes=lost_bytes, detail=detail)

    def close(self) -> None:
        """Release the descriptor."""
        os.close(self._fd)
