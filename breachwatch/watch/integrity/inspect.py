"""Looking at one path: facts about it, never an exception for what an attacker put there."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Generator
from hashlib import sha256

from breachwatch.watch.integrity.entry import (
    OK,
    TOO_LARGE,
    UNREADABLE,
    UNSTABLE,
    Entry,
    Extra,
    pack_rest,
    pack_stat,
    smudged,
)
from breachwatch.watch.integrity.hashing import SHA256, Hashers

BUFFER_BYTES = 1 << 20
"""Larger reads only leave the processor's cache (measured: 1 MiB is the best of 64 KiB..8 MiB for SHA-256)."""

STEP_BYTES = 16 << 20
"""After so much of one file the caller gets a chance to do something else: about 10 ms of hashing."""

ATTEMPTS = 3
"""So often a file that changes while it is hashed is tried again before it counts as unstable."""

RACY_NS = 50_000_000
"""A file changed so shortly before it was read may change again within the same tick of an old kernel's clock."""

FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

FS_IOC_GETFLAGS = 0x80086601
"""Source: linux/fs.h, 64-bit; ioctl_iflags(2)."""

MEANINGFUL_FLAGS = 0x4091_00FF
"""secrm..noatime, dirsync, verity, nocow, casefold; not those the file system sets for itself (extents, index)."""

MAX_XATTR_BYTES = 64
"""Longer values are kept by their hash: an attacker may store 64 KiB in each of a thousand attributes."""

MAX_XATTRS = 64

Look = Generator[None, None, Entry | None]


def look(path: bytes, *, now_ns: int, limit_bytes: int, hashers: Hashers = SHA256) -> Look:
    """The entry of a path as it is now, None if there is nothing. Yields while it reads a large file.

    Times come from the same descriptor that was read, so the entry is of one file, never of two.
    """
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return Entry(bytes(48), pack_rest(UNREADABLE))
    mode = status.st_mode
    if stat.S_ISREG(mode):
        return (yield from _look_inside(path, status, now_ns, limit_bytes, hashers))
    if stat.S_ISDIR(mode):
        return _folder(path, status)
    target = b""
    if stat.S_ISLNK(mode):
        try:
            target = os.readlink(path)  # noqa: PTH115  # bytes: a path need not be UTF-8
        except OSError:
            return Entry(pack_stat(status), pack_rest(UNREADABLE))
    return Entry(pack_stat(status), pack_rest(OK, extra=Extra(xattrs=_xattrs(path), target=target)))


def _folder(path: bytes, status: os.stat_result) -> Entry:
    try:
        descriptor = os.open(path, FOLDER_FLAGS)
    except OSError:
        return smudged(Entry(pack_stat(status), pack_rest(UNREADABLE)))
    try:
        return folder_entry(descriptor)
    finally:
        os.close(descriptor)


def folder_entry(descriptor: int) -> Entry:
    """The entry of an open directory."""
    extra = Extra(flags=_inode_flags(descriptor), xattrs=_xattrs(descriptor))
    return Entry(pack_stat(os.fstat(descriptor)), pack_rest(OK, extra=extra))


def open_quietly(path: bytes | str, *, dir_fd: int | None = None) -> int:
    """Open for reading without following a link and, where allowed, without touching the access time."""
    try:
        return os.open(path, FLAGS | os.O_NOATIME, dir_fd=dir_fd)
    except PermissionError:
        return os.open(path, FLAGS, dir_fd=dir_fd)


def _look_inside(path: bytes, status: os.stat_result, now_ns: int, limit_bytes: int, hashers: Hashers) -> Look:
    entry: Entry | None = None
    for _ in range(ATTEMPTS):
        try:
            descriptor = open_quietly(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            swapped = error.errno in {errno.ELOOP, errno.ENXIO}
            return smudged(Entry(pack_stat(status), pack_rest(UNSTABLE if swapped else UNREADABLE)))
        try:
            entry = yield from read_open(descriptor, now_ns=now_ns, limit_bytes=limit_bytes, hashers=hashers)
        except OSError:
            return smudged(Entry(pack_stat(status), pack_rest(UNREADABLE)))
        finally:
            os.close(descriptor)
        if entry.state != UNSTABLE:
            return entry
    return entry


def read_open(
    descriptor: int, *, now_ns: int, limit_bytes: int, hashers: Hashers = SHA256
) -> Generator[None, None, Entry]:
    """The entry of an open file; UNSTABLE if it changed while it was read. Raises: OSError."""
    before = os.fstat(descriptor)
    meta = pack_stat(before)
    if not stat.S_ISREG(before.st_mode):
        return smudged(Entry(meta, pack_rest(UNSTABLE)))
    size = before.st_size
    if size > limit_bytes:
        return Entry(meta, pack_rest(TOO_LARGE, extra=_extra(descriptor)))
    if size < BUFFER_BYTES:
        content = os.read(descriptor, size + 1)
        digest, complete = _digest_at_once(content, hashers), len(content) == size
    else:
        digest, count = yield from _digest(descriptor, size, hashers)
        complete = count == size
    extra = _extra(descriptor)
    if not complete or pack_stat(os.fstat(descriptor)) != meta:
        return smudged(Entry(meta, pack_rest(UNSTABLE, extra=extra)))
    entry = Entry(meta, pack_rest(OK, digest, extra))
    return smudged(entry) if 0 <= now_ns - before.st_ctime_ns < RACY_NS else entry


def _digest_at_once(content: bytes, hashers: Hashers) -> bytes:
    if hashers is SHA256:
        return sha256(content).digest()
    found = b""
    for hasher in hashers:
        state = hasher()
        state.update(content)
        found += state.digest()
    return found


def _digest(descriptor: int, size: int, hashers: Hashers) -> Generator[None, None, tuple[bytes, int]]:
    """Hash up to `size` bytes and one more: a file that grows for ever ends all the same."""
    states, buffer = [hasher() for hasher in hashers], bytearray(BUFFER_BYTES)
    view, total, pause = memoryview(buffer), 0, STEP_BYTES
    while total <= size and (count := os.readv(descriptor, [buffer])):
        for state in states:
            state.update(view[:count])
        total += count
        if total >= pause:
            pause += STEP_BYTES
            yield
    return b"".join(state.digest() for state in states), total


def _extra(descriptor: int) -> Extra | None:
    flags, xattrs = _inode_flags(descriptor), _xattrs(descriptor)
    return Extra(flags=flags, xattrs=xattrs) if flags or xattrs else None


def _inode_flags(descriptor: int) -> int:
    try:
        answer = fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, bytes(8))
    except OSError:
        return 0  # tmpfs of old kernels, network file systems: no such attribute here
    return int.from_bytes(answer[:4], "little") & MEANINGFUL_FLAGS


def _xattrs(where: int | bytes) -> tuple[tuple[bytes, bytes], ...]:
    follow = isinstance(where, int)
    try:
        names = os.listxattr(where, follow_symlinks=follow)
    except OSError:
        return ()
    if not names:
        return ()
    found = []
    for name in sorted(names)[:MAX_XATTRS]:
        try:
            value = os.getxattr(where, name, follow_symlinks=follow)
        except OSError:
            value = b"?"
        found.append((os.fsencode(name), value if len(value) <= MAX_XATTR_BYTES else sha256(value).digest()))
    if len(names) > MAX_XATTRS:
        found.append((b"more", sha256("\0".join(sorted(names)).encode("utf-8", "surrogateescape")).digest()))
    return tuple(found)
