"""Verdicts: the difference between the baseline and what is there now. Every hint and every sweep ends here."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

from breachwatch.model import DirectoryRow, FileChange
from breachwatch.ports import Clock
from breachwatch.watch.critical import judge_change
from breachwatch.watch.integrity.entry import (
    OK,
    TOO_LARGE,
    Entry,
    action_of,
    differences,
    record_of,
    smudged,
)
from breachwatch.watch.integrity.hashing import Hashing
from breachwatch.watch.integrity.inspect import FOLDER_FLAGS, Look, look
from breachwatch.watch.integrity.ledger import Ledger
from breachwatch.watch.integrity.scope import Scope
from breachwatch.watch.integrity.tree import SELF, Baseline, Listing, is_below, join, list_open, split

MAX_DEPTH = 256
"""Deeper folders are reported, not entered: a chain of folders must not exhaust the agent."""

MAX_PATH_BYTES = 4000
"""Just below PATH_MAX: what the kernel refuses as one path is reported, not entered."""

HASH_LIMIT_BYTES = 8 << 30
"""Larger files (sparse ones may claim exabytes) are told by their metadata and reported as not read."""

REASONS = ("", "path_unreadable", "unstable", "too_large")
"""Why a path is not judged, by its state."""

Steps = Generator["FileChange | None", None, None]
"""Changes; None now and then, when the caller may want to do something else."""


class Watches(Protocol):
    """Who asks the kernel for hints about a directory."""

    def ensure(self, folder: bytes) -> None:
        """Hints about this directory from now on; if that fails it is counted, never raised."""
        ...

    def drop(self, folder: bytes) -> None:
        """No hints about it any more: it has left."""
        ...


class Mounts(Protocol):
    """Who knows which directories are hidden by a mount."""

    def hides(self, path: bytes) -> bool: ...


@dataclass(slots=True, kw_only=True)
class Judge:
    """Compares paths with the baseline and brings the baseline up to date with what it yields."""

    baseline: Baseline
    scope: Scope
    ledger: Ledger
    clock: Clock
    watches: Watches | None = None
    mounts: Mounts | None = None
    holds: Callable[[bytes], bool] | None = None
    """Who wants a verdict to wait: a package manager is at work."""
    limit_bytes: int = HASH_LIMIT_BYTES
    hashing: Hashing = field(default_factory=Hashing)
    devices: dict[bytes, int] = field(default_factory=dict)
    """Device number of each root: what lies on another one is another file system."""
    channel: str = ""
    """What asks at present: event, sweep or content."""
    taking: set[bytes] = field(default_factory=set)
    """Folders that are being taken in: whatever else comes to them waits in `postponed`."""
    postponed: list[bytes] = field(default_factory=list)
    folders: int = 0
    entries: int = 0
    read_bytes: int = 0

    def path(self, path: bytes) -> Steps:
        """Judge one path; its content is read."""
        root = self.scope.root_of(path)
        if root is None or not self.scope.covers(path) or self.hidden(path):
            return
        if any(is_below(path, folder) for folder in self.taking):
            self.postponed.append(path)
            return
        if self.holds is not None and self.holds(path):
            self.postponed.append(path)
            return
        if self.baseline.entries(root) is None:
            return  # nothing is known of this root yet: the first sweep learns it
        path = self._outermost_unknown(path, root)
        before = self.baseline.entry(path)
        after = yield from self._look(path)
        if after is None and before is None:
            return
        if after is not None:
            self._account(path, before, after)
            if before is not None and after.state not in {OK, TOO_LARGE}:
                # What was known of the content stays known, so that the next good look is compared with it
                meta = after.meta if any(after.meta) else before.meta
                after = smudged(Entry(meta, bytes((after.state,)) + before.rest[1:]))
        yield from self._compare(path, before, after)

    def _outermost_unknown(self, path: bytes, root: bytes) -> bytes:
        """The path, or the folder above it with which it has come."""
        while path != root and self.baseline.entries(folder := split(path, self.scope.root_set)[0]) is None:
            path = folder
        return path

    def _account(self, path: bytes, before: Entry | None, after: Entry) -> None:
        if after.state == OK:
            self.ledger.clear(path)
            return
        detail = "content not read" if before is None else "what is known of it may be outdated"
        self.ledger.report(path, REASONS[after.state], detail)

    def _compare(self, path: bytes, before: Entry | None, after: Entry | None) -> Steps:
        changed = differences(before, after) if before is not None and after is not None else ()
        if after is not None and after.state == TOO_LARGE:
            after = smudged(after)
        if before == after:
            return
        if before is not None and before.is_directory and (after is None or not after.is_directory):
            yield from self.departed(path)
        if (action := action_of(before, after, changed)) is not None:
            yield self._change(path, action, before, after, changed)
        if after is None:
            self.baseline.put(path, None)
            if path in self.scope.root_set:
                self.baseline.put_folder(path, {})  # known to be gone: what comes back is created, not learnt
            self.ledger.clear_below(path)
            return
        # One that could not be entered before has an entry, but what lies in it is not known
        was_entered = before is not None and before.is_directory and self.baseline.entries(path) is not None
        is_new = after.is_directory and not was_entered
        if is_new:
            yield from self._take_in(path, silent=False)
        self.baseline.put(path, after)
        if after.is_directory and not is_new and "inode" in changed:
            yield from self.subtree(path)

    def _change(
        self, path: bytes, action: str, before: Entry | None, after: Entry | None, changed: tuple[str, ...]
    ) -> FileChange:
        old = None if before is None else record_of(path, before)
        new = None if after is None else record_of(path, after)
        severity, techniques = judge_change(os.fsdecode(path), action, old, new, changed)
        return FileChange(
            path=path, action=action, before=old, after=new, changed=changed, channel=self.channel,
            seen_at=self.clock.now(), severity=severity, tags=techniques,
        )  # fmt: skip

    def rated(self, change: FileChange) -> FileChange:
        """The change with its severity and techniques."""
        severity, techniques = judge_change(
            os.fsdecode(change.path), change.action, change.before, change.after, change.changed
        )
        return replace(change, severity=severity, tags=techniques)

    # -- directories ----------------------------------------------------------------------------------------------

    def listing(self, folder: bytes) -> Listing | None:
        """One directory as it is now, watched from just before; None if it is gone, hidden or unreadable."""
        if self.hidden(folder):
            return None
        try:
            descriptor = os.open(folder, FOLDER_FLAGS)
        except OSError as error:
            if isinstance(error, PermissionError):
                self.ledger.report(folder, "path_unreadable", "what lies in this folder is not seen")
            return None
        try:
            if not self._may_enter(folder, descriptor):
                return None
            if self.watches is not None:
                self.watches.ensure(folder)
            self.folders += 1
            wanted = self.scope.filter_for(folder)
            listing = list_open(descriptor, is_root=folder in self.scope.root_set, wanted=wanted)
        except OSError:
            self.ledger.report(folder, "path_unreadable", "what lies in this folder is not seen")
            return None
        finally:
            os.close(descriptor)
        self.ledger.clear(folder)
        return listing

    def _may_enter(self, folder: bytes, descriptor: int) -> bool:
        root = self.scope.root_of(folder)
        if root is None:
            return False
        if os.fstat(descriptor).st_dev != self._device(root):
            hint = "a file system is mounted here and not entered; name it in watch.integrity.paths"
            self.ledger.report(folder, "other_file_system", hint)
            return False
        if len(folder) > MAX_PATH_BYTES or folder.count(b"/") - root.count(b"/") > MAX_DEPTH:
            self.ledger.report(folder, "too_deep", "folders below are not entered")
            return False
        return True

    def _device(self, root: bytes) -> int:
        if root not in self.devices:
            self.devices[root] = os.lstat(root).st_dev
        return self.devices[root]

    def hidden(self, path: bytes) -> bool:
        """True below a mount that covers what is watched."""
        return self.mounts is not None and self.mounts.hides(path)

    def folder(self, folder: bytes, row: DirectoryRow | None = None) -> Steps:
        """Judge the entries of one directory by their metadata; content is read where that differs."""
        listing = self.listing(folder)
        if listing is None:
            return
        self.entries += len(listing.names)
        if row is not None and listing.equals(row):
            return
        known = self.baseline.entries(folder) if row is None else self.baseline.unpack(row)
        for name in self._suspects(folder, listing, known or {}):
            yield from self.path(join(folder, name))
        yield None

    def _suspects(self, folder: bytes, listing: Listing, known: dict[bytes, Entry]) -> Iterator[bytes]:
        here = set()
        for text, meta in zip(listing.names, listing.metas, strict=True):
            name = os.fsencode(text)
            here.add(name)
            entry = known.get(name)
            if entry is None or entry.meta != meta:
                yield name
        for name in known:
            if name not in here and (name != SELF or folder in self.scope.root_set):
                yield name

    def subtree(self, folder: bytes) -> Steps:
        """Judge all that is known below a directory; what is new there shows in its parent."""
        for row in self.baseline.rows(folder):
            yield from self.folder(row.path, row)

    def departed(self, folder: bytes) -> Steps:
        """A directory is gone: so is everything that was known below it."""
        for row in self.baseline.rows(folder):
            yield from self._departed_row(row.path)
        for path in self.baseline.pending_below(folder):
            yield from self._departed_row(path)

    def _departed_row(self, folder: bytes) -> Steps:
        for name, entry in list((self.baseline.entries(folder) or {}).items()):
            if name != SELF:
                yield self._change(join(folder, name), "deleted", entry, None, ())
        self.baseline.put_folder(folder, None)
        if self.watches is not None:
            self.watches.drop(folder)
        yield None

    def learn(self, root: bytes) -> Steps:
        """The first look at a root is the baseline. A root that is not there is known as such: it comes as created."""
        entry = yield from self._look(root)
        if entry is None:
            self.baseline.put_folder(root, {})
            return
        self._account(root, None, entry)
        if entry.is_directory:
            yield from self._take_in(root, silent=True)
        else:
            self.baseline.put(root, entry)

    def _take_in(self, folder: bytes, *, silent: bool) -> Steps:
        """All that lies in a new directory. Its rows are complete before the row that names it is written.

        So a crash in between leaves it unknown, to be taken in again, and never known but empty.
        """
        self.taking.add(folder)
        try:
            yield from self._take_folder(folder, silent=silent)
        finally:
            self.taking.discard(folder)

    def _take_folder(self, folder: bytes, *, silent: bool) -> Steps:
        listing = self.listing(folder)
        if listing is None:
            return
        known = self.baseline.entries(folder) or {}
        fresh: dict[bytes, Entry] = {}
        for text in listing.names:
            name = os.fsencode(text)
            path = join(folder, name)
            entry = yield from self._look(path)
            if entry is None:
                continue
            self._account(path, None, entry)
            self.entries += 1
            fresh[name] = smudged(entry) if entry.state == TOO_LARGE else entry
            if name == SELF:
                continue
            if not silent:
                yield from self.told(path, known.get(name), entry)
            if entry.is_directory:
                yield from self._take_folder(path, silent=silent)
        self.baseline.put_folder(folder, fresh)
        yield None

    def told(self, path: bytes, before: Entry | None, after: Entry | None) -> Steps:
        """The change between two looks, if there is one; the baseline is the caller's."""
        changed = differences(before, after) if before is not None and after is not None else ()
        if before is None and after is None:
            return
        if (action := action_of(before, after, changed)) is not None:
            yield self._change(path, action, before, after, changed)

    def _look(self, path: bytes) -> Look:
        return look(path, now_ns=self._now_ns(), limit_bytes=self.limit_bytes, hashers=self.hashing.verdict)

    def _now_ns(self) -> int:
        return int(self.clock.now().timestamp() * 1e9)
