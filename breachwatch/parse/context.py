"""What a parser is given beside the line, and what every parser promises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any, NamedTuple, Protocol, runtime_checkable

from breachwatch.model import Block, Event, FieldValue, LogSource, RawLine
from breachwatch.parse.memory import Memory


@dataclass(frozen=True, slots=True, kw_only=True)
class ParseContext:
    """Where a line was read: fills in what the line itself does not say."""

    host: str
    """Name of the host for lines that name none."""
    reference_utc: datetime
    """The newest instant a line without year may have (a day of clock skew is granted)."""
    tz: tzinfo = UTC
    """Zone of times that name none."""
    year: int | None = None
    """Year of the first line, where lines have none; the parser counts on from there."""


class Parser(Protocol):
    """Turns the lines of one file into events.

    One object per file: `memory` is all that it remembers of earlier lines, but for the running year where `year` is
    given and, for `auto`, the format once that is found. `parse` gives at least one event for every
    line, whatever the bytes, and never raises on data: what it cannot read becomes an event of kind `pipeline_error`.
    Only an `Assembler` may keep a line until the others of its event have come.
    """

    format: str
    memory: Memory

    def parse(self, line: RawLine, context: ParseContext) -> Sequence[Event]: ...


Place = tuple[int, int, *tuple[Any, ...]]
"""Where a line begins in a block and where the next one does, and whatever else."""


class Reader(Parser, Protocol):
    """A parser that can also say "not mine", so that `auto` may ask the next one."""

    def read(self, text: str, line: RawLine, context: ParseContext) -> Sequence[Event] | None:
        """The events of the decoded line, or None where it has another shape."""
        ...


Read = tuple[dict[str, FieldValue], str, str, LogSource | None]
"""Fields, text and name of the event of a line, as far as the line and its place alone say; its log source, where it is
known that the line says nothing of time and host."""


class Ahead(NamedTuple):
    """How lines of a block are read before it is their turn, many at once."""

    read: Callable[[Sequence[Place]], Sequence[Read | None]]
    """What there is at some places; None: no more than `parse` would read."""
    event_of: Callable[[Read], Event]
    """The event of a line, when it is its turn, as `parse` would give it then."""


@runtime_checkable
class AheadReader(Protocol):
    """A parser that can read so."""

    def ahead(self, block: Block, context: ParseContext) -> Ahead | None:
        """How; None: these lines cannot be."""
        ...


@runtime_checkable
class Assembler(Protocol):
    """A parser whose events have several lines, which other lines may stand between."""

    @property
    def is_holding(self) -> bool:
        """True while a line waits; asked after every line."""
        ...

    @property
    def waiting(self) -> Sequence[RawLine]:
        """Lines of unfinished events: stored with the offset, and parsed again after a restart."""
        ...

    def flush(self, context: ParseContext, *, everything: bool = False) -> Sequence[Event]:
        """Unfinished events that have waited long enough, or all of them."""
        ...
