"""A small part of live lines is judged by the reference as well: any difference is an alarm, and loses no match."""

from __future__ import annotations

from dataclasses import dataclass, field

from breachwatch.detect.plan import EVERY, Candidate

BLOCKS = 50
"""Every so many blocks a part of one is sampled."""

LINES = 32
"""Lines of a block that are sampled."""

EVENTS = 20
"""Where a block in so many is sampled, one event is in this many times as many."""

MAX_TOLD = 100
"""Rules that are named in alarms."""


@dataclass(slots=True)
class Sampler:
    """Chooses lines, counts them and what the engine would have missed in them."""

    every: int = BLOCKS
    """Zero: never."""
    lines: int = 0
    differences: int = 0
    wrong: dict[str, int] = field(default_factory=dict)
    """Rules that the engine would have missed or invented, by in how many lines."""
    _blocks: int = 0
    _events: int = 0

    def chosen(self, data: bytes, candidates: list[Candidate]) -> tuple[list[Candidate], dict[int, Candidate | None]]:
        """The candidates, the chosen lines made candidates for every rule; what these were before, by their start."""
        self._blocks += 1
        if not self.every or self._blocks % self.every:
            return candidates, {}
        middle = (self._blocks * 2_654_435_761) % max(1, len(data))  # anywhere, but each run the same
        start = data.rfind(b"\n", 0, middle) + 1
        stop = start
        lines: list[Candidate] = []
        while stop < len(data) and len(lines) < LINES:
            end = data.find(b"\n", stop) + 1 or len(data)
            lines.append((stop, end, EVERY, False, None))
            stop = end
        inside = {one[0]: one for one in candidates if start <= one[0] < stop}
        before = [one for one in candidates if one[0] < start]
        after = [one for one in candidates if one[0] >= stop]
        self.lines += len(lines)
        return [*before, *lines, *after], {line[0]: inside.get(line[0]) for line in lines}

    def takes_event(self) -> bool:
        """True for an event now and then, of those that come one by one: the reference judges it too."""
        self._events += 1
        if not self.every or self._events % (self.every * EVENTS):
            return False
        self.lines += 1
        return True

    def compare(self, right: set[str], found: set[str]) -> None:
        """Take note of what the reference found in a line, and of what the engine would have."""
        different = right ^ found
        if different:
            self.differences += 1
        for rule in different:
            if rule in self.wrong or len(self.wrong) < MAX_TOLD:
                self.wrong[rule] = self.wrong.get(rule, 0) + 1
