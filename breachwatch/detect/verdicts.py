"""What was found of lines with the same parts or values is remembered: honest lines repeat each other."""

from __future__ import annotations

from typing import Any

REST = 1_024
"""After so many lines it is looked whether they have the same values often enough."""

VERDICT_BYTES, NUMBER_BYTES, MAX_PARTS_BYTES, MAX_VERDICTS_BYTES = 300, 32, 2_048, 1 << 20
"""What a verdict that is remembered takes beside its parts, what a number among these takes, the most that one verdict
takes, and all of them."""

Read = tuple[Any, ...]
"""The parts or values that a program reads of a line: text, whole numbers, None, MISSING."""


class Verdicts:
    """What was found of lines with the same parts or values, as much as there is room for in all programs together."""

    def __init__(self) -> None:
        self._tables: list[dict[Read, tuple[int, ...]]] = []
        self._bytes = 0

    def table(self) -> dict[Read, tuple[int, ...]]:
        """For one program, to look into; `keep` adds to it."""
        self._tables.append({})
        return self._tables[-1]

    def forget(self) -> None:
        """Forget all."""
        for one in self._tables:
            one.clear()
        self._bytes = 0

    def keep(self, table: dict[Read, tuple[int, ...]], read: Read, verdict: tuple[int, ...]) -> None:
        """Remember a verdict, and forget all where there is no more room."""
        size = VERDICT_BYTES + sum([len(part) if type(part) is str else NUMBER_BYTES for part in read])
        if size > MAX_PARTS_BYTES:
            return
        if self._bytes + size > MAX_VERDICTS_BYTES:
            self.forget()
        self._bytes += size
        table[read] = verdict


class Memory:
    """The verdicts of one program."""

    __slots__ = ("_made", "_times", "_verdicts", "asked", "known", "remembered")

    def __init__(self, verdicts: Verdicts) -> None:
        self._verdicts = verdicts
        self.known = verdicts.table()
        self.remembered: Any = None
        """The same table for compiled code to look into, where that can."""
        self.asked = self._made = self._times = 0

    def keep(self, read: Read, verdict: tuple[int, ...]) -> bool:
        """Remember a verdict. False, and all is forgotten: lines hardly ever have the same, it is not worth it."""
        self._verdicts.keep(self.known, read, verdict)
        self._made += 1
        if self.asked < REST:
            return True
        times = 0 if self.remembered is None else self.remembered.times
        is_worth_it = self._made <= (self.asked + times - self._times) // 2
        self.asked, self._made, self._times = 0, 0, times
        if not is_worth_it:
            self.known.clear()
        return is_worth_it
