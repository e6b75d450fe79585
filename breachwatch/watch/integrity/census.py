"""Setuid and setgid files wherever they are: one row of the baseline, counted anew every hour.

A file system mounted nosuid, and those of the kernel itself, cannot hold one that does anything.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator

from breachwatch.watch.integrity.entry import Entry
from breachwatch.watch.integrity.inspect import look
from breachwatch.watch.integrity.judge import Judge, Steps
from breachwatch.watch.integrity.tree import is_below

ROW = b"setuid:"
"""Where the baseline keeps them: no path begins so."""

LOCAL = frozenset(
    {"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "overlay", "reiserfs", "tmpfs", "xfs", "zfs"}
)
"""File systems that are walked; a network's is walked where it lies."""

SETUID = stat.S_ISUID | stat.S_ISGID

MAX_FILES = 20_000
"""More setuid files than this are not kept one by one."""


def walk(starts: list[bytes], mounts: frozenset[bytes], skip: Callable[[bytes], bool]) -> Iterator[bytes | None]:
    """Setuid files below some mount points, each file system to its edge; None after every folder."""
    pending = list(starts)
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if entry.path not in mounts and not skip(entry.path):
                            pending.append(entry.path)
                    elif entry.is_file(follow_symlinks=False) and _has_bit(entry):
                        yield entry.path
        except OSError:
            continue  # gone meanwhile, or not ours to read: a setuid file there is not ours to find either
        yield None


def _has_bit(entry: os.DirEntry[bytes]) -> bool:
    try:
        return bool(entry.stat(follow_symlinks=False).st_mode & SETUID)
    except OSError:
        return False


def census(judge: Judge, starts: list[bytes], mounts: frozenset[bytes], now_ns: Callable[[], int]) -> Steps:
    """Compare what is there with the row; the first count is learnt. What lies in a watched root is judged there."""
    known = judge.baseline.entries(ROW)
    found: dict[bytes, Entry] = {}
    for path in walk(starts, mounts, lambda folder: any(is_below(folder, root) for root in judge.scope.roots)):
        if path is None or len(found) >= MAX_FILES:
            yield None
            continue
        entry = yield from look(path, now_ns=now_ns(), limit_bytes=judge.limit_bytes, hashers=judge.hashing.verdict)
        if entry is not None:
            found[path] = entry
    if len(found) >= MAX_FILES:
        judge.ledger.report(ROW, "too_many_setuid", f"more than {MAX_FILES} setuid files: not all are compared")
    for path in sorted(known.keys() | found.keys()) if known is not None else ():
        yield from judge.told(path, (known or {}).get(path), found.get(path))
    judge.baseline.put_folder(ROW, found)
    yield None
