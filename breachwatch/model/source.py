"""What watchers see: raw lines, file changes, and gaps where something could not be seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

import msgspec


class RawLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a source, without its line end, never decoded.

    `offset` is the byte offset of its first byte in the (unpacked) file of this `generation`; for the journal the
    ordinal is meaningless (0) and `cursor` identifies the record.
    """

    source: str
    """Path of the file, `journal`, or `syslog+udp://...` for a listener."""
    data: bytes
    offset: int = 0
    generation: str = ""
    """Content-derived name of the file's present life (hex); the same bytes in a rotated copy have the same one."""
    length_bytes: int = 0
    """Full length of the line in the source, line end not counted; more than `len(data)` if the line was cut."""
    is_partial: bool = False
    """The line never got its line end (end of a rotated file)."""
    cursor: str = ""
    peer: str = ""
    """`address:port` of who sent it, for lines from the network; `offset` then only counts."""


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """Consecutive whole lines as they lie in the (unpacked) file: what a prefilter scans at once.

    A source gives ordinary lines as blocks and whatever needs a word of its own (cut, partial, undecodable) as RawLine.
    `block.lines()` are exactly the lines that the source would have given one by one.
    """

    source: str
    data: bytes
    """Ends with a line feed."""
    offset: int = 0
    """Byte offset of `data[0]` in the file of this generation."""
    generation: str = ""

    def after(self, start: int) -> Block:
        """The block without its first `start` bytes, which are whole lines."""
        return Block(source=self.source, data=self.data[start:], offset=self.offset + start, generation=self.generation)

    def lines(self) -> Iterator[RawLine]:
        """The lines, in order, each without its line end (LF or CR LF)."""
        start, data = 0, self.data
        while (end := data.find(b"\n", start)) >= 0:
            line = data[start:end]
            yield RawLine(
                source=self.source,
                data=line.removesuffix(b"\r"),
                offset=self.offset + start,
                generation=self.generation,
                length_bytes=len(line),
            )
            start = end + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Something was, or may have been, missed: never silent, always a record."""

    source: str
    reason: str
    """One of a closed set, snake_case: truncated, rewritten, vanished, unreadable, line_cut, nul_run, overflow, ..."""
    at_utc: datetime
    lost_bytes: int | None = None
    detail: str = ""
    about: str = ""
    """Names the one thing that this is about: the same reason for it is one record, however often it is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """How far a source was read, and how to recognise it again."""

    source: str
    device: int = 0
    inode: int = 0
    offset: int = 0
    generation: str = ""
    head_hash: str = ""
    head_len: int = 0
    tail: bytes = b""
    """Up to 64 bytes right before `offset`."""
    cursor: str = ""
    born_ns: int = 0
    """The file's birth, where the file system tells: inode numbers are used again."""
    changed_ns: int = 0
    """The file's last change when it was last looked at."""
    seals: bytes = b""
    """Hashes of what was read: a later change of it shows."""
    rotated: bool = False
    """It had lost its name and was read to its end: if it is gone, rotation deleted it."""
    newest_ns: int = 0
    """The newest change of all lives of this log that were read to their end."""
    finished: tuple[tuple[str, int, int], ...] = ()
    """(head hash, head length, size) of lives that were read to their end: their copies are nothing new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """What is known of one path: the baseline row of file integrity."""

    path: bytes
    type: str
    """file, dir, symlink, fifo, socket, block, char."""
    mode: int
    uid: int
    gid: int
    nlink: int
    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    sha256: str = ""
    link_target: bytes = b""
    state: str = "ok"
    """ok, unreadable, unstable (changed while it was hashed), too_large (content not read)."""
    flags: int = 0
    """Inode flags (chattr), those that mean something: immutable, append-only, ..."""
    xattrs: tuple[tuple[str, str], ...] = ()
    """Extended attributes: name and value (hex; long ones by their SHA-256). ACL, capabilities and label are here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """Who touched a file, where the kernel tells (fanotify). Of a process that has ended only the number is known."""

    pid: int
    executable: str = ""
    user: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """The difference between the baseline and what is there now."""

    path: bytes
    action: str
    """created, modified, deleted, attributes, replaced."""
    before: FileRecord | None
    after: FileRecord | None
    changed: tuple[str, ...] = field(default=())
    """Names of the attributes that differ."""
    severity: str = "medium"
    tags: tuple[str, ...] = field(default=())
    """ATT&CK techniques of the critical path that was touched."""
    explained_by: str = ""
    """The package whose installed content this is; empty: nobody vouches for it."""
    probably_by: str = ""
    """The package whose script ran at that moment and makes such a file; it explains nothing."""
    diff: str = ""
    """Lines that differ, secrets masked, for the small text files that are configured for it."""
    writer: Writer | None = None
    channel: str = ""
    """What found it: event (a kernel hint), sweep (metadata), content (the rolling re-hash)."""
    seen_at: datetime
