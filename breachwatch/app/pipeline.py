"""The spine, read first: what a watcher saw becomes events, matches and signals.

watch -> **parse -> detect -> signals** on the host; hub.py takes the signals from there. `scan` and the agent run the
very same code, so what a scan finds is what the daemon finds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from hashlib import blake2b

from breachwatch.detect.engine import Detector
from breachwatch.model import Block, Event, FileChange, Gap, LogSource, Match, RawLine, Signal, SignalKind
from breachwatch.parse import Assembler, ParseContext, Parser, event_from_change, event_from_gap, parser_for

MAX_PEERS = 1_024
"""Senders whose last message is remembered: UDP senders may claim any address."""

Seen = Block | RawLine | FileChange | Gap


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFormat:
    """How the lines of one configured source are read."""

    format: str = "auto"
    tz: tzinfo = UTC
    year: int | None = None
    logsource: LogSource | None = None
    """Overrides what the format implies (`scan --logsource`)."""


@dataclass(slots=True)
class Pipeline:
    """Parse and detect for one host. Pure but for the parsers' and the detector's memory of earlier lines."""

    host: str
    detector: Detector
    now: Callable[[], datetime]
    events: int = 0
    lines: int = 0
    _parsers: dict[tuple[str, str], Parser] = field(default_factory=dict)
    _assemblers: dict[tuple[str, str], Assembler] = field(default_factory=dict)
    """Parsers that may hold lines of unfinished events."""
    _holding: dict[tuple[str, str], tuple[Assembler, SourceFormat]] = field(default_factory=dict)
    """Those that do: few, however many logs there are."""
    _peers: dict[tuple[str, str], None] = field(default_factory=dict)
    """Parsers of senders on the network, oldest first."""
    _released: list[Event] = field(default_factory=list)
    """Events that a forgotten sender left unfinished."""

    def parse(self, seen: Seen, how: SourceFormat) -> Iterable[Event]:
        """The events of one thing seen; never raises on data."""
        if isinstance(seen, FileChange):
            return (event_from_change(seen, host=self.host),)
        if isinstance(seen, Gap):
            return (event_from_gap(seen, host=self.host),)
        if isinstance(seen, Block):
            return (event for line in seen.lines() for event in self.parse(line, how))
        self.lines += 1
        key = how.format, _origin(seen)
        parser = self._parsers.get(key)
        if parser is None:
            parser = self._new_parser(key, how)
        context = ParseContext(host=self.host, reference_utc=self.now(), tz=how.tz, year=how.year)
        events = parser.parse(seen, context)
        assembler = self._assemblers.get(key)
        if assembler is not None and assembler.is_holding:
            self._holding[key] = assembler, how
        if how.logsource is None:
            return events
        return [_with_logsource(event, how.logsource) for event in events]

    def _new_parser(self, key: tuple[str, str], how: SourceFormat) -> Parser:
        parser = self._parsers[key] = parser_for(how.format)
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

    def matches(self, seen: Seen, how: SourceFormat) -> Iterator[tuple[Event, list[Match]]]:
        """Each event of one thing seen with what it made match."""
        yield from self._fed(self.parse(seen, how))

    def late_matches(self, *, everything: bool = False) -> Iterator[tuple[Event, list[Match]]]:
        """The same for events whose last line came a while ago, or (at the end) for all that are unfinished."""
        released, self._released = self._released, []
        yield from self._fed(released)
        for key, (assembler, how) in list(self._holding.items()):
            yield from self._fed(self._flushed(assembler, how, everything=everything))
            if not assembler.is_holding:
                del self._holding[key]

    def _flushed(self, assembler: Assembler, how: SourceFormat, *, everything: bool) -> Sequence[Event]:
        context = ParseContext(host=self.host, reference_utc=self.now(), tz=how.tz, year=how.year)
        events = assembler.flush(context, everything=everything)
        return events if how.logsource is None else [_with_logsource(event, how.logsource) for event in events]

    def _fed(self, events: Iterable[Event]) -> Iterator[tuple[Event, list[Match]]]:
        for event in events:
            self.events += 1
            yield event, self.detector.feed(event)

    def signals(self, seen: Seen, how: SourceFormat) -> Iterator[Signal]:
        """What the hub has to hear of one thing seen."""
        if isinstance(seen, Gap):
            yield gap_signal(seen, self.host)
        for _event, matches in self.matches(seen, how):
            yield from self._told(matches)

    def late_signals(self) -> Iterator[Signal]:
        """What the hub has to hear of events that are whole by now."""
        for _event, matches in self.late_matches():
            yield from self._told(matches)

    def _told(self, matches: Iterable[Match]) -> Iterator[Signal]:
        for match in matches:
            yield Signal(id=match.id, kind=SignalKind.MATCH, at_utc=match.event.at_utc, host=self.host, match=match)

    # -- across a restart -----------------------------------------------------------------------------------------

    def unfinished(self) -> list[tuple[str, RawLine]]:
        """(format, line) of everything that waits for the rest of its event: belongs to the offsets read so far."""
        return [(name, line) for (name, _), (assembler, _) in self._holding.items() for line in assembler.waiting]

    def restore(self, unfinished: Iterable[tuple[str, RawLine]]) -> None:
        """Hold these lines again; their offsets were stored as read."""
        for name, line in unfinished:
            key = name, _origin(line)
            how = SourceFormat(format=name)
            parser = self._parsers.get(key) or self._new_parser(key, how)
            parser.parse(line, ParseContext(host=self.host, reference_utc=self.now()))
            if key in self._assemblers:
                self._holding[key] = self._assemblers[key], how


def _origin(line: RawLine) -> str:
    """One memory per file, and per sender whatever port it uses: nobody continues another's `message repeated`."""
    return f"{line.source}\0{line.peer.rpartition(':')[0]}" if line.peer else line.source


def gap_signal(gap: Gap, host: str) -> Signal:
    """A gap record on its way to the audit trail."""
    identity = f"{host}\0{gap.source}\0{gap.reason}\0{gap.at_utc.isoformat()}\0{gap.lost_bytes}\0{gap.detail}"
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


def _with_logsource(event: Event, logsource: LogSource) -> Event:
    return Event(id=event.id, at_utc=event.at_utc, logsource=logsource, fields=event.fields, raw=event.raw)
