"""Making good for lines that nobody parsed, so that a parser's memory is what it would be had it read them all.

Nearly always the last of the skipped lines says everything (its own time, its own message): only that one is read.
Where it does not, more are. Of JSON records only the last one with a time matters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from breachwatch.model import Block, RawLine
from breachwatch.model.rawform import Usual
from breachwatch.parse.context import ParseContext, Parser
from breachwatch.parse.event import MAX_LINE_BYTES
from breachwatch.parse.jsonlines import time_in
from breachwatch.parse.memory import Saved
from breachwatch.parse.rawform import FORMS, last_time_key

STEPS = (1, 16)
"""How many of the last lines are tried before all are read."""

TRIES = 16
"""The same of records that look as if they told the time: looking for each anew goes over all that lies before it."""


class _Needed(Exception):  # noqa: N818  # no error: it ends a try, and never leaves this module
    """A line asked for what only earlier lines say."""


@dataclass(slots=True)
class Skipped:
    """Bytes `start` to `stop` of a block, whole lines that the parser has not seen."""

    parser: Parser
    block: Block
    context: ParseContext
    start: int
    stop: int
    saved: Saved
    """The parser's memory before `start`."""

    def recall(self) -> None:
        """Leave the parser's memory as if it had read the lines."""
        log_format = getattr(self.parser, "settled", None) or self.parser.format
        if log_format == "json":
            self._recall_time()
            return
        form = FORMS.get(log_format)
        if form is not None and form.usual is not None and self._recall_usual(form.usual):
            return
        start = self.stop
        for count in STEPS:
            start = _lines_back(self.block.data, start, self.start, count)
            if start <= self.start:
                break
            if self._says_all(start, self.stop):
                return
        self.parser.memory.restore(self.saved)
        self._read(self.start, self.stop)

    def _recall_usual(self, usual: Usual) -> bool:
        """The time of the last line is all there is to remember, if that is of the usual shape."""
        last = self.block.data[_lines_back(self.block.data, self.stop, self.start, 1) : self.stop - 1]
        try:
            text = last.decode().rstrip("\r\n") if len(last) <= MAX_LINE_BYTES else ""
        except UnicodeDecodeError:
            return False
        at_utc = usual.at_utc(text, self.context.tz)
        if at_utc is None:
            return False
        self.parser.memory.note(at_utc)
        return True

    def _recall_time(self) -> None:
        """The last record with a time of its own says everything."""
        data, stop = self.block.data, self.stop
        for _ in range(TRIES):
            place = last_time_key(data, self.start, stop)
            if place < 0:
                self.parser.memory.restore(self.saved)
                return
            start = max(self.start, data.rfind(b"\n", self.start, place) + 1)
            at_utc = time_in(data[start : data.find(b"\n", place)], self.context)
            if at_utc is not None:
                self.parser.memory.note(at_utc)
                return
            if self._says_all(start, data.find(b"\n", place) + 1):
                return
            stop = start
        self.parser.memory.restore(self.saved)
        self._read(self.start, stop)

    def _says_all(self, start: int, stop: int) -> bool:
        """Read these lines; False if they ask for what only earlier ones say, or leave something open."""
        self.parser.memory.forget(_unknown)
        try:
            self._read(start, stop)
        except _Needed:
            return False
        return self.parser.memory.is_whole

    def _read(self, start: int, stop: int) -> None:
        for line in lines_of(self.block, start, stop):
            self.parser.parse(line, self.context)


def lines_of(block: Block, start: int, stop: int) -> Iterator[RawLine]:
    """The lines of a part of a block, as `Block.lines` gives them."""
    while start < stop:
        end = block.data.find(b"\n", start, stop)
        yield line_of(block, start, end + 1)
        start = end + 1


def line_of(block: Block, start: int, end: int) -> RawLine:
    """The line of a block that begins at `start` and whose line feed is the byte before `end`."""
    data = block.data[start : end - 1]
    return RawLine(
        source=block.source, data=data.removesuffix(b"\r"), offset=block.offset + start, generation=block.generation,
        length_bytes=end - 1 - start,
    )  # fmt: skip


def _lines_back(data: bytes, stop: int, least: int, count: int) -> int:
    """Where the last `count` lines before `stop` begin, not before `least`."""
    for _ in range(count):
        if stop <= least:
            return least
        before = data.rfind(b"\n", least, stop - 1)
        stop = before + 1 if before >= 0 else least
    return stop


def _unknown() -> None:
    raise _Needed
