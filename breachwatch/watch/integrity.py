"""File integrity: kernel events are hints, the difference to the baseline is the verdict."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirModifiedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer

from breachwatch.model import FileChange, FileRecord, Gap
from breachwatch.ports import Clock
from breachwatch.watch.critical import classify, default_paths
from breachwatch.watch.inspect import differences, is_excluded, look, walk
from breachwatch.watch.source import Progress, display

DEBOUNCE_S = 0.1
"""Writers touch a file several times: wait so long after the last hint, but never longer than DEBOUNCE_CAP_S."""

DEBOUNCE_CAP_S = 1.0
MAX_DIRTY = 50_000
"""More hints than this mean a storm: a sweep finds everything in bounded memory."""

CONTENT = frozenset({"sha256", "size", "link_target", "type"})
HINTS: list[type[FileSystemEvent]] = [
    FileModifiedEvent, FileCreatedEvent, FileMovedEvent, FileDeletedEvent, FileClosedEvent,
    DirCreatedEvent, DirDeletedEvent, DirMovedEvent, DirModifiedEvent,
]  # fmt: skip


class BaselineStore(Protocol):
    """What integrity needs of the agent's store."""

    def baseline(self, under: bytes | None = None) -> Iterator[FileRecord]:
        """Known paths in byte order."""
        ...

    def baseline_record(self, path: bytes) -> FileRecord | None:
        """One known path."""
        ...


class DirtyPaths(FileSystemEventHandler):
    """Paths that the kernel spoke of, coalesced; filled by watchdog's threads, drained by `poll`."""

    def __init__(self, clock: Clock, notify: Callable[[], None] | None) -> None:
        self._clock = clock
        self._notify = notify
        self._lock = threading.Lock()
        self._paths: dict[bytes, tuple[float, float]] = {}
        self.overflowed = False

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Remember both names of what happened."""
        now_s = self._clock.monotonic()
        with self._lock:
            for name in (event.src_path, event.dest_path):
                if not name:
                    continue
                path = os.fsencode(name)
                first, _ = self._paths.get(path, (now_s, now_s))
                self._paths[path] = (first, now_s)
            if len(self._paths) > MAX_DIRTY:
                self._paths.clear()
                self.overflowed = True
        if self._notify is not None:
            self._notify()

    def due(self) -> list[bytes]:
        """Paths that were quiet for a moment, or have waited long enough."""
        now_s = self._clock.monotonic()
        with self._lock:
            ready = [
                path
                for path, (first, last) in self._paths.items()
                if now_s - last >= DEBOUNCE_S or now_s - first >= DEBOUNCE_CAP_S
            ]
            for path in ready:
                del self._paths[path]
        return sorted(ready)

    def __len__(self) -> int:
        return len(self._paths)


class Integrity:
    """A `Source` of file changes against a baseline that lives in the agent's store."""

    name = "integrity"

    def __init__(
        self,
        paths: Sequence[str],
        exclude: Sequence[str],
        store: BaselineStore,
        *,
        clock: Clock,
        sweep_interval_s: float = 300.0,
        notify: Callable[[], None] | None = None,
    ) -> None:
        self._roots = [os.fsencode(path).rstrip(b"/") or b"/" for path in (paths or default_paths())]
        self._exclude = tuple(exclude)
        self._store = store
        self._clock = clock
        self._interval_s = sweep_interval_s
        self._dirty = DirtyPaths(clock, notify)
        self._gaps: list[Gap] = []
        self._updates: dict[bytes, FileRecord] = {}
        self._deleted: set[bytes] = set()
        self._observer = Observer()
        # Watch first, then sweep: what changes in between is seen by one or the other
        self._unwatched = [root for root in self._roots if not self._watch(root)]
        self._observer.start()
        self._next_sweep = 0.0
        self._fresh = [root for root in self._roots if next(iter(store.baseline(root)), None) is None]

    def _watch(self, root: bytes) -> bool:
        try:
            self._observer.schedule(self._dirty, os.fsdecode(root), recursive=True, event_filter=HINTS)
        except OSError as error:
            why = f"no kernel events here ({error.strerror}); changes are found by the sweep"
            self._gap(root, "unwatched", why)
            return False
        return True

    def poll(self, budget_bytes: int) -> Iterator[FileChange | Gap]:  # noqa: ARG002  # hashing has its own pace
        """Changes since the last poll; a full sweep when it is due or hints were lost."""
        gaps, self._gaps = self._gaps, []
        yield from gaps
        if self._dirty.overflowed:
            self._dirty.overflowed = False
            self._next_sweep = 0.0
            detail = "more changes at once than hints are kept; a sweep finds them"
            yield Gap(source=self.name, reason="overflow", at_utc=self._clock.now(), detail=detail)
        if self._clock.monotonic() >= self._next_sweep:
            yield from self._sweep()
            self._next_sweep = self._clock.monotonic() + self._interval_s
        for path in self._dirty.due():
            yield from self._verdict_below(path)

    def _sweep(self) -> Iterator[FileChange | Gap]:
        fresh, self._fresh = self._fresh, []
        for root in list(self._unwatched):
            if os.path.isdir(root) and self._watch(root):  # noqa: PTH112  # bytes path
                self._unwatched.remove(root)
        for root in self._roots:
            if root in fresh:
                self._learn(root)
            else:
                yield from self._compare(root)

    def _learn(self, root: bytes) -> None:
        """The first look is the baseline."""
        for path in walk(root, self._exclude):
            if (record := look(path)) is not None:
                self._updates[path] = record

    def _compare(self, root: bytes) -> Iterator[FileChange]:
        known = {record.path: record for record in self._store.baseline(root)}
        known.update({path: record for path, record in self._updates.items() if _is_below(path, root)})
        for path in self._deleted:
            known.pop(path, None)
        for path in walk(root, self._exclude):
            yield from self._verdict(path, known.pop(path, None))
        for path, record in known.items():
            if not is_excluded(path, self._exclude):
                yield from self._verdict(path, record)

    def _verdict_below(self, path: bytes) -> Iterator[FileChange]:
        """The path itself and, for a folder that came or went, all below it."""
        if not any(_is_below(path, root) for root in self._roots) or is_excluded(path, self._exclude):
            return
        record = self._known(path)
        is_folder = os.path.isdir(path) and not os.path.islink(path)  # noqa: PTH112, PTH114  # bytes path
        if is_folder != (record is not None and record.type == "dir"):
            yield from self._compare(path)
        else:
            yield from self._verdict(path, record)

    def _known(self, path: bytes) -> FileRecord | None:
        if path in self._deleted:
            return None
        return self._updates.get(path) or self._store.baseline_record(path)

    def _verdict(self, path: bytes, known: FileRecord | None) -> Iterator[FileChange]:
        now = look(path, known=known)
        if now is None and known is None:
            return
        if now is not None and known is not None:
            changed = differences(known, now)
            if not changed and known.state == now.state:
                return
        else:
            changed = ()
        if now is None:
            self._updates.pop(path, None)
            self._deleted.add(path)
        else:
            self._deleted.discard(path)
            self._updates[path] = now
        action = action_of(known, now, changed)
        if action is not None:
            severity, techniques = classify(os.fsdecode(path))
            yield FileChange(
                path=path,
                action=action,
                before=known,
                after=now,
                changed=changed,
                severity=severity,
                tags=techniques,
                seen_at=self._clock.now(),
            )

    def _gap(self, path: bytes, reason: str, detail: str) -> None:
        self._gaps.append(Gap(source=display(path), reason=reason, at_utc=self._clock.now(), detail=detail))

    def progress(self) -> Progress:
        """Baseline rows that changed with what was yielded."""
        updates, self._updates = list(self._updates.values()), {}
        deleted, self._deleted = list(self._deleted), set()
        return Progress(baseline=updates, baseline_deleted=deleted)

    def close(self) -> None:
        """Stop watchdog's threads."""
        self._observer.stop()
        self._observer.join()


def action_of(before: FileRecord | None, after: FileRecord | None, changed: tuple[str, ...]) -> str | None:
    """created, deleted, replaced, modified, attributes; None when only times or link counts moved."""
    if before is None:
        return "created"
    if after is None:
        return "deleted"
    if before.inode != after.inode and before.type == after.type == "file":
        return "replaced"
    if CONTENT & set(changed):
        return "modified"
    if set(changed) - {"mtime_ns", "ctime_ns", "nlink", "inode"} or (before.type == "file" and "ctime_ns" in changed):
        return "attributes"
    return None


def _is_below(path: bytes, root: bytes) -> bool:
    return path == root or path.startswith(root.rstrip(b"/") + b"/")
