"""Looking at one path, and walking trees: facts about files, never an exception for what an attacker put there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import fields, replace
from fnmatch import fnmatchcase
from hashlib import sha256

from breachwatch.model import FileRecord

BUFFER_BYTES = 1 << 20
ATTEMPTS = 3
"""So often a file that changes while it is hashed is tried again before it counts as unstable."""

MAX_DEPTH = 512
"""Deeper folders are reported, not entered: a chain of folders must not exhaust the agent."""

READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY

IDENTITY = ("type", "mode", "uid", "gid", "nlink", "inode", "size", "mtime_ns", "ctime_ns", "sha256", "link_target")
"""Attributes that a change is told by; `device` numbers may differ from boot to boot."""

_TYPES = (
    (stat.S_ISREG, "file"), (stat.S_ISDIR, "dir"), (stat.S_ISLNK, "symlink"), (stat.S_ISFIFO, "fifo"),
    (stat.S_ISSOCK, "socket"), (stat.S_ISBLK, "block"), (stat.S_ISCHR, "char"),
)  # fmt: skip


def type_of(mode: int) -> str:
    """file, dir, symlink, fifo, socket, block or char."""
    return next((name for test, name in _TYPES if test(mode)), "unknown")


def look(path: bytes, *, known: FileRecord | None = None) -> FileRecord | None:
    """The record of a path now, None if there is nothing. Content is hashed unless all metadata is as known."""
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return None if known is None else replace(known, state="unreadable")
    record = _record(path, status)
    if known is not None and known.state == "ok" and same_metadata(record, known):
        return replace(record, sha256=known.sha256, link_target=known.link_target)
    if record.type == "symlink":
        return _with_target(record)
    return _hashed(record) if record.type == "file" else record


def _record(path: bytes, status: os.stat_result) -> FileRecord:
    return FileRecord(
        path=path,
        type=type_of(status.st_mode),
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        nlink=status.st_nlink,
        device=status.st_dev,
        inode=status.st_ino,
        size=status.st_size if stat.S_ISREG(status.st_mode) else 0,
        mtime_ns=status.st_mtime_ns if not stat.S_ISDIR(status.st_mode) else 0,
        ctime_ns=status.st_ctime_ns if not stat.S_ISDIR(status.st_mode) else 0,
    )


def same_metadata(left: FileRecord, right: FileRecord) -> bool:
    """True if nothing that stat(2) tells differs (a folder's times and links change with its entries)."""
    names = ("type", "mode", "uid", "gid", "inode", "size", "mtime_ns", "ctime_ns")
    return all(getattr(left, name) == getattr(right, name) for name in names) and (
        left.type == "dir" or left.nlink == right.nlink
    )


def _with_target(record: FileRecord) -> FileRecord:
    try:
        return replace(record, link_target=os.readlink(record.path))  # noqa: PTH115  # bytes: a path need not be UTF-8
    except OSError:
        return replace(record, state="unreadable")


def _hashed(record: FileRecord) -> FileRecord:
    """Hash the file that was looked at, not one that took its name meanwhile."""
    for _ in range(ATTEMPTS):
        try:
            descriptor = os.open(record.path, READ_FLAGS)
        except OSError:
            return replace(record, state="unreadable")
        try:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                return replace(record, state="unstable")
            digest = _digest(descriptor)
            after = os.fstat(descriptor)
        except OSError:
            return replace(record, state="unreadable")
        finally:
            os.close(descriptor)
        record = _record(record.path, after)
        if _unchanged(before, after):
            return replace(record, sha256=digest)
    return replace(record, state="unstable")


def _unchanged(before: os.stat_result, after: os.stat_result) -> bool:
    names = ("st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")
    return all(getattr(before, name) == getattr(after, name) for name in names)


def _digest(descriptor: int) -> str:
    state = sha256()
    buffer = bytearray(BUFFER_BYTES)
    view = memoryview(buffer)
    while count := os.readv(descriptor, [buffer]):
        state.update(view[:count])
    return state.hexdigest()


def differences(before: FileRecord, after: FileRecord) -> tuple[str, ...]:
    """Names of the attributes that differ."""
    skipped = {"nlink", "mtime_ns", "ctime_ns", "size"} if before.type == after.type == "dir" else set()
    known = {field.name for field in fields(FileRecord)}
    return tuple(
        name
        for name in IDENTITY
        if name in known and name not in skipped and getattr(before, name) != getattr(after, name)
    )


def walk(root: bytes, exclude: tuple[str, ...]) -> Iterator[bytes]:
    """`root` and everything below it on the same file system, parents before children; symlinks are not followed."""
    try:
        device = os.lstat(root).st_dev
    except OSError:
        return
    pending = [(root, 0)]
    while pending:
        path, depth = pending.pop()
        if is_excluded(path, exclude):
            continue
        yield path
        if depth < MAX_DEPTH:
            pending.extend((child, depth + 1) for child in _children(path, device))


def _children(path: bytes, device: int) -> list[bytes]:
    try:
        with os.scandir(path) as entries:
            return sorted((entry.path for entry in entries if _is_here(entry, device)), reverse=True)
    except (NotADirectoryError, OSError):
        return []


def _is_here(entry: os.DirEntry[bytes], device: int) -> bool:
    try:
        return not entry.is_dir(follow_symlinks=False) or entry.stat(follow_symlinks=False).st_dev == device
    except OSError:
        return True


def is_excluded(path: bytes, exclude: tuple[str, ...]) -> bool:
    """True if a pattern of the operator covers the path or a folder above it."""
    text = os.fsdecode(path)
    return any(fnmatchcase(text, pattern) or text.startswith(pattern.rstrip("/") + "/") for pattern in exclude)
