"""The spine, read first: what a watcher saw becomes events, matches and signals.

watch -> **parse -> detect -> signals** on the host; hub.py takes the signals from there. `scan` and the agent run the
very same code, so what a scan finds is what the daemon finds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from hashlib import blake2b
from itertools import chain, islice

from breachwatch.app.blocks import BlockReader, Found, Lines, form_of, is_settled, relocated
from breachwatch.detect.engine import Detector
from breachwatch.detect.eventscan import EventJudge
from breachwatch.detect.plan import Look, Scope
from breachwatch.detect.sample import Sampler
from breachwatch.detect.selector import PlanStore, Selector
from breachwatch.model import Block, Event, FileChange, Gap, LogSource, RawLine, Signal, SignalKind
from breachwatch.model.rawform import RawForm
from breachwatch.parse import (
    Assembler,
    ParseContext,
    Parser,
    event_from_change,
    event_from_gap,
    identity_of,
    parser_for,
)
from breachwatch.parse.skipping import line_of

MAX_PEERS = 1_024
"""Senders whose last message is remembered: UDP senders may claim any address."""

AT_ONCE = 256
"""Events that are judged together: one line may stand for a thousand."""

Seen = Block | RawLine | FileChange | Gap

Origin = tuple[str, str]
"""Format, and the file or sender that a parser reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFormat:
    """How the lines of one configured source are read."""

    format: str = "auto"
    tz: tzinfo = UTC
    year: int | None = None
    logsource: LogSource | None = None
    """Overrides what the format implies (`scan --logsource`)."""


class Pipeline:
    """Parse and detect for one host. Pure but for the parsers' and the detector's memory of earlier lines.

    Lines that come in blocks are read only where a rule could match (`prefilter`). What comes one by one, and lines
    that make up an event together, are all read; their events are judged by the rules that they could match.
    """

    def __init__(
        self,
        *,
        host: str,
        detector: Detector,
        now: Callable[[], datetime],
        prefilter: bool = True,
        selector: Selector | None = None,
        sampler: Sampler | None = None,
        plans: PlanStore | None = None,
    ) -> None:
        """`plans`: where selectors that are made here keep what they fitted."""
        self.host = host
        self.now = now
        self.sampler = sampler or Sampler()
        self._prefilter = prefilter
        self._events = 0
        self._lines = 0
        self._plans = plans
        self._judge = EventJudge()
        self._reader = BlockReader(detector, selector or Selector(detector.rules, store=plans), self.sampler)
        self._parsers: dict[Origin, Parser] = {}
        self._assemblers: dict[Origin, Assembler] = {}
        """Parsers that may hold lines of unfinished events."""
        self._holding: dict[Origin, tuple[Assembler, SourceFormat]] = {}
        """Those that do: few, however many logs there are."""
        self._peers: dict[Origin, None] = {}
        """Parsers of senders on the network, oldest first."""
        self._released: list[Event] = []
        """Events that a forgotten sender left unfinished."""

    @property
    def detector(self) -> Detector:
        """The rules in force."""
        return self._reader.detector

    @detector.setter
    def detector(self, detector: Detector) -> None:
        self._reader.detector, self._reader.selector = detector, Selector(detector.rules, store=self._plans)

    @property
    def lines(self) -> int:
        """Lines so far."""
        return self._lines + self._reader.lines

    @property
    def events(self) -> int:
        """Events so far, those of lines that no rule could match included."""
        return self._events + self._reader.events

    @property
    def candidates(self) -> int:
        """Lines of blocks that a rule could match."""
        return self._reader.candidates

    @property
    def is_prefiltering(self) -> bool:
        """False where every rule is evaluated on every event."""
        return self._prefilter and self._reader.selector.is_able

    def parse(self, seen: Seen, how: SourceFormat) -> Iterable[Event]:
        """All the events of one thing seen; never raises on data."""
        if isinstance(seen, FileChange):
            return (event_from_change(seen, host=self.host),)
        if isinstance(seen, Gap):
            return (event_from_gap(seen, host=self.host),)
        if isinstance(seen, Block):
            return self._block_events(seen, how)
        self._lines += 1
        key = how.format, _origin(seen)
        events = self._parser(key).parse(seen, self._context(how))
        self._note_holding(key, how)
        return _placed(events, how)

    def _block_events(self, block: Block, how: SourceFormat) -> Iterator[Event]:
        key = how.format, block.source
        parse, context = self._parser(key).parse, self._context(how)
        for line in block.lines():
            self._lines += 1
            yield from _placed(parse(line, context), how)
        self._note_holding(key, how)

    def _note_holding(self, key: Origin, how: SourceFormat) -> None:
        assembler = self._assemblers.get(key)
        if assembler is not None and assembler.is_holding:
            self._holding[key] = assembler, how

    def _parser(self, key: Origin) -> Parser:
        parser = self._parsers.get(key)
        return self._new_parser(key) if parser is None else parser

    def _new_parser(self, key: Origin) -> Parser:
        parser = self._parsers[key] = parser_for(key[0])
        if "\0" in key[1]:
            self._peers[key] = None
            if len(self._peers) > MAX_PEERS:
                self._forget_oldest_peer()
        if isinstance(parser, Assembler):
            self._assemblers[key] = parser
        return parser

    def _forget_oldest_peer(self) -> None:
        oldest = next(iter(self._peers))
        del self._peers[oldest], self._parsers[oldest]
        self._assemblers.pop(oldest, None)
        if (held := self._holding.pop(oldest, None)) is not None:
            self._released += self._flushed(*held, everything=True)

    def _context(self, how: SourceFormat) -> ParseContext:
        return ParseContext(host=self.host, reference_utc=self.now(), tz=how.tz, year=how.year)

    def question(self, block: Block, how: SourceFormat) -> tuple[RawForm, Scope] | None:
        """What to look for in a block, where somebody else may do that: its format is known, and lines are skipped."""
        form = form_of(self._parser((how.format, block.source))) if self.is_prefiltering else None
        return None if form is None else (form, self._reader.scope(how.logsource))

    def matches(self, seen: Seen, how: SourceFormat, look: Look | None = None) -> Iterator[Found]:
        """Each event of one thing seen with what it made match; of a block, those that could match.

        `look`: the candidates of a block, where somebody looked for what `question` said.
        """
        return chain.from_iterable(self.portions(seen, how, look))

    def portions(self, seen: Seen, how: SourceFormat, look: Look | None = None) -> Iterator[Sequence[Found]]:
        """The same, many events at a time."""
        if isinstance(seen, Block) and self.is_prefiltering:
            return self._block_portions(seen, how, look)
        return self._fed(self.parse(seen, how))

    def tally(self, seen: Seen, how: SourceFormat) -> Counter[str]:
        """How many matches each rule has, by its id: those of `matches`, for which not every line has to be parsed."""
        if not (isinstance(seen, Block) and self.is_prefiltering) or self.detector.rules.correlations:
            return by_rule(self.matches(seen, how))
        positions: Counter[int] = Counter()
        counts = by_rule(chain.from_iterable(self._block_portions(seen, how, None, positions)))
        rules = self.detector.rules.rules
        counts.update({rules[index].ref.id: count for index, count in positions.items() if rules[index].emits})
        return counts

    def late_matches(self, *, everything: bool = False) -> Iterator[Found]:
        """The same for events whose last line came a while ago, or (at the end) for all that are unfinished."""
        released, self._released = self._released, []
        yield from chain.from_iterable(self._fed(released))
        for key, (assembler, how) in list(self._holding.items()):
            yield from chain.from_iterable(self._fed(self._flushed(assembler, how, everything=everything)))
            if not assembler.is_holding:
                del self._holding[key]

    def _flushed(self, assembler: Assembler, how: SourceFormat, *, everything: bool) -> Sequence[Event]:
        return _placed(assembler.flush(self._context(how), everything=everything), how)

    def _fed(self, events: Iterable[Event]) -> Iterator[list[Found]]:
        rest = iter(events)
        while batch := list(islice(rest, AT_ONCE)):
            self._events += len(batch)
            feed = self.detector.feed
            yield self._events_fed(batch) if self.is_prefiltering else [(event, feed(event)) for event in batch]

    def _events_fed(self, events: Sequence[Event]) -> list[Found]:
        """All are judged, then all are fed; the reference judges a sample of them."""
        detector, sampler = self.detector, self.sampler
        verdicts = self._judge.satisfied(events, detector, self._reader.selector)
        found: list[Found] = []
        for event, verdict in zip(events, verdicts, strict=True):
            is_sampled = sampler.takes_event()
            if is_sampled:
                sampler.compare(detector.matching(event), detector.matching(event, judged=verdict))
            found.append((event, detector.feed(event, None if is_sampled else verdict)))
        return found

    def _block_portions(
        self, block: Block, how: SourceFormat, look: Look | None, counts: Counter[int] | None = None
    ) -> Iterator[Sequence[Found]]:
        """The same of a block, whose first lines may still have to tell the format.

        `counts`: once they have, matches are only counted, by the position of the rule.
        """
        key = how.format, block.source
        parser = self._parser(key)
        start = 0
        while start < len(block.data):
            form = form_of(parser)
            if form is not None:
                rest = block if start == 0 else block.after(start)
                lines = Lines(rest, parser, form, self._context(how), how.logsource)
                if counts is not None:
                    self._reader.count(lines, counts)
                else:
                    yield from self._reader.read(lines, look if rest is block else None)
                self._note_holding(key, how)
                return
            if is_settled(parser):
                yield from self._fed(self.parse(block if start == 0 else block.after(start), how))
                return
            end = block.data.find(b"\n", start) + 1
            yield from self.portions(line_of(block, start, end), how)
            start = end

    def signals(self, seen: Seen, how: SourceFormat, look: Look | None = None) -> Iterator[Signal]:
        """What the hub has to hear of one thing seen; `look` as for `matches`."""
        if isinstance(seen, Gap):
            yield gap_signal(seen, self.host)
        yield from match_signals(self.matches(seen, how, look), self.host)

    # -- across a restart -----------------------------------------------------------------------------------------

    @property
    def unfinished(self) -> list[tuple[str, RawLine]]:
        """(format, line) of everything that waits for the rest of its event: belongs to the offsets read so far."""
        return [(name, line) for (name, _), (assembler, _) in self._holding.items() for line in assembler.waiting]

    def restore(self, unfinished: Iterable[tuple[str, RawLine]]) -> None:
        """Hold these lines again; their offsets were stored as read."""
        for name, line in unfinished:
            key = name, _origin(line)
            how = SourceFormat(format=name)
            self._parser(key).parse(line, ParseContext(host=self.host, reference_utc=self.now()))
            if key in self._assemblers:
                self._holding[key] = self._assemblers[key], how


def by_rule(found: Iterable[Found]) -> Counter[str]:
    """How many matches each rule has, by its id."""
    return Counter(match.rule.id for _, matches in found for match in matches)


def _placed(events: Sequence[Event], how: SourceFormat) -> Sequence[Event]:
    logsource = how.logsource
    return events if logsource is None else [relocated(event, logsource) for event in events]


def _origin(line: RawLine) -> str:
    """One memory per file, and per sender whatever port it uses: nobody continues another's `message repeated`."""
    return f"{line.source}\0{line.peer.rpartition(':')[0]}" if line.peer else line.source


def match_signals(found: Iterable[Found], host: str) -> Iterator[Signal]:
    """Matches on their way to the hub."""
    for _, matches in found:
        for match in matches:
            yield Signal(id=match.id, kind=SignalKind.MATCH, at_utc=match.event.at_utc, host=host, match=match)


def gap_signal(gap: Gap, host: str) -> Signal:
    """A gap record on its way to the audit trail."""
    identity = "\0".join((host, *identity_of(gap)))
    return Signal(id="gap-" + _digest(identity), kind=SignalKind.GAP, at_utc=gap.at_utc, host=host, gap=gap)


def daemon_signal(action: str, detail: str, *, host: str, at_utc: datetime) -> Signal:
    """Something the daemon itself did or suffered, on its way to the audit trail."""
    identity = f"{host}\0{action}\0{detail}\0{at_utc.isoformat()}"
    return Signal(
        id="daemon-" + _digest(identity), kind=SignalKind.DAEMON, at_utc=at_utc, host=host, action=action, detail=detail
    )


def heartbeat_signal(*, host: str, at_utc: datetime, detail: str = "") -> Signal:
    """A sign of life."""
    return Signal(
        id="beat-" + _digest(f"{host}\0{at_utc.isoformat()}"),
        kind=SignalKind.HEARTBEAT,
        at_utc=at_utc,
        host=host,
        action="heartbeat",
        detail=detail,
    )


def _digest(identity: str) -> str:
    return blake2b(identity.encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()
