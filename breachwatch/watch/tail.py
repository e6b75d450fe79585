"""Turning the growth of one file into lines: nothing lost, bounded memory, whatever is in it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from breachwatch.model import Checkpoint, Gap
from breachwatch.ports import Clock
from breachwatch.watch.birth import born_ns
from breachwatch.watch.fingerprint import (
    GENERATION_BYTES,
    HEAD_BYTES,
    TAIL_BYTES,
    generation_of,
    head_hash,
    is_same_content,
)
from breachwatch.watch.framing import RECORD_QUIET_S, Framing
from breachwatch.watch.lines import NUL_RUN, Cutter, Piece, chunk_size
from breachwatch.watch.review import Review
from breachwatch.watch.seal import Changed

_NULS = b"\0" * NUL_RUN

SEARCH_BYTES = 1 << 20
"""Searched at a time, backwards, for the place where a rewritten file goes on."""


PARTS_NAMED = 8
"""So many changed parts of a file are named in one gap."""


class FileTail:
    """One life of one open file. The caller owns the schedule and stores `checkpoint()` with what it took."""

    def __init__(self, descriptor: int, source: str, *, clock: Clock, max_line_bytes: int, framing: Framing) -> None:
        status = os.fstat(descriptor)
        self.source = source
        self.device, self.inode = status.st_dev, status.st_ino
        self.offset = 0
        self.changed = True
        self.born_ns = born_ns(descriptor)
        self.changed_ns = status.st_mtime_ns
        """The file's last change when it was last looked at."""
        self.name = source
        """The path it was opened by."""
        self.rotated_at = 0.0
        """Monotonic seconds of when the file lost its name; meaningless while it is the current one."""
        self.was_missed = False
        """Somebody looked whether it vanished."""
        self.is_behind = False
        """The last `pieces` ended with its budget and not with the file."""
        self.quiet_since = clock.monotonic()
        """Monotonic seconds since when it has not grown."""
        self._fd = descriptor
        self._clock = clock
        self._max = max_line_bytes
        self._chunk = chunk_size(max_line_bytes)
        self._framing = framing
        self._head = b""
        self._tail = b""
        self._seen_size = -1
        self.review = Review(self.read_at)
        self._cutter = self._new_cutter()

    def _new_cutter(self, offset: int = 0, generation: str = "") -> Cutter:
        cutter = Cutter(
            self.source, clock=self._clock, max_line_bytes=self._max, framing=self._framing, offset=offset,
            generation=generation,
        )  # fmt: skip
        if offset:
            cutter.sniff(self.read_at(4, 0))
        return cutter

    # -- what the file is -----------------------------------------------------------------------------------------

    def read_at(self, length: int, offset: int) -> bytes:
        """Bytes of the file, fewer at its end."""
        return os.pread(self._fd, length, max(0, offset))

    def size(self) -> int:
        """Present size in bytes."""
        return os.fstat(self._fd).st_size

    def links(self) -> int:
        """Names the file has left; 0 when it was deleted."""
        return os.fstat(self._fd).st_nlink

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode."""
        return self.device, self.inode

    @property
    def head(self) -> bytes:
        """The first bytes that were read, at most HEAD_BYTES."""
        return self._head

    def resume(self, known: Checkpoint) -> bool:
        """Continue where a checkpoint ended, if this still is that file; False (and offset 0) if not."""
        if self.size() < known.offset or not is_same_content(self.read_at, known):
            return False
        self.offset, self._tail = known.offset, known.tail
        self._head = self.read_at(known.head_len, 0)
        self._cutter = self._new_cutter(known.offset, known.generation)
        self.review.forget(known.offset)
        if known.seals:
            self.review.restore(known.seals)
        self.changed = False
        return True

    def checkpoint(self) -> Checkpoint:
        """How far lines were taken, and how to recognise the file."""
        return Checkpoint(
            source=self.source,
            device=self.device,
            inode=self.inode,
            offset=self.offset,
            generation=self._cutter.generation,
            head_hash=head_hash(self._head),
            head_len=len(self._head),
            tail=self._tail,
            born_ns=self.born_ns,
            changed_ns=self.changed_ns,
            seals=self.review.stored(self.offset),
        )

    def learn_head(self) -> None:
        """Let the fingerprint grow with the file, read or not: a life that was only opened is recognised too."""
        if len(self._head) < HEAD_BYTES and (head := self.read_at(HEAD_BYTES, 0)).startswith(self._head):
            self._head = head

    def begins(self, known: Checkpoint) -> bool:
        """True if the first bytes are those of the checkpoint's file: a copy of it, not a new life."""
        head = self.read_at(known.head_len, 0)
        return 0 < known.head_len == len(head) and head_hash(head) == known.head_hash

    def realign(self, known: Checkpoint) -> bool:
        """Find the last bytes that were read in a changed copy, and go on behind them; False if they are not there."""
        if len(known.tail) < TAIL_BYTES or not self.begins(known):
            return False
        end = self.size()
        while end > 0:
            begin = max(0, end - SEARCH_BYTES)
            found = self.read_at(end - begin, begin).rfind(known.tail)
            if found >= 0:
                self.move_to(begin + found + len(known.tail), generation=known.generation)
                return True
            end = 0 if begin == 0 else begin + len(known.tail) - 1
        return False

    # -- reading --------------------------------------------------------------------------------------------------

    def has_more(self) -> bool:
        """True if there are bytes that were not looked at yet."""
        return self.size() != self._cutter.offset

    @property
    def was_empty(self) -> bool:
        """True if the last check found nothing in it."""
        return self._seen_size == 0

    def has_news(self) -> bool:
        """True if it grew, shrank, or was written to."""
        status = os.fstat(self._fd)
        return status.st_size != self._cutter.offset or not self.review.is_seen(status)

    def look_again(self, budget_bytes: int) -> tuple[list[Gap], int]:
        """Read again some of what was read: (what was rewritten, bytes that were looked at)."""
        changed, used = self.review.step(budget_bytes, int(self._clock.now().timestamp() * 1e9))
        gaps = [self._rewritten(changed)] if changed else []
        self.changed = self.changed or bool(gaps)
        return gaps, used

    def _rewritten(self, changed: Sequence[Changed]) -> Gap:
        parts = ", ".join(f"{part.begin} to {part.end}" for part in changed[:PARTS_NAMED])
        more = f" and {len(changed) - PARTS_NAMED} more parts" if len(changed) > PARTS_NAMED else ""
        return self._gap("rewritten", f"bytes {parts}{more}, which were read before, have changed")

    def check(self) -> Gap | None:
        """Say if the file was cut or rewritten under us; the tail then starts over. Source: ATT&CK T1070.002."""
        status = os.fstat(self._fd)
        self.review.notice(status)
        self.learn_head()
        if status.st_size != self._seen_size:
            self._seen_size = status.st_size
            self.quiet_since = self._clock.monotonic()
        if status.st_size < self._cutter.offset:
            return self._gap("truncated", f"{self._cutter.offset} bytes read before, {status.st_size} now")
        if not is_same_content(self.read_at, self.checkpoint()):
            return self._gap("rewritten", f"what was read before byte {self.offset} has changed")
        self.changed_ns = status.st_mtime_ns  # of the same life: a copy of it was made no earlier
        return None

    def start_over(self) -> None:
        """A new life begins at byte 0."""
        self.offset, self._head, self._tail = 0, b"", b""
        self.review.forget(0)
        self._cutter = self._new_cutter()
        self.changed = True

    def skip_to_end(self) -> None:
        """Take the whole lines that are there as read."""
        size = self.size()
        back = self.read_at(self._max, size - min(size, self._max))
        self.move_to(size - (len(back) - back.rfind(b"\n") - 1))

    def pieces(self, budget_bytes: int) -> Iterator[Piece]:
        """What was appended, about `budget_bytes` of it. An unfinished last line or record stays in the file.

        Every read takes the bytes before it along: a file that is cut and grows again between check and read is not
        mistaken for the one that was checked.
        """
        left = budget_bytes
        self.is_behind = False
        is_quiet = self._clock.monotonic() - self.quiet_since >= RECORD_QUIET_S
        while left > 0:
            begin = self._cutter.offset
            before = self._tail if begin == self.offset else b""
            window = self.read_at(self._chunk + len(before), begin - len(before))
            chunk = window[len(before) :]
            if not chunk or not window.startswith(before):
                return
            if chunk.startswith(_NULS) and (gap := self._skip_hole(len(chunk), begin)) is not None:
                yield gap
                continue
            is_end = len(chunk) < self._chunk
            pieces, used = self._cutter.cut(chunk, flush=is_quiet and is_end)
            if used == 0:
                return
            left -= used
            self._took(chunk, begin)
            yield from pieces
            if is_end:
                return
        self.is_behind = True

    def _took(self, chunk: bytes, begin: int) -> None:
        """Remember how to recognise the place that was reached."""
        safe = self._cutter.safe
        if safe == self.offset:
            return
        end = safe - begin
        self._seal(chunk[:end], begin)
        if end >= TAIL_BYTES:
            self._tail = chunk[end - TAIL_BYTES : end]
        else:
            self._tail = self.read_at(min(TAIL_BYTES, safe), safe - min(TAIL_BYTES, safe))
        self.offset = safe
        self.changed = True

    def _seal(self, data: bytes, begin: int) -> None:
        """Remember what was read; of a line longer than the limit only its end is at hand."""
        seals = self.review.seals
        while (missing := begin - seals.end) > 0:
            again = self.read_at(min(missing, self._chunk), seals.end)
            if not again:
                self.review.forget(begin)
                break
            seals.feed(again)
        self.review.seals.feed(memoryview(data)[max(0, -missing) :])

    def _skip_hole(self, known: int, begin: int) -> Gap | None:
        """Jump over a hole that the file system knows of, however large; None where it knows none."""
        try:
            data = os.lseek(self._fd, begin, os.SEEK_DATA)
        except OSError:
            data = self.size()
        if data < begin + known:
            return None
        self.move_to(data)
        return self._gap("nul_run", f"a hole at byte {begin} skipped", lost_bytes=data - begin)

    def is_unfinished(self) -> bool:
        """True if bytes are left that are no whole line."""
        return self.size() != self.offset

    def last_words(self) -> list[Piece]:
        """The unfinished last line or record of a file that nobody writes to any more."""
        begin, end = self._cutter.offset, self.size()
        said: list[Piece] = []
        if begin < end:
            pieces, used = self._cutter.cut(self.read_at(self._chunk, begin), flush=True)
            said += pieces
            begin += used
        rest = self.read_at(self._max, begin) if begin < end else b""
        said += self._cutter.last_words(rest, max(0, end - begin))
        self._seal(b"", max(begin, end))
        self.move_to(max(begin, end), generation=self._cutter.generation)
        return said

    def has_lines(self) -> bool:
        """True if a whole line is waiting."""
        return self.has_more() and b"\n" in self.read_at(self._chunk, self._cutter.offset)

    def move_to(self, offset: int, generation: str = "") -> None:
        """Take everything before this byte as read."""
        if offset and not (generation or self._cutter.generation):
            generation = generation_of(self.read_at(GENERATION_BYTES, 0).partition(b"\n")[0])
        self.offset = offset
        if self.review.seals.end != offset:
            self.review.forget(offset)
        self._cutter = self._new_cutter(offset, generation or self._cutter.generation)
        self._head = self.read_at(HEAD_BYTES, 0)
        self._tail = self.read_at(min(TAIL_BYTES, offset), offset - min(TAIL_BYTES, offset))
        self.changed = True

    def _gap(self, reason: str, detail: str, *, lost_bytes: int | None = None) -> Gap:
        return Gap(source=self.source, reason=reason, at_utc=self._clock.now(), lost_bytes=lost_bytes, detail=detail)

    def close(self) -> None:
        """Release the descriptor."""
        os.close(self._fd)


def is_other_file(tail: FileTail, known: Checkpoint) -> bool:
    """True if the checkpoint's inode number was given to a new file since."""
    return bool(known.born_ns and tail.born_ns) and known.born_ns != tail.born_ns
