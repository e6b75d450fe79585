"""How much of what should be watched is watched: never rounded up to 100 %."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from math import floor


@dataclass(slots=True)
class Coverage:
    """Counts of the last complete sweep."""

    folders: int = 0
    entries: int = 0
    blind: int = 0
    """Paths that could not be judged: unreadable, changing while read, too large, too deep, hidden by a mount."""
    watched: int = 0
    """Folders with a kernel watch."""
    swept_at: datetime | None = None
    read_at: datetime | None = None
    """When every content was last read."""

    @property
    def percent(self) -> float:
        """Judged entries of all, in hundredths of a percent, rounded down; 0 before the first sweep."""
        return share(self.entries, self.blind)

    def line(self, *, sweeping: bool) -> str:
        """For the heartbeat."""
        last = "never" if self.swept_at is None else self.swept_at.isoformat(timespec="seconds")
        read = "never" if self.read_at is None else self.read_at.isoformat(timespec="seconds")
        return (
            f"coverage={self.percent:.2f}% entries={self.entries} folders={self.folders} watched={self.watched}"
            f" blind={self.blind} swept={last} read={read} sweeping={int(sweeping)}"
        )


def share(judged: int, blind: int) -> float:
    """100 only if nothing is blind and something was judged."""
    if judged <= 0:
        return 0.0
    return floor(10_000 * max(0, judged - blind) / judged) / 100 if blind else 100.0
