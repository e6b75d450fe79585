"""Files, archives and standard input read once from beginning to end, for `scan` and for rotated logs."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, cast

from breachwatch.errors import WatchError
from breachwatch.model import Checkpoint, Gap
from breachwatch.ports import Clock
from breachwatch.watch.birth import born_ns
from breachwatch.watch.fingerprint import HEAD_BYTES, TAIL_BYTES, head_hash
from breachwatch.watch.framing import Framing
from breachwatch.watch.lines import Cutter, Piece, chunk_size
from breachwatch.watch.seal import StreamLook
from breachwatch.watch.source import display

PACKED_SUFFIXES = (".gz", ".xz", ".zst", ".bz2")
"""What logrotate's `compresscmd` makes in practice."""

MAGIC = {b"\x1f\x8b": "gzip", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2"}
MAGIC_BYTES = 6

XZ_MEMORY = 128 << 20
"""An .xz header may ask for gigabytes of dictionary; `xz -9` needs 65 MB."""

ZSTD_WINDOW = 128 << 20
"""The same for .zst; `zstd -19` needs 8 MB, `--long` 128 MB."""

PORTION_BYTES = 1_000_000
"""Read at a time: what is done once for each block hardly counts then, and it still fits the processor's cache."""

LINE_END_BYTES = 4_096
"""Where the end of a line is looked for before a plain file is read."""


def packing_of(head: bytes) -> str | None:
    """How a file that begins like this is compressed; None if it is not."""
    return next((name for magic, name in MAGIC.items() if head.startswith(magic)), None)


def unpacked(file: BinaryIO) -> BinaryIO:
    """The content of an open file that may be compressed. Several members or frames in a row are one content."""
    packing = packing_of(file.read(MAGIC_BYTES))
    file.seek(0)
    match packing:
        case "gzip":
            return cast("BinaryIO", gzip.GzipFile(fileobj=file))
        case "bzip2":
            return cast("BinaryIO", bz2.BZ2File(file))
        case "xz":
            return cast("BinaryIO", _Xz(file))
        case "zstd":
            import zstandard

            reader = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW)
            return cast("BinaryIO", reader.stream_reader(file, read_across_frames=True, closefd=False))
    return cast("BinaryIO", _Plain(file)) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else file


class _Plain:
    """A file that is read up to a line feed wherever there is one: what was read needs no copy to be whole lines."""

    def __init__(self, file: BinaryIO) -> None:
        self._descriptor = file.fileno()
        self._at = 0

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; b"" at the end. Raises: OSError."""
        try:
            end = os.pread(self._descriptor, LINE_END_BYTES, max(self._at, self._at + size - LINE_END_BYTES))
        except OSError:  # what stands before a bad block is read all the same
            end = b""
        whole = end.rfind(b"\n") + 1
        if whole and len(end) == LINE_END_BYTES < size:
            size -= LINE_END_BYTES - whole
        data = os.pread(self._descriptor, size, self._at)
        self._at += len(data)
        return data


class _Xz:
    """An .xz stream with bounded memory: LZMAFile knows no limit."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = lzma.LZMADecompressor(memlimit=XZ_MEMORY)
        self._rest = b""

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; b"" at the end. Raises: EOFError, lzma.LZMAError."""
        while True:
            if self._decoder.eof:
                left = (self._decoder.unused_data + self._file.read(1 << 16)).lstrip(b"\0")
                if not left:
                    return b""
                self._decoder, self._rest = lzma.LZMADecompressor(memlimit=XZ_MEMORY), left
            if self._decoder.needs_input and not self._rest:
                self._rest = self._file.read(1 << 16)
                if not self._rest:
                    raise EOFError("compressed file ended before the end-of-stream marker was reached")
            packed, self._rest = self._rest, b""
            if data := self._decoder.decompress(packed, size):
                return data


def _damage() -> tuple[type[Exception], ...]:
    """What a damaged archive raises. `zstandard` is loaded only where a .zst is read."""
    import sys

    errors: tuple[type[Exception], ...] = (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError, OSError)
    if (zstandard := sys.modules.get("zstandard")) is not None:
        errors += (zstandard.ZstdError,)
    return errors


class PackedTail:
    """One finished life of a log in a compressed file (or any stream), read in portions from a checkpoint on."""

    def __init__(
        self,
        stream: BinaryIO,
        known: Checkpoint,
        *,
        clock: Clock,
        max_line_bytes: int,
        framing: Framing,
        file: BinaryIO | None = None,
    ) -> None:
        self.done = False
        self.changed = True
        self.source = self.name = known.source
        self.identity = (known.device, known.inode)
        self.born_ns = 0 if file is None else born_ns(file.fileno())
        self._file = file
        self._stream = stream
        self._known = known
        self._again = StreamLook(known.seals) if known.seals else None
        self._clock = clock
        self._at = 0
        self._head = b""
        self._before = b""
        self._rest = b""
        self._least = chunk_size(max_line_bytes)
        self._cutter = Cutter(
            known.source, clock=clock, max_line_bytes=max_line_bytes, framing=framing, offset=known.offset,
            generation=known.generation,
        )  # fmt: skip

    def pieces(self, budget_bytes: int) -> Iterator[Piece]:
        """The next pieces, for about so many bytes; `done` after the last. Damage becomes a Gap."""
        left = budget_bytes
        while left > 0 and not self.done:
            wanted = max(self._least, min(PORTION_BYTES, left))
            if self._at < self._known.offset:
                wanted = min(wanted, self._known.offset - self._at)
            try:
                chunk = self._stream.read(wanted)
            except _damage() as error:
                yield from self._finish()
                why = f"the archive is damaged after byte {self._cutter.offset}: {str(error)[:200]}"
                yield self._gap("unreadable", why)
                return
            left -= len(chunk)
            if not chunk:
                yield from self._finish()
            elif self._at < self._known.offset:
                yield from self._skip(chunk)
            else:
                yield from self._take(chunk)

    def has_lines(self) -> bool:
        """True until it was read to its end."""
        return not self.done

    def _skip(self, chunk: bytes) -> Iterator[Piece]:
        if self._at == 0:
            self._head = chunk[:HEAD_BYTES]
            self._cutter.sniff(chunk[:4])
        self._at += len(chunk)
        self._before = (self._before + chunk[-TAIL_BYTES:])[-TAIL_BYTES:]
        if self._again is not None:
            self._again.feed(chunk)
        if self._at == self._known.offset and (self._differs() or not self._before.endswith(self._known.tail)):
            yield self._gap("rewritten", f"the archive is not what was read before byte {self._known.offset}")

    def _differs(self) -> bool:
        """True if what was unpacked so far is not what was read once: as far as whole blocks of it were sealed."""
        if self._again is None:
            return False
        self._again.finish()
        return bool(self._again.changed)

    def _ends_early(self) -> Gap:
        """Whoever compresses a log that is still written to makes an archive without its end; so does an intruder.

        The one is told from the other by what cannot be forged without a clock: the archive was begun before the last
        line was written, and what is in it is what was read.
        """
        why = f"the archive ends after {self._at} of the {self._known.offset} bytes that were read before"
        if 0 < self.born_ns <= self._known.changed_ns and not self._differs():
            return self._gap("archive_short", f"{why}; the log was still written to while it was compressed")
        return self._gap("rewritten", why)

    def _take(self, chunk: bytes) -> Iterator[Piece]:
        if self._at == 0:
            self._head = chunk[:HEAD_BYTES]
        self._at += len(chunk)
        data = self._rest + chunk
        pieces, used = self._cutter.cut(data)
        self.changed = True
        self._before = (self._before + data[max(0, used - TAIL_BYTES) : used])[-TAIL_BYTES:]
        self._rest = data[used:]
        yield from pieces

    def _finish(self) -> Iterator[Piece]:
        self.done = True
        if self._at < self._known.offset:
            yield self._ends_early()
        if self._rest:
            pieces, used = self._cutter.cut(self._rest, flush=True)
            self._rest = self._rest[used:]
            yield from pieces
        yield from self._cutter.last_words(self._rest, len(self._rest))
        self._rest = b""

    def checkpoint(self) -> Checkpoint:
        """How far lines were taken; the file's identity stays the one it was found by."""
        if self._at <= self._known.offset:
            return self._known
        head = self._head[: min(HEAD_BYTES, self._cutter.safe)]
        return replace(
            self._known,
            offset=self._cutter.safe,
            generation=self._cutter.generation,
            head_hash=head_hash(head),
            head_len=len(head),
            tail=self._before if self._cutter.safe == self._cutter.offset else b"",
        )

    def _gap(self, reason: str, detail: str) -> Gap:
        return Gap(source=self._known.source, reason=reason, at_utc=self._clock.now(), detail=detail)

    def close(self) -> None:
        """Release the file it opened."""
        if self._file is not None:
            self._file.close()


def packed_head(path: Path, length: int) -> bytes | None:
    """The first bytes of a compressed file's content, fewer if it is shorter; None if it is none, or damaged there."""
    try:
        with path.open("rb") as file:
            return head_of(file, length)
    except OSError:
        return None


def head_of(file: BinaryIO, length: int) -> bytes | None:
    """The same of an open file, which is then at its beginning again."""
    try:
        file.seek(0)
        if packing_of(file.read(MAGIC_BYTES)) is None:
            return None
        file.seek(0)
        stream, head = unpacked(file), b""
        while len(head) < length and (more := stream.read(length - len(head))):
            head += more
    except OSError:
        return None
    except _damage():
        return None
    else:
        file.seek(0)
        return head


def read_pieces(
    item: Path | BinaryIO, *, max_line_bytes: int, clock: Clock, framing: Framing | None = None
) -> Iterator[Piece]:
    """All of a file (plain or compressed) or stream; the last line counts without a line end too.

    Offsets count in the unpacked content. A damaged archive gives what was readable, then a Gap.

    Raises: WatchError when the file cannot be opened.
    """
    how = framing or Framing()
    if not isinstance(item, Path):
        known = Checkpoint(source="stdin")
        yield from _whole(PackedTail(item, known, clock=clock, max_line_bytes=max_line_bytes, framing=how))
        return
    source = display(str(item))
    try:
        with item.open("rb") as file:
            known = Checkpoint(source=source)
            yield from _whole(
                PackedTail(unpacked(file), known, clock=clock, max_line_bytes=max_line_bytes, framing=how)
            )
    except OSError as error:
        raise WatchError(f"cannot be read: {error.strerror or error}", source=source) from error


def _whole(tail: PackedTail) -> Iterator[Piece]:
    while not tail.done:
        yield from tail.pieces(1 << 24)
