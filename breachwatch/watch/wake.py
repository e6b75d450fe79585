"""Waking the agent when a log grows: kernel events are hints only, polling finds everything without them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from watchdog.events import (
    DirDeletedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer

# Without a filter our own reading would wake us again (opened, closed_no_write)
HINTS: list[type[FileSystemEvent]] = [
    FileModifiedEvent, FileCreatedEvent, FileMovedEvent, FileDeletedEvent, FileClosedEvent, DirDeletedEvent,
]  # fmt: skip


class _Hint(FileSystemEventHandler):
    def __init__(self, notify: Callable[[], None]) -> None:
        self._notify = notify

    def on_any_event(self, event: FileSystemEvent) -> None:  # noqa: ARG002  # which one does not matter
        self._notify()


class LogWake:
    """Calls `notify` when something happens in one of the directories. `unwatched` could not be watched."""

    def __init__(self, directories: Sequence[Path], notify: Callable[[], None]) -> None:
        self.unwatched: list[tuple[Path, str]] = []
        self._observer = Observer()
        handler = _Hint(notify)
        for directory in directories:
            try:
                self._observer.schedule(handler, str(directory), recursive=False, event_filter=HINTS)
            except OSError as error:
                self.unwatched.append((directory, error.strerror or "cannot be watched"))
        try:
            self._observer.start()
        except OSError as error:
            self.unwatched = [(directory, error.strerror or "cannot be watched") for directory in directories]

    def close(self) -> None:
        """Stop the observer's threads."""
        if self._observer.is_alive():
            self._observer.stop()
            self._observer.join()
