"""One path's record, packed: what a sweep compares as bytes, and what a reader sees when it differs."""

from __future__ import annotations

import os
import stat
import struct
from operator import attrgetter
from typing import NamedTuple

import msgspec

from breachwatch.model import FileRecord

META = struct.Struct("<IIIIQQqq")
"""mode, uid, gid, nlink, inode, size, mtime_ns, ctime_ns. No device: its number may change from boot to boot."""

STAT_FIELDS = attrgetter(
    "st_mode", "st_uid", "st_gid", "st_nlink", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns"
)  # fmt: skip

CTIME = struct.Struct("<q")
CTIME_AT = META.size - CTIME.size
NEVER = b"\0" * CTIME.size
"""A change time that no file has: the entry is looked at again in every sweep until its state is known for sure."""

INT64 = (-(1 << 63), (1 << 63) - 1)

DIGEST_BYTES = 32

OK, UNREADABLE, UNSTABLE, TOO_LARGE = range(4)
STATES = ("ok", "unreadable", "unstable", "too_large")

TIMES = frozenset({"mtime_ns", "ctime_ns"})
CONTENT = frozenset({"sha256", "size", "link_target", "type"})

_TYPES = {
    stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket", stat.S_IFBLK: "block", stat.S_IFCHR: "char",
}  # fmt: skip

XATTR_NAMES = {
    "security.capability": "capabilities",
    "security.selinux": "selinux",
    "system.posix_acl_access": "acl",
    "system.posix_acl_default": "acl",
}
"""Extended attributes that have a name of their own among operators; the others are `xattrs`."""


class Extra(msgspec.Struct, array_like=True, frozen=True):
    """Attributes that few files have."""

    flags: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    target: bytes = b""


class Entry(NamedTuple):
    """What is known of one path: `meta` from stat(2), `rest` from its content and attributes."""

    meta: bytes
    rest: bytes

    @property
    def mode(self) -> int:
        """Type and permissions as stat(2) gives them."""
        return int.from_bytes(self.meta[:4], "little")

    @property
    def is_directory(self) -> bool:
        """True for a directory itself, not for a link to one."""
        return stat.S_ISDIR(self.mode)

    @property
    def state(self) -> int:
        """OK, UNREADABLE, UNSTABLE or TOO_LARGE."""
        return self.rest[0]


_extra = msgspec.msgpack.Decoder(Extra)


def pack_stat(status: os.stat_result) -> bytes:
    """The metadata of one path. Times that 64 bits of nanoseconds do not hold (touch -d 2400) are cut to the range."""
    try:
        return META.pack(*STAT_FIELDS(status))
    except struct.error:
        *numbers, mtime, ctime = STAT_FIELDS(status)
        return META.pack(*numbers, *(min(max(time, INT64[0]), INT64[1]) for time in (mtime, ctime)))


def pack_rest(state: int, digest: bytes = b"", extra: Extra | None = None) -> bytes:
    """State, digests (none, or 32 bytes each) and what else there is."""
    tail = msgspec.msgpack.encode(extra) if extra is not None and extra != Extra() else b""
    return bytes((state, len(digest))) + digest + tail


def smudged(entry: Entry) -> Entry:
    """The same, to be looked at again by the next sweep. Source: git's racy-git rule."""
    return Entry(entry.meta[:CTIME_AT] + NEVER, entry.rest)


def is_smudged(entry: Entry) -> bool:
    """True if its change time is not to be trusted."""
    return entry.meta[CTIME_AT:] == NEVER


def digest_of(entry: Entry) -> bytes:
    """SHA-256 of the content; empty for what has none or was not read."""
    return digests_of(entry)[:DIGEST_BYTES]


def digests_of(entry: Entry) -> bytes:
    """SHA-256 and, where that is configured, BLAKE3 behind it."""
    return entry.rest[2 : 2 + entry.rest[1]]


def is_same_but_for_hash(known: Entry, now: Entry) -> bool:
    """True if all but the digests is the same."""
    return known.rest[0] == now.rest[0] and known.rest[2 + known.rest[1] :] == now.rest[2 + now.rest[1] :]


def extra_of(entry: Entry) -> Extra:
    """Flags, extended attributes, link target."""
    tail = entry.rest[2 + entry.rest[1] :]
    return _extra.decode(tail) if tail else Extra()


def record_of(path: bytes, entry: Entry) -> FileRecord:
    """The same for people and rules."""
    mode, uid, gid, nlink, inode, size, mtime_ns, ctime_ns = META.unpack(entry.meta)
    extra = extra_of(entry)
    kind = type_name(mode)
    return FileRecord(
        path=path, type=kind, mode=stat.S_IMODE(mode), uid=uid, gid=gid, nlink=nlink, device=0, inode=inode,
        size=size if kind == "file" else 0, mtime_ns=mtime_ns, ctime_ns=ctime_ns, sha256=digest_of(entry).hex(),
        link_target=extra.target, state=STATES[entry.state], flags=extra.flags,
        xattrs=tuple((name.decode("utf-8", "backslashreplace"), value.hex()) for name, value in extra.xattrs),
    )  # fmt: skip


def type_name(mode: int) -> str:
    """file, dir, symlink, fifo, socket, block or char."""
    return _TYPES.get(stat.S_IFMT(mode), "unknown")


def differences(before: Entry, after: Entry) -> tuple[str, ...]:
    """Names of the attributes that differ, in a fixed order. A folder's times, size and links follow its entries."""
    if before == after:
        return ()
    old, new = META.unpack(before.meta), META.unpack(after.meta)
    found = ["type"] if stat.S_IFMT(old[0]) != stat.S_IFMT(new[0]) else []
    if stat.S_IMODE(old[0]) != stat.S_IMODE(new[0]):
        found.append("mode")
    names = ("uid", "gid", "nlink", "inode", "size", "mtime_ns", "ctime_ns")
    skipped = {"nlink", "size", *TIMES} if before.is_directory and after.is_directory else set()
    if is_smudged(before):
        skipped.add("ctime_ns")
    found += [
        name for name, was, now in zip(names, old[1:], new[1:], strict=True) if was != now and name not in skipped
    ]
    return (*found, *_content_differences(before, after))


def _content_differences(before: Entry, after: Entry) -> list[str]:
    if before.rest == after.rest:
        return []
    found = ["sha256"] if digest_of(before) != digest_of(after) and after.state == OK else []
    if before.state != after.state:
        found.append("state")
    old, new = extra_of(before), extra_of(after)
    if old.target != new.target:
        found.append("link_target")
    if old.flags != new.flags:
        found.append("flags")
    if old.xattrs != new.xattrs:
        odd = {name for name, _ in set(old.xattrs) ^ set(new.xattrs)}
        found += sorted({XATTR_NAMES.get(name.decode("utf-8", "replace"), "xattrs") for name in odd})
    return found


def record_differences(before: FileRecord, after: FileRecord) -> tuple[str, ...]:
    """As `differences`, of records: what the operator accepted is kept as such."""
    skipped = {"nlink", "size", *TIMES} if before.type == after.type == "dir" else set()
    found = [
        name
        for name in ("type", "mode", "uid", "gid", "nlink", "inode", "size", "mtime_ns", "ctime_ns", "sha256", "state",
                     "link_target", "flags")
        if getattr(before, name) != getattr(after, name) and name not in skipped
    ]  # fmt: skip
    if not before.ctime_ns and "ctime_ns" in found:
        found.remove("ctime_ns")
    odd = {name for name, _ in set(before.xattrs) ^ set(after.xattrs)}
    return (*found, *sorted({XATTR_NAMES.get(name, "xattrs") for name in odd}))


def action_of(
    before: Entry | FileRecord | None, after: Entry | FileRecord | None, changed: tuple[str, ...]
) -> str | None:
    """created, deleted, replaced, modified, attributes; None when nothing that matters differs."""
    if before is None:
        return "created"
    if after is None:
        return "deleted"
    if not set(changed) - {"state"}:
        return None
    if "type" in changed or "inode" in changed:
        return "replaced"
    # Content that is never the same for long enough to be hashed
    is_written = after.state in {UNSTABLE, STATES[UNSTABLE]} and "mtime_ns" in changed
    return "modified" if is_written or CONTENT & set(changed) else "attributes"
