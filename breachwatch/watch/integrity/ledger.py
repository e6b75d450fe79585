"""What cannot be seen at present: said once when it begins, counted for as long as it lasts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from breachwatch.model import Gap
from breachwatch.watch.source import display

MAX_OPEN = 10_000
"""More blind spots than this are told as one: an attacker must not fill the agent's memory with them."""


class Ledger:
    """Blind spots by path. `open` is what lowers the coverage."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self.open: dict[bytes, str] = {}
        self._fresh: list[Gap] = []
        self._told: set[tuple[bytes, str]] = set()
        """Since the last sweep: a path that comes and goes is told once, not each time."""
        self._overfull = False

    def report(self, path: bytes, reason: str, detail: str = "") -> None:
        """A path that cannot be judged now."""
        if self.open.get(path) == reason:
            return
        if len(self.open) >= MAX_OPEN and path not in self.open:
            if not self._overfull:
                self._overfull = True
                self.tell(b"integrity", "many_blind_spots", f"more than {MAX_OPEN} paths cannot be judged")
            return
        self.open[path] = reason
        if (path, reason) not in self._told:
            self._told.add((path, reason))
            self.tell(path, reason, detail)

    def clear(self, path: bytes) -> None:
        """It can be judged again."""
        if self.open:
            self.open.pop(path, None)

    def clear_below(self, folder: bytes) -> None:
        """All of a subtree can be judged again, or is gone."""
        if self.open:
            stem = folder.rstrip(b"/") + b"/"
            for path in [path for path in self.open if path == folder or path.startswith(stem)]:
                del self.open[path]

    def tell(self, path: bytes, reason: str, detail: str) -> None:
        """Something that happened once."""
        self._fresh.append(Gap(source=display(path), reason=reason, at_utc=self._now(), detail=detail))

    def swept(self) -> None:
        """A sweep has ended: what comes up from now on is news again."""
        self._told = set(self.open.items())

    def take(self) -> list[Gap]:
        """Gaps since the last call."""
        fresh, self._fresh = self._fresh, []
        return fresh
