"""`breachwatch scan`: the agent's pipeline over files, archives and standard input, in log time."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import BinaryIO

from breachwatch.app.blocks import Found
from breachwatch.app.clock import SystemClock
from breachwatch.app.pipeline import Pipeline, SourceFormat, by_rule
from breachwatch.app.told import JsonObject, event_object, gap_object, rule_object
from breachwatch.detect.engine import Detector
from breachwatch.detect.ruleset import RuleSet
from breachwatch.detect.sample import Sampler
from breachwatch.detect.selector import PlanStore, Selector
from breachwatch.errors import WatchError
from breachwatch.incident.grouping import IncidentBook
from breachwatch.model import Block, Gap, Incident, LogSource, Match, RawLine, RuleRef
from breachwatch.watch.archive import read_pieces

Told = Sequence[Match] | Incident | JsonObject
"""What a scan tells: these two as they are, for there may be many; all else as `told.py` says it."""

_ROTATED = re.compile(r"^(?P<base>.+?)(?:[.-](?P<n>\d{1,8}))?(?P<gz>\.(?:gz|xz|zst|bz2))?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanOptions:
    """What the command line says about the input."""

    format: str = "auto"
    host: str = "localhost"
    tz: tzinfo = UTC
    year: int | None = None
    logsource: LogSource | None = None
    any_logsource: bool = False
    with_events: bool = False
    by_rule: bool = False
    """Keep account of what each rule costs."""
    count_only: bool = False
    """Only count the matches of each rule."""
    prefilter: bool = True
    """Read only lines that a rule may match; the matches are the same without."""
    max_line_bytes: int = 65_536


@dataclass(slots=True)
class ScanTotals:
    """What a scan counted."""

    files: int = 0
    lines: int = 0
    bytes: int = 0
    events: int = 0
    candidates: int = 0
    """Lines that the prefilter let through."""
    matches: int = 0
    gaps: int = 0
    incidents: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    rules: list[tuple[int, int, RuleRef]] = field(default_factory=list)
    """Lines that the prefilter let through for a rule, its matches, and the rule; dearest first. If asked for."""


@dataclass(slots=True)
class Scan:
    """One run over many inputs. Yields what is printed (design.md section 6)."""

    rules: RuleSet
    options: ScanOptions
    totals: ScanTotals = field(default_factory=ScanTotals)
    pause: Callable[[], None] = lambda: None
    """Called before more input is waited for: what was told so far should be on its way."""
    plans: PlanStore | None = None
    """Where fitted plans are kept from run to run."""
    _book: IncidentBook = field(default_factory=IncidentBook)
    _counts: Counter[str] = field(default_factory=Counter)
    """Matches by rule id, where they are counted."""
    _selector: Selector | None = None

    def run(self, inputs: Sequence[Path | BinaryIO]) -> Iterator[Told]:
        """Events (if asked), matches and gaps as they come; at the end incidents, or counts, and a summary.

        Raises: WatchError.
        """
        started, cpu = time.perf_counter(), time.process_time()
        self._selector = Selector(self.rules, store=self.plans)
        if self.options.by_rule:
            self._selector.looked_at = Counter()
        groups = rotation_groups(expand(inputs))
        self._book = IncidentBook(is_distinct=sum(map(len, groups)) == 1)  # copies of a file say the same again
        for group in groups:
            detector = Detector(self.rules, any_logsource=self.options.any_logsource)
            for item in group:
                yield from self._scan_one(item, detector)
        if self.options.count_only:
            yield from self._counted()
        for incident in self._book.incidents():
            self.totals.incidents += 1
            yield incident
        self.totals.seconds = time.perf_counter() - started
        self.totals.cpu_seconds = time.process_time() - cpu
        if self._selector.looked_at is not None:
            self.totals.rules = self._costs(self._selector.looked_at)
        yield self._summary()

    def _scan_one(self, item: Path | BinaryIO, detector: Detector) -> Iterator[Told]:
        options = self.options
        pipeline = Pipeline(
            host=options.host,
            detector=detector,
            now=_reference(item),
            prefilter=options.prefilter and not options.with_events,
            selector=self._selector,
            sampler=Sampler(every=0),
        )
        how = SourceFormat(format=options.format, tz=options.tz, year=options.year, logsource=options.logsource)
        self.totals.files += 1
        for seen in read_pieces(item, max_line_bytes=options.max_line_bytes, clock=SystemClock()):
            if isinstance(seen, Gap):
                yield gap_object(seen)
            before = pipeline.lines
            if options.count_only:
                self._counts.update(pipeline.tally(seen, how))
            else:
                yield from self._told(pipeline.portions(seen, how))
            self._count(seen, pipeline.lines - before)
            self.pause()
        if options.count_only:
            self._counts += by_rule(pipeline.late_matches(everything=True))
        else:
            yield from self._told((found,) for found in pipeline.late_matches(everything=True))
        self.totals.events += pipeline.events
        self.totals.candidates += pipeline.candidates

    def _count(self, seen: Block | RawLine | Gap, lines: int) -> None:
        match seen:
            case Gap():
                self.totals.gaps += 1
            case Block():
                self.totals.lines += lines
                self.totals.bytes += len(seen.data) - lines
            case RawLine():
                self.totals.lines += 1
                self.totals.bytes += seen.length_bytes or len(seen.data)

    def _told(self, portions: Iterable[Sequence[Found]]) -> Iterator[Told]:
        add_all = self._book.add_all
        for portion in portions:
            matches = [match for _, made in portion for match in made]
            self.totals.matches += len(matches)
            if self.options.by_rule:
                self._counts.update(match.rule.id for match in matches)
            add_all(matches)
            if not self.options.with_events:
                yield matches
                continue
            for event, made in portion:
                yield {"kind": "event", **event_object(event)}
                yield made

    def _counted(self) -> Iterator[JsonObject]:
        """Rules with matches that were only counted, those with most first."""
        refs = {rule.ref.id: rule.ref for rule in self.rules.rules}
        refs |= {rule.ref.id: rule.ref for rule in self.rules.correlations}
        for rule_id, matches in self._counts.most_common():
            self.totals.matches += matches
            yield {"kind": "count", **rule_object(refs[rule_id]), "matches": matches}

    def _costs(self, looked_at: Counter[int]) -> list[tuple[int, int, RuleRef]]:
        refs = [(rule.ref, looked_at[position]) for position, rule in enumerate(self.rules.rules)]
        costs = [(looked, self._counts[ref.id], ref) for ref, looked in refs if looked or self._counts[ref.id]]
        return sorted(costs, key=lambda cost: (-cost[0], -cost[1], cost[2].id))

    def _summary(self) -> JsonObject:
        totals = self.totals
        return {
            "kind": "summary",
            "files": totals.files,
            "lines": totals.lines,
            "bytes": totals.bytes,
            "events": totals.events,
            "matches": totals.matches,
            "incidents": totals.incidents,
            "gaps": totals.gaps,
            "rules": len(self.rules.rules) + len(self.rules.correlations),
            "rules_refused": len(self.rules.refused),
            "seconds": round(totals.seconds, 3),
        }


def expand(inputs: Iterable[Path | BinaryIO]) -> Iterator[Path | BinaryIO]:
    """Folders become the files below them, in order. Raises: WatchError."""
    for item in inputs:
        if not isinstance(item, Path):
            yield item
        elif item.is_dir():
            yield from sorted(file for file in item.rglob("*") if file.is_file() and not file.is_symlink())
        elif item.exists():
            yield item
        else:
            raise WatchError("no such file or folder", source=str(item), hint="check the path; `-` reads stdin")


def rotation_groups(inputs: Iterable[Path | BinaryIO]) -> list[list[Path | BinaryIO]]:
    """Files of one log, rotated ones included, oldest first: windows may span a rotation, but never two logs."""
    groups: dict[tuple[object, str], list[tuple[int, Path | BinaryIO]]] = {}
    for item in inputs:
        if not isinstance(item, Path):
            groups.setdefault((item, ""), []).append((0, item))
            continue
        named = _ROTATED.match(item.name)
        base, number = (named["base"], named["n"]) if named else (item.name, None)
        groups.setdefault((item.parent, base), []).append((_age_rank(number), item))
    return [[item for _, item in sorted(group, key=lambda pair: pair[0])] for group in groups.values()]


def _age_rank(number: str | None) -> int:
    """Ascending is older first: auth.log.2 before auth.log.1 before auth.log; log-20260101 before log-20260102."""
    if number is None:
        return 10**12
    return int(number) if len(number) == len("20260101") else -int(number)


def _reference(item: Path | BinaryIO) -> Callable[[], datetime]:
    """The newest instant a line of this input can have: a file's last change, or now."""
    if not isinstance(item, Path):
        return SystemClock().now
    changed = datetime.fromtimestamp(item.stat().st_mtime, UTC)
    return lambda: changed
