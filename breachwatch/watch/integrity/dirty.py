"""Paths that the kernel spoke of: coalesced, bounded, and given out when their writer has come to rest."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from watchdog.events import FileSystemEvent, FileSystemEventHandler

from breachwatch.watch.integrity.hints import Hints

SETTLED_S = 0.01
"""After a close, rename, removal or change of attributes there is nothing to wait for but its twin events."""

OPEN_S = 0.1
"""After a write to a file that stays open."""

CAP_S = 1.0
"""A file that is written without a pause is judged at least so often."""

MAX_PATHS = 20_000
"""More hints than this are kept by folder instead of by path, and at last as "everything"."""


class DirtyPaths(FileSystemEventHandler):
    """Filled by the observer's threads, drained by the agent's."""

    def __init__(self, monotonic: Callable[[], float], notify: Callable[[], None] | None = None) -> None:
        self._monotonic = monotonic
        self._notify = notify
        self._lock = threading.Lock()
        self._paths: dict[bytes, tuple[float, float]] = {}
        """Path: (judge it no later than, judge it at), by the monotonic clock."""
        self._overflowed: list[str] = []

    def dispatch(self, event: FileSystemEvent) -> None:
        """Take a batch of hints."""
        if isinstance(event, Hints):
            self.add(event.settled, event.unsettled, event.overflow)

    def add(self, settled: Iterable[bytes], unsettled: Iterable[bytes] = (), overflow: str = "") -> None:
        """Remember what happened; never blocks, never grows without bound."""
        now = self._monotonic()
        with self._lock:
            for paths, wait in ((settled, SETTLED_S), (unsettled, OPEN_S)):
                for path in paths:
                    cap = self._paths[path][0] if path in self._paths else now + CAP_S
                    self._paths[path] = (cap, now + wait)
            if overflow:
                self._overflowed.append(overflow)
            if len(self._paths) > MAX_PATHS:
                self._fold(now)
        if self._notify is not None:
            self._notify()

    def _fold(self, now: float) -> None:
        """A folder stands for its entries; if there are too many folders as well, a sweep stands for all."""
        folders = {path.rpartition(b"/")[0] or b"/" for path in self._paths}
        if len(folders) > MAX_PATHS // 2:
            self._paths.clear()
            self._overflowed.append("more changes at once than hints are kept")
        else:
            self._paths = dict.fromkeys(folders, (now + CAP_S, now + OPEN_S))

    def due(self) -> list[bytes]:
        """Paths whose time has come, parents before children."""
        now = self._monotonic()
        with self._lock:
            ready = sorted(path for path, (cap, at) in self._paths.items() if min(cap, at) <= now)
            for path in ready:
                del self._paths[path]
        return ready

    def next_due_s(self) -> float | None:
        """Seconds until the next path is due; None if there is none."""
        with self._lock:
            if not self._paths:
                return None
            first = min(min(cap, at) for cap, at in self._paths.values())
        return max(0.0, first - self._monotonic())

    def take_overflows(self) -> list[str]:
        """Why hints were lost since the last call."""
        with self._lock:
            lost, self._overflowed = self._overflowed, []
        return lost

    def __len__(self) -> int:
        return len(self._paths)
