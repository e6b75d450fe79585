"""Going over everything: by metadata every few minutes, by content within a day."""

from __future__ import annotations

import os
import stat
from collections.abc import Generator

from breachwatch.model import DirectoryRow
from breachwatch.watch.integrity.entry import DIGEST_BYTES, OK, Entry, digests_of, is_same_but_for_hash
from breachwatch.watch.integrity.inspect import FOLDER_FLAGS, open_quietly, read_open
from breachwatch.watch.integrity.judge import Judge, Steps
from breachwatch.watch.integrity.tree import join


def quick(judge: Judge, root: bytes) -> Steps:
    """Every entry's metadata; content where that differs. A root that is not known yet is learnt."""
    if judge.baseline.entries(root) is None:
        yield from judge.learn(root)
    else:
        yield from again(judge, root, contents=False)


def full(judge: Judge, root: bytes) -> Steps:
    """Every file's content, whatever its metadata say: finds what was changed below the file system's clock."""
    if judge.baseline.entries(root) is None:
        yield from judge.learn(root)
    else:
        yield from again(judge, root, contents=True)


def again(judge: Judge, path: bytes, *, contents: bool) -> Steps:
    """A known path, and all that is known below it."""
    yield from judge.path(path)
    for row in judge.baseline.rows(path):
        yield from judge.folder(row.path, row)
        if contents:
            yield from _contents(judge, row)
        yield None


def _contents(judge: Judge, row: DirectoryRow) -> Steps:
    if judge.hidden(row.path):
        return
    files = [(name, entry) for name, entry in judge.baseline.unpack(row).items() if stat.S_ISREG(entry.mode)]
    if not files:
        return
    try:
        folder = os.open(row.path, FOLDER_FLAGS)
    except OSError:
        folder = -1  # the metadata pass has told why; the root may be a file itself
    try:
        for name, entry in files:
            if folder < 0 or not (yield from _is_same(judge, folder, name, entry)):
                yield from judge.path(join(row.path, name))
    finally:
        if folder >= 0:
            os.close(folder)


def _is_same(judge: Judge, folder: int, name: bytes, known: Entry) -> Generator[None, None, bool]:
    """Returns True if the content is as known; anything odd is left to the verdict."""
    try:
        descriptor = open_quietly(name, dir_fd=folder)
    except OSError:
        return False
    try:
        rolling = judge.hashing.rolling
        now = yield from read_open(descriptor, now_ns=0, limit_bytes=judge.limit_bytes, hashers=rolling)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    judge.read_bytes += int.from_bytes(now.meta[24:32], "little")
    if now.state != OK or not is_same_but_for_hash(known, now):
        return False
    taken = digests_of(known)  # of a baseline from before BLAKE3 was configured the verdict has yet to take it
    return len(taken) == DIGEST_BYTES * len(judge.hashing.verdict) and taken.endswith(digests_of(now))
