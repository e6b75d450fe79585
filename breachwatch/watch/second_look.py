"""Which log is read again next, and how much of it: a steady small share, more where something smells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from breachwatch.model import Gap
from breachwatch.ports import Clock
from breachwatch.watch.seal import LEAF_BYTES
from breachwatch.watch.tail import FileTail

STEADY_BYTES_S = 1 << 20
"""Read again per second over all files of a source: a thousandth of a core, and a gigabyte in 17 minutes."""

URGENT_BYTES_S = 32 << 20
"""For files that were written to and did not grow."""

MOST_BYTES = 8 << 20
"""At once: reading what is new must not wait for longer than some milliseconds."""

CANDIDATES = 64
"""Files asked per poll whether they are due: thousands of quiet ones must not cost every poll."""


class SecondLooks:
    """Goes round all files of one source."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._steady = self._urgent = float(LEAF_BYTES)
        self._last_s = clock.monotonic()
        self._turn = 0

    def poll(self, tails: Sequence[FileTail]) -> Iterator[Gap]:
        """Look at what time allows."""
        self._save_up()
        for tail in tails:
            if tail.review.is_urgent and self._urgent >= LEAF_BYTES:
                gaps, used = self._look(tail, self._urgent)
                self._urgent -= used
                yield from gaps
        asked = 0
        while tails and self._steady >= LEAF_BYTES and asked < min(CANDIDATES, len(tails)):
            tail = tails[self._turn % len(tails)]
            if tail.review.is_due():
                gaps, used = self._look(tail, self._steady)
                self._steady -= used
                yield from gaps
                if tail.review.is_looking:
                    break  # more of the same file next time
            self._turn += 1
            asked += 1

    def _save_up(self) -> None:
        now_s = self._clock.monotonic()
        elapsed_s, self._last_s = now_s - self._last_s, now_s
        self._steady = min(self._steady + elapsed_s * STEADY_BYTES_S, MOST_BYTES)
        self._urgent = min(self._urgent + elapsed_s * URGENT_BYTES_S, MOST_BYTES)

    @staticmethod
    def _look(tail: FileTail, budget_bytes: float) -> tuple[list[Gap], int]:
        try:
            return tail.look_again(int(budget_bytes))
        except OSError:
            return [], LEAF_BYTES  # the file system fails: reading on says so
