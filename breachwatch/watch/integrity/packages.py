"""Package managers at work: what they change is judged when they are done, and then by what they say they installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from breachwatch.model import FileChange
from breachwatch.watch.critical import LEVELS

HOLD_S = 60.0
"""So long a verdict waits at most for a package manager that is at work: the sums come after the files."""

CHECK_EVERY_S = 0.05
MAX_HELD = 100_000

NEVER_EXPLAINED = 0o6000
"""A setuid bit that was not there before is told as such, whoever set it."""


LOWER = dict(zip(LEVELS, ("low", *LEVELS), strict=False))
"""What a change is rated at that a package's script probably made."""


class Manager(Protocol):
    """One package database."""

    @property
    def lock(self) -> Path:
        """The file it locks while it works."""
        ...

    def refresh(self) -> None:
        """Read what has happened."""
        ...

    def explain(self, change: FileChange) -> str:
        """The package that made this change; empty if none did."""
        ...

    def suspect(self, change: FileChange) -> str:
        """The package whose script probably made this change; empty if none did."""
        ...

    def remember(self) -> None:
        """Note who owns what."""
        ...


class Packages:
    """All package managers of this host."""

    def __init__(self, managers: Sequence[Manager], monotonic: Callable[[], float]) -> None:
        self._managers = managers
        self._monotonic = monotonic
        self._checked = float("-inf")
        self._is_busy = False
        self._held: dict[bytes, float] = {}

    def holds(self, path: bytes) -> bool:
        """True while a package manager works and this path has not waited for it too long."""
        now = self._monotonic()
        if now - self._checked >= CHECK_EVERY_S:
            self._checked = now
            was_busy, self._is_busy = self._is_busy, any(is_locked(manager.lock) for manager in self._managers)
            if self._is_busy and not was_busy:
                self.remember()
            if was_busy and not self._is_busy:
                self._held.clear()
        if not self._is_busy:
            return False
        if len(self._held) >= MAX_HELD and path not in self._held:
            return False
        return now - self._held.setdefault(path, now) < HOLD_S

    def remember(self) -> None:
        """Note who owns what: what a package manager takes away later is known by it."""
        for manager in self._managers:
            manager.remember()

    def explain(self, changes: Sequence[FileChange]) -> Sequence[FileChange]:
        """The same changes, those that are a package's own content named as such."""
        for manager in self._managers:
            manager.refresh()
        return [self._explained(change) for change in changes]

    def _explained(self, change: FileChange) -> FileChange:
        if _gains_power(change):
            return change
        for manager in self._managers:
            if package := manager.explain(change):
                return replace(change, explained_by=package)
        maker = next((maker for manager in self._managers if (maker := manager.suspect(change))), "")
        return replace(change, probably_by=maker, severity=LOWER[change.severity]) if maker else change


def _gains_power(change: FileChange) -> bool:
    after, before = change.after, change.before
    if after is None:
        return False
    old_mode = 0 if before is None else before.mode
    names = {name for name, _ in after.xattrs}
    had = set() if before is None else {name for name, _ in before.xattrs}
    is_setuid = after.type == "file" and bool(after.mode & ~old_mode & NEVER_EXPLAINED)
    return is_setuid or "security.capability" in names - had


def is_locked(path: Path) -> bool:
    """True if a process holds a lock on the file.

    `1: POSIX ADVISORY WRITE 77 fe:00:1234 0 EOF`. Source: proc_locks(5).
    """
    try:
        inode = str(path.stat().st_ino)
        with open("/proc/locks", encoding="ascii", errors="replace") as locks:  # noqa: PTH123
            return any(inode in line and _is_held(line.split(), inode) for line in locks)
    except OSError:
        return False


def _is_held(parts: list[str], inode: str) -> bool:
    """A line without an arrow (who only waits) whose sixth word names the file."""
    return "->" not in parts and any(part.rpartition(":")[2] == inode for part in parts[5:6])
