"""Processes for busy sources: while one source's lines are searched there, the agent reads the others.

A source is busy when it has more than the agent takes at a time, several times in a row. It gets a process (looker.py)
as long as the budget lasts, and loses it when it was quiet for a while. What comes out is the same with and without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from breachwatch.app.looker import Looker, LookerError
from breachwatch.app.pipeline import Pipeline, Seen, SourceFormat
from breachwatch.detect.plan import Look
from breachwatch.model import Block, Signal

BUSY_TIMES = 3
"""So many full batches in a row make a source busy."""

BACK_OFF_S = 60.0
"""So long a source whose process was lost gets no other."""

QUIET_S = 30.0
"""A source that was not busy for so long gives its process back."""


@dataclass(slots=True)
class _Load:
    """How busy a source is."""

    full: int = 0
    """Full batches in a row."""
    busy_at: float = 0.0
    not_before: float = 0.0
    """No process earlier than this."""
    looker: Looker | None = None


class Crew:
    """The processes of one agent, at most `most`."""

    def __init__(
        self,
        most: int,
        *,
        start: Callable[[], Looker],
        monotonic: Callable[[], float],
        note: Callable[[str, str], None],
    ) -> None:
        self._most = most
        self._start = start
        self._monotonic = monotonic
        self._note = note
        self._loads: dict[str, _Load] = {}

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by the name of their source."""
        return {name: load.looker.pid for name, load in self._loads.items() if load.looker is not None}

    def has(self, name: str) -> bool:
        """Whether the source has a process."""
        return name in self._loads and self._loads[name].looker is not None

    def took(self, name: str, *, is_full: bool) -> None:
        """Hear how much a source had; it may get a process, or lose it."""
        load = self._loads.get(name)
        if load is None:
            if not is_full:
                return
            load = self._loads[name] = _Load()
        now = self._monotonic()
        load.full = load.full + 1 if is_full else 0
        if is_full:
            load.busy_at = now
        if load.looker is not None:
            if now - load.busy_at > QUIET_S:
                self._dismiss(load)
        elif load.full >= BUSY_TIMES and now >= load.not_before and len(self.pids) < self._most:
            self._engage(name, load)

    def batch(self, name: str, items: Sequence[Seen], pipeline: Pipeline, how: SourceFormat) -> Batch:
        """What a source had, its first block asked about at once."""
        return Batch(self, name, items, pipeline, how)

    def ask(self, name: str, block: Block, pipeline: Pipeline, how: SourceFormat) -> bool:
        """Let the process of a source look at a block; False if there is none or it cannot."""
        looker = self._loads[name].looker
        question = pipeline.question(block, how)
        if looker is None or question is None:
            return False
        try:
            looker.ask(*question, block.data)
        except LookerError as error:
            self._lost(name, error)
            return False
        return True

    def answer(self, name: str) -> Look | None:
        """What the process found; None if it was lost."""
        looker = self._loads[name].looker
        if looker is None:
            return None
        try:
            return looker.answer()
        except LookerError as error:
            self._lost(name, error)
            return None

    def _engage(self, name: str, load: _Load) -> None:
        try:
            load.looker = self._start()
        except LookerError as error:
            self._lost(name, error)

    def _lost(self, name: str, error: LookerError) -> None:
        load = self._loads[name]
        self._dismiss(load)
        load.not_before = self._monotonic() + BACK_OFF_S
        self._note("looker_lost", f"{name}: {error}; the agent looks by itself")

    def _dismiss(self, load: _Load) -> None:
        looker, load.looker, load.full = load.looker, None, 0
        if looker is not None:
            looker.close()

    def close(self) -> None:
        """End all the processes; sources that are still busy get new ones."""
        for load in self._loads.values():
            self._dismiss(load)


class Batch:
    """What a busy source had: while one block is worked on, the next one is being searched."""

    def __init__(self, crew: Crew, name: str, items: Sequence[Seen], pipeline: Pipeline, how: SourceFormat) -> None:
        self._crew = crew
        self._name = name
        self._items = items
        self._pipeline = pipeline
        self._how = how
        self._is_asked = self._ask(0)

    def _ask(self, position: int) -> bool:
        item = self._items[position] if position < len(self._items) else None
        return isinstance(item, Block) and self._crew.ask(self._name, item, self._pipeline, self._how)

    def signals(self) -> Iterator[Signal]:
        """What the hub has to hear of it, in order."""
        for position, item in enumerate(self._items):
            look = self._crew.answer(self._name) if self._is_asked else None
            self._is_asked = self._ask(position + 1)
            yield from self._pipeline.signals(item, self._how, look)
