"""Blocks of lines: one scan says which lines may match; only these are parsed and judged, exactly.

Every other line is skipped, and made good for in what the parser remembers (parse/skipping.py), so that what comes out
is what reading every line would have given. A sample of lines is judged without any of this (detect/sample.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat

from breachwatch.detect.engine import Detector
from breachwatch.detect.hits import Tally
from breachwatch.detect.plan import EVERY, Candidate, Look, Scope
from breachwatch.detect.sample import Sampler
from breachwatch.detect.selector import Selector
from breachwatch.model import Block, Event, LogSource, Match
from breachwatch.model.rawform import RawForm
from breachwatch.parse import ParseContext, Parser
from breachwatch.parse.auto import AutoParser
from breachwatch.parse.context import AheadReader
from breachwatch.parse.jsonlines import source_in
from breachwatch.parse.memory import Saved
from breachwatch.parse.rawform import FORMS, SETTLED
from breachwatch.parse.skipping import Skipped, line_of, lines_of

Found = tuple[Event, list[Match]]

PORTION = 512
"""Candidates that are parsed, then judged, then fed: enough of each for the processor to keep little in mind, and few
enough for its caches."""


def form_of(parser: Parser) -> RawForm | None:
    """The form of the lines that a parser reads; None where nothing is promised (`auto`: not yet)."""
    if isinstance(parser, AutoParser):
        return None if parser.settled is None else SETTLED.get(parser.settled)
    return FORMS.get(parser.format)


def is_settled(parser: Parser) -> bool:
    """True if the form of its lines will not be known later."""
    return not isinstance(parser, AutoParser) or parser.settled is not None


@dataclass(frozen=True, slots=True)
class Lines:
    """A block of lines, and how they are read."""

    block: Block
    parser: Parser
    form: RawForm
    context: ParseContext
    logsource: LogSource | None
    """Overrides what the parser says."""


@dataclass(slots=True)
class BlockReader:
    """The candidates of one block, read and judged."""

    detector: Detector
    selector: Selector
    sampler: Sampler
    lines: int = 0
    candidates: int = 0
    events: int = 0
    """A line that no rule could match counts as the one event that it would have been."""

    def read(self, lines: Lines, look: Look | None = None) -> Iterator[list[Found]]:
        """Each event that may have matched, with what it made match; to be read to its end.

        `look`: the candidates, where somebody looked for them already.
        """
        count, candidates = look or self._look(lines)
        chosen, sampled = self.sampler.chosen(lines.block.data, candidates)
        self.lines += count
        self.candidates += len(chosen)
        self.events += count - len(chosen)
        is_json, feed, feed_judged = lines.form.escapes_json, self.detector.feed, self.detector.feed_judged
        for parsed in self._parsed(chosen, lines):
            self.events += len(parsed)
            for candidate, event in parsed if sampled else ():
                if candidate[0] in sampled:
                    self._compare(event, sampled[candidate[0]], is_json=is_json)
            found: list[Found] = []
            for candidate, event in parsed:
                start, _, rules, is_judged, _ = candidate
                if sampled and start in sampled:
                    made = feed(event)
                elif is_judged and rules is not None:
                    made = feed_judged(event, rules)
                else:
                    made = feed(event, self._judged(candidate, event, is_json=is_json))
                found.append((event, made))
            yield found

    def count(self, lines: Lines, counts: Counter[int]) -> None:
        """Add to `counts` how many events satisfy which rule, by position. Lines judged already are not parsed.

        For rules that no correlation reads: nothing is fed.
        """
        source = self._source(lines)
        tally: Tally = {}
        count, found = self._look(lines, None if source is None else tally)
        known, unknown = self._known(found, lines)
        known.update({(rules, source or LogSource()): times for rules, times in tally.items()})
        for (rules, of), times in known.items():
            for index in self.detector.meant(rules, of):
                counts[index] += times
        self.lines += count
        self.candidates += len(found) + sum(tally.values())
        self.events += count - len(unknown)
        for parsed in self._parsed(unknown, lines):
            self.events += len(parsed)
            for candidate, event in parsed:
                for index in self._judged(candidate, event, is_json=lines.form.escapes_json):
                    counts[index] += 1

    def _look(self, lines: Lines, tally: Tally | None = None) -> Look:
        return self.selector.look(lines.form, self.scope(lines.logsource), lines.block.data, tally)

    def _source(self, lines: Lines) -> LogSource | None:
        """The log source of all the lines that rules are judged by, where that is one."""
        if self.detector.any_logsource:
            return LogSource()
        if lines.logsource is None and lines.form.usual is not None:
            return lines.form.usual.source
        return lines.logsource

    def _known(
        self, found: Sequence[Candidate], lines: Lines
    ) -> tuple[Counter[tuple[tuple[int, ...], LogSource]], list[Candidate]]:
        """Satisfied rules and log source of the lines whose verdict is known, with their number; the other lines."""
        form, data, logsource = lines.form, lines.block.data, self._source(lines)
        known: list[tuple[tuple[int, ...], LogSource]] = []
        unknown: list[Candidate] = []
        for candidate in found:
            start, end, rules, is_judged, _ = candidate
            source = logsource
            if source is None and is_judged and form.escapes_json:
                source = source_in(data[start:end])
            if is_judged and rules is not None and source is not None:
                known.append((rules, source))
            else:
                unknown.append(candidate)
        return Counter(known), unknown

    def _parsed(self, found: Sequence[Candidate], lines: Lines) -> Iterator[list[tuple[Candidate, Event]]]:
        """The events of the candidates; at the end the parser is left as if it had read every line."""
        block, parser, context, logsource = lines.block, lines.parser, lines.context, lines.logsource
        parse = parser.parse
        ahead = parser.ahead(block, context) if isinstance(parser, AheadReader) else None
        skip = _Skipper(parser, block, context, all_matter=context.year is not None and lines.form.is_closed)
        for first in range(0, len(found), PORTION):
            parsed: list[tuple[Candidate, Event]] = []
            event_of = None if ahead is None else ahead.event_of
            portion = found[first : first + PORTION]
            read = repeat(None) if ahead is None else ahead.read(portion)
            for candidate, one in zip(portion, read, strict=False):
                start, end, _, _, _ = candidate
                if start > skip.at:
                    skip.until(start)
                skip.at = end
                if one is not None and event_of is not None:
                    parsed.append((candidate, event_of(one)))
                    continue
                for event in parse(line_of(block, start, end), context):
                    parsed.append((candidate, event))  # noqa: PERF401  # a comprehension for one event takes longer
            if logsource is not None:
                parsed = [(candidate, relocated(event, logsource)) for candidate, event in parsed]
            yield parsed
        if len(block.data) > skip.at:
            skip.until(len(block.data))
        skip.settle()

    def scope(self, logsource: LogSource | None) -> Scope:
        """Which rules a source is for."""
        return Scope(logsource, self.detector.any_logsource)

    def _judged(self, candidate: Candidate, event: Event, *, is_json: bool) -> Sequence[int]:
        """Those of the candidate rules that the event satisfies, of its own log source alone; EVERY: of all rules."""
        _, _, rules, is_judged, _ = candidate
        source = event.logsource
        # a dirty line may be of a source that lines of this form never are (JSON among syslog)
        among = self.detector.positions(source) if rules is None else self.detector.meant(rules, source)
        if is_judged or not among:
            return among
        judge = self.selector.judge
        if is_json or rules is None:
            return judge.satisfied(among, event)
        return judge.of_text(among, event)

    def _compare(self, event: Event, before: Candidate | None, *, is_json: bool) -> None:
        if before is not None and before[2] is EVERY:
            return
        verdict = () if before is None else self._judged(before, event, is_json=is_json)
        self.sampler.compare(self.detector.matching(event), self.detector.matching(event, judged=verdict))


@dataclass(slots=True)
class _Skipper:
    """Where a parser stands in a block."""

    parser: Parser
    block: Block
    context: ParseContext
    all_matter: bool
    """The parser counts years on from line to line: it has to read every line."""
    at: int = 0
    start: int = 0
    stop: int = 0
    """Between these nothing was read, after the memory was as saved."""
    saved: Saved = (None, None)

    def until(self, stop: int) -> None:
        """The lines up to there, which is further on, are not read."""
        if self.all_matter:
            for line in lines_of(self.block, self.at, stop):
                self.parser.parse(line, self.context)
            self.at = stop
            return
        saved = self.parser.memory.forget(self.recall)
        if saved is not None:
            self.start, self.saved = self.at, saved
        self.at = self.stop = stop

    def recall(self) -> None:
        """Leave the parser's memory as if it had read the lines."""
        Skipped(self.parser, self.block, self.context, self.start, self.stop, self.saved).recall()

    def settle(self) -> None:
        """Leave the block behind: what its last lines said is remembered now."""
        if self.stop and not self.parser.memory.is_whole:
            self.recall()


def relocated(event: Event, logsource: LogSource) -> Event:
    """The same event, of another log source."""
    return Event(id=event.id, at_utc=event.at_utc, logsource=logsource, fields=event.fields, raw=event.raw)
