"""Where patterns were found in a block, and which lines these places are in."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any, Final, Protocol

from breachwatch.model.passes import native

Hit = int | frozenset[int]
"""The number of the one pattern that is in a line, or the numbers of several."""

Narrow = Callable[[bytes], tuple[int, ...]]
"""Of a line without anything dirty: those of some rules that it may match."""

Entry = tuple[tuple[int, ...] | None, Any]
"""The rules that lines with a hit may match (None: any), and a `Narrow` that dismisses some; None: nothing does.

Or a `native.Remembered` or `Keywords`, which may know the rules that a line matches; of a line for which it did: these,
and True.
"""

Line = tuple[int, int, Hit, Entry | None]
"""Where a line begins, where the next one does, what was found in it, and what is known of lines with this hit."""

Judged = tuple[int, int, tuple[int, ...], bool, None]
"""Where a line begins, where the next one does, and the rules that it matches; then True and None."""

JUDGED: Final = 5
"""Items of a `Judged`; a `Line` has fewer."""

Tally = dict[tuple[int, ...], int]
"""How many lines match just these rules."""

WEIGHT = "I"
"""Type code of an array of weights: 32 bits without a sign."""


class Hits(Protocol):
    """Collects what scanners find."""

    def note(self, number: int, start: int, stop: int, flags: int, context: object, /) -> None:
        """A hit as Hyperscan tells of it."""
        ...

    def add(self, stop: int, number: int, /) -> None:
        """A hit: the offset behind its last byte, and the number of the pattern."""
        ...

    def lines(
        self,
        data: bytes,
        weights: array[int],
        known: dict[Hit, Entry],
        tally: Tally | None = None,
        gives_judged: bool = False,
        /,
    ) -> tuple[list[Line | Judged], int, int]:
        """The lines of the block that hold hits, in order, and the sum of the weights of all hits; forgets the hits.

        `data` holds whole lines. `weights`: by number of the pattern. `known`: may dismiss lines; how many were, comes
        last. `tally`: lines whose rules are known may be counted there instead of being given; `gives_judged`: or be
        given as `Judged`.

        Raises: ValueError, for a hit outside of the block or without a weight; MemoryError.
        """
        ...


class PlainHits:
    """In Python, for where nothing was compiled."""

    def __init__(self) -> None:
        self.found: list[tuple[int, int]] = []
        """(offset behind the hit, number of the pattern), in any order."""

    def note(self, number: int, _start: int, stop: int, _flags: int, _context: object, /) -> None:
        """A hit as Hyperscan tells of it."""
        self.found.append((stop, number))

    def add(self, stop: int, number: int, /) -> None:
        """A hit: the offset behind its last byte, and the number of the pattern."""
        self.found.append((stop, number))

    def lines(
        self,
        data: bytes,
        weights: array[int],
        known: dict[Hit, Entry],
        tally: Tally | None = None,  # noqa: ARG002  # nothing is remembered where nothing is compiled
        gives_judged: bool = False,  # noqa: ARG002
        /,
    ) -> tuple[list[Line | Judged], int, int]:
        """The lines of the block that hold hits; see `Hits`. No line is dismissed or counted here."""
        found, self.found = sorted(self.found), []
        if found and not (found[0][0] > 0 and found[-1][0] <= len(data)):
            raise ValueError("a hit lies outside the block, or has a number without a weight")
        try:
            work = sum([weights[number] for _, number in found])
        except IndexError:
            raise ValueError("a hit lies outside the block, or has a number without a weight") from None
        lines: list[tuple[int, int, Hit]] = []
        find, find_back = data.find, data.rfind
        start = end = 0
        numbers: set[int] = set()
        for stop, number in found:
            if stop > end:
                if numbers:
                    lines.append((start, end, _hit(numbers)))
                start = find_back(b"\n", end, stop - 1) + 1 or end
                end = find(b"\n", stop - 1) + 1 or len(data)
                numbers = {number}
            else:
                numbers.add(number)
        if numbers:
            lines.append((start, end, _hit(numbers)))
        told: list[Line | Judged] = [(start, end, hit, known.get(hit)) for start, end, hit in lines]
        return told, work, 0


def _hit(numbers: set[int]) -> Hit:
    return next(iter(numbers)) if len(numbers) == 1 else frozenset(numbers)


new_hits: Callable[[], Hits] = PlainHits if native is None else native.Hits
"""The compiled ones where there are any."""
