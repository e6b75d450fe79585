"""Reading again what was read, a little at a time: whoever rewrites an old line of a log is seen."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from breachwatch.watch.seal import LEAF_BYTES, Changed, ReadAt, Seals, SecondLook

SETTLED_NS = 1_000_000_000
"""A change so young may be followed by another one with the same time: kernels stamp files in ticks."""


@dataclass(slots=True)
class Review:
    """The second look at one file. Cheap where nothing happens: a file whose ctime stands still is not read."""

    read_at: ReadAt
    seals: Seals = field(default_factory=Seals)
    is_urgent: bool = False
    """The file was written to and did not grow."""
    _look: SecondLook | None = None
    _seen: tuple[int, int] = (-1, -1)
    """Size and ctime when the file was last looked at; ctime, because nobody can set it back."""
    _settled: tuple[int, int] = (-1, -1)
    """Size and ctime that the last finished look holds for."""
    _found: list[Changed] = field(default_factory=list)
    _is_told: bool = False

    def forget(self, base: int) -> None:
        """What was read before this byte is not known any more."""
        self.seals, self._look, self.is_urgent, self._is_told = Seals(base=base), None, False, False

    def restore(self, stored: bytes) -> None:
        """Take over a checkpoint's seals; all of it is looked at again, for nobody watched meanwhile."""
        self.seals, changed = Seals.from_bytes(stored, self.read_at)
        self._look, self._settled = None, (-1, -1)
        self._found += [changed] if changed else []

    def stored(self, offset: int) -> bytes:
        """For a checkpoint at that offset."""
        return self.seals.to_bytes() if self.seals.end == offset else b""

    def is_seen(self, status: os.stat_result) -> bool:
        """True if the file was not written to since it was last noticed."""
        return self._seen == (status.st_size, status.st_ctime_ns)

    def notice(self, status: os.stat_result) -> None:
        """The file was looked up: if it was written to without growing, it has to be read again soon."""
        now = status.st_size, status.st_ctime_ns
        if self._seen[0] == now[0] and self._seen[1] != now[1] and self._seen[1] >= 0:
            self.is_urgent = True
            self._look = None
        self._seen = now

    @property
    def is_looking(self) -> bool:
        """True in the middle of a look."""
        return self._look is not None

    def is_due(self) -> bool:
        """True if something may have changed since the last look was finished."""
        return bool(self._found) or self._look is not None or self._settled != self._seen

    def step(self, budget_bytes: int, now_ns: int) -> tuple[list[Changed], int]:
        """(parts that changed, bytes read). The first one of a look is told at once, the others together at its end."""
        if self._look is None:
            self._look = SecondLook(self.seals, self.read_at)
            is_young = now_ns - self._seen[1] < SETTLED_NS
            self._settled = (-1, -1) if is_young else self._seen
            self._is_told = False
        used = 0
        while used < budget_bytes and not self._look.done:
            changed = self._look.step()
            self._found += [changed] if changed else []
            used += LEAF_BYTES
        told: list[Changed] = []
        if self._found and not self._is_told:
            self._is_told = True
            told.append(self._found.pop(0))
        if self._look.done:
            self._look, self.is_urgent = None, False
            told += self._found
            self._found = []
        return told, used
