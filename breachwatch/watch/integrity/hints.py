"""A batch of kernel hints as one watchdog event: a storm costs one dispatch per read, not one per file."""

from __future__ import annotations

from watchdog.events import EVENT_TYPE_MODIFIED, FileSystemEvent


class Hints(FileSystemEvent):
    """Paths that something happened to."""

    event_type = EVENT_TYPE_MODIFIED

    def __init__(self, settled: list[bytes], unsettled: list[bytes], overflow: str = "") -> None:
        super().__init__("")
        self.settled = settled
        self.unsettled = unsettled
        self.overflow = overflow

    def __eq__(self, other: object) -> bool:
        """No batch equals another: watchdog's queue drops equal neighbours."""
        return self is other

    def __hash__(self) -> int:
        return id(self)
