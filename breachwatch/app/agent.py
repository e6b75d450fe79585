"""The agent: reads every source of this host, detects, and commits matches with the offsets they came from.

Runs as its own process (`python -m breachwatch.app.agent`), takes its settings as JSON on standard input, and never
imports the hub's libraries: it has to stay small. Under `breachwatch run` it gives up the network where it may.
"""

from __future__ import annotations

import ctypes
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec

from breachwatch.app.clock import SystemClock
from breachwatch.app.crew import Crew
from breachwatch.app.integrity import open_integrity
from breachwatch.app.looker import Looker
from breachwatch.app.memory import give_back, prepare_for_many_lines
from breachwatch.app.pipeline import Pipeline, Seen, SourceFormat, daemon_signal, heartbeat_signal, match_signals
from breachwatch.app.process import Asked
from breachwatch.app.rule_cache import PlanFiles
from breachwatch.app.rules import rules_in
from breachwatch.app.state import ALIVE_EVERY_S, StateLayout, prepare_state, write_alive
from breachwatch.app.wake import poke
from breachwatch.detect.engine import Detector
from breachwatch.detect.ruleset import RuleSet
from breachwatch.errors import BreachWatchError, StoreError
from breachwatch.model import Block, RawLine, Signal
from breachwatch.ports import Clock
from breachwatch.store.agent import SqliteAgentStore
from breachwatch.watch.files import Claims, LogFiles, LogSpec
from breachwatch.watch.framing import Framing
from breachwatch.watch.integrity import Integrity, Options
from breachwatch.watch.journal import Journal
from breachwatch.watch.names import folders
from breachwatch.watch.source import Progress, Source
from breachwatch.watch.syslog import ListenSpec
from breachwatch.watch.wake import Wake

POLL_S = 1.0
"""How long the agent sleeps at most when no kernel event wakes it (network file systems send none)."""

BATCH_BYTES = 1 << 20
"""Read per source and commit; bounds memory and the work a crash repeats."""

COMMIT_S = 1.0
"""How often progress without a match is stored."""

HEARTBEAT_S = 60.0
"""How often the hub and the fleet hear that this host is watched."""

SAID = frozenset({"rule_refused", "rules_kept"})
"""Statements that the operator has to read in words: the audit trail keeps their hash only."""

IDLE_WAKES = 3
IDLE_PAUSE_S = 0.02
"""A neighbour that writes all the time must not keep the agent looking at logs that do not grow."""

RELEASE_S = 5.0
"""How long memory that compiling a plan or a burst of lines left behind may be kept from the system."""

CLONE_NEWNET = 0x40000000
"""unshare(2): a network namespace of its own, that is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """One configured log: path or glob, and how to read it."""

    path: str
    format: str = "auto"
    tz: str = "UTC"
    exclude: tuple[str, ...] = ()
    rotated: tuple[str, ...] = ()
    encoding: str = "auto"
    record_start: str = ""
    from_start: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SyslogSettings:
    """One address that is listened to, and how messages are read."""

    listen: ListenSpec
    format: str = "syslog"
    tz: str = "UTC"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """All an agent needs to know, as plain values."""

    state_directory: str
    host: str
    logs: tuple[LogSettings, ...] = ()
    max_line_bytes: int = 65_536
    journal: bool = False
    journal_units: tuple[str, ...] = ()
    syslog: tuple[SyslogSettings, ...] = ()
    integrity: Options | None = None
    processes: int = 0
    """Processes that may look through busy logs."""
    rule_folders: tuple[str, ...] = ()
    placeholders: dict[str, tuple[str, ...]] = field(default_factory=dict)
    without_network: bool = False


@dataclass(slots=True)
class WatchedSource:
    """A source and how its lines are read."""

    source: Source
    how: SourceFormat


class Agent:
    """One host's watch: sources, pipeline and store."""

    def __init__(
        self,
        settings: AgentSettings,
        store: SqliteAgentStore,
        clock: Clock,
        *,
        notify: Callable[[], None] | None = None,
        on_open: Callable[[int], None] = lambda _descriptor: None,
    ) -> None:
        """`on_open` is told of every descriptor that something may come from. Raises: WatchError, StoreError."""
        self._on_open = on_open
        self._settings = settings
        self._layout = StateLayout(Path(settings.state_directory))
        self._notify = notify
        self._integrity: Integrity | None = None
        self._anchored = 0
        self._store = store
        self._clock = clock
        self._notes: list[Signal] = []
        self._signals: list[Signal] = []
        self._next_commit = 0.0
        self._wake = self._layout.wake
        self._told = False
        self._alarmed: set[str] = set()
        rules = self._load_rules()
        detector = Detector(rules)
        plans = PlanFiles(self._cache)
        self._pipeline = Pipeline(host=settings.host, detector=detector, now=clock.now, plans=plans)
        self._saved_state = store.correlation_state()
        if self._saved_state is not None:
            correlations, unfinished = unpacked_state(self._saved_state)
            detector.restore(correlations)
            self._pipeline.restore(unfinished)
        if not self._pipeline.is_prefiltering:
            self.note("prefilter_absent", "neither hyperscan nor ahocorasick_rs is installed: every line is read")
        self.crew = Crew(settings.processes, start=self._start_looker, monotonic=clock.monotonic, note=self.note)
        self._sources = self._open_sources()
        self._next_beat = 0.0
        self._next_release = self._clock.monotonic() + RELEASE_S
        self._released = (0, 0)
        self._next_alive = 0.0

    @property
    def _cache(self) -> Path:
        return Path(self._settings.state_directory) / "cache"

    def _load_rules(self) -> RuleSet:
        rules = rules_in(
            [Path(folder) for folder in self._settings.rule_folders],
            cache=self._cache,
            placeholders=self._settings.placeholders,
            apart=True,
        )
        for refused in rules.refused:
            self.note("rule_refused", str(refused))
        self.note("rules_loaded", f"{len(rules.rules)} rules, {len(rules.correlations)} correlations")
        return rules

    def _open_sources(self) -> list[WatchedSource]:
        settings, known = self._settings, self._store.checkpoints()
        watched: list[WatchedSource] = []
        claims: Claims = {}
        for log in settings.logs:
            files = LogFiles(_spec(log, settings.max_line_bytes), known, clock=self._clock, claims=claims)
            watched.append(WatchedSource(files, SourceFormat(format=log.format, tz=ZoneInfo(log.tz))))
        if settings.journal:
            journal = Journal(
                known.get("journal"), clock=self._clock, units=settings.journal_units, on_open=self._on_open
            )
            watched.append(WatchedSource(journal, SourceFormat(format="journal")))
        for syslog in settings.syslog:
            listener = _listener(syslog.listen, self._clock, self._on_open)
            watched.append(WatchedSource(listener, SourceFormat(format=syslog.format, tz=ZoneInfo(syslog.tz))))
        if settings.integrity is not None:
            self._integrity = open_integrity(
                settings.integrity, self._store, self._clock, self._layout, notify=self._notify
            )
            watched.append(WatchedSource(self._integrity, SourceFormat()))
        return watched

    @property
    def next_due_s(self) -> float:
        """How long to wait for a kernel event at most."""
        due = None if self._integrity is None else self._integrity.next_due_s
        return POLL_S if due is None else min(POLL_S, due)

    def note(self, action: str, detail: str) -> None:
        """Queue a statement about the daemon itself; it leaves with the next commit. What was refused is said too."""
        if action in SAID:
            print(f"breachwatch agent: {action}: {detail}", file=sys.stderr, flush=True)  # noqa: T201  # its log
        self._notes.append(daemon_signal(action, detail, host=self._settings.host, at_utc=self._clock.now()))

    def tick(self) -> int:
        """Poll every source once; returns the number of things seen, 0 where nothing is left. Raises: StoreError.

        Matches are committed at once, with the state of correlations and how far every source was read. Where nothing
        matched only that moves on, and it is stored once a second: a crash reads those lines again, to the same end.
        """
        seen = self._look()
        self._signals.extend(match_signals(self._pipeline.late_matches(), self._pipeline.host))
        self._beat()
        self._release()
        self._tell_differences()
        is_full = self._integrity is not None and self._integrity.is_full
        if self._signals or is_full or self._clock.monotonic() >= self._next_commit:
            self.commit()
        if self._notes:
            notes, self._notes = self._notes, []
            self._store.commit(signals=notes, checkpoints=())
            self._told = True
        if self._told:
            self._told = False
            poke(self._wake)
        return seen or int(self._is_behind())

    def _is_behind(self) -> bool:
        """Whether a log has more than one poll takes, even if nothing came of it: a line of gigabytes, for one."""
        return any(isinstance(one.source, LogFiles) and one.source.is_behind() for one in self._sources)

    def _look(self) -> int:
        """Poll every source once; those with a process of their own are worked on while the others are read."""
        seen, batches = 0, []
        for number, watched in enumerate(self._sources, 1):
            label = f"{watched.source.name} (source {number})"  # two entries may have the same path
            if self.crew.has(label):
                items = list(watched.source.poll(BATCH_BYTES))
                batches.append(self.crew.batch(label, items, self._pipeline, watched.how))
                count, size_bytes = len(items), sum(map(_size, items))
            else:
                count, size_bytes = self._read(watched)
            seen += count
            self.crew.took(label, is_full=size_bytes >= BATCH_BYTES // 2)
        for batch in batches:
            self._signals.extend(batch.signals())
        return seen

    def _read(self, watched: WatchedSource) -> tuple[int, int]:
        """Poll a source and work on what it has; the number of things, and the bytes of lines among them."""
        count = size_bytes = 0
        for item in watched.source.poll(BATCH_BYTES):
            count += 1
            size_bytes += _size(item)
            self._signals.extend(self._pipeline.signals(item, watched.how))
        return count, size_bytes

    def _start_looker(self) -> Looker:
        return Looker(self._pipeline.detector.rules, str(self._cache))

    def commit(self) -> None:
        """Store what was found, and how far that came, in one transaction. Raises: StoreError."""
        self._next_commit = self._clock.monotonic() + COMMIT_S
        progress = [watched.source.progress() for watched in self._sources]
        checkpoints = [item for moved in progress for item in moved.checkpoints]
        forgotten = [key for moved in progress for key in moved.forgotten]
        files = next((moved for moved in progress if moved.baseline is not None), Progress())
        if not (self._signals or checkpoints or forgotten or files.baseline):
            return
        state = packed_state(self._pipeline.detector.snapshot(), self._pipeline.unfinished)
        signals, self._signals = self._signals, []
        self._store.commit(
            signals=signals,
            checkpoints=checkpoints,
            forgotten=forgotten,
            correlation_state=None if state == self._saved_state else state,
            baseline=files.baseline,
            sealer=files.sealer,
        )
        self._saved_state = state
        self._told = self._told or bool(signals)

    def _beat(self) -> None:
        now_s = self._clock.monotonic()
        if now_s >= self._next_alive:
            self._next_alive = now_s + ALIVE_EVERY_S
            write_alive(StateLayout(Path(self._settings.state_directory)).alive("agent"), self._clock.now())
        if now_s >= self._next_beat:
            self._next_beat = now_s + HEARTBEAT_S
            detector = self._pipeline.detector
            detail = (
                f"lines={self._pipeline.lines} events={self._pipeline.events}"
                f" evictions={detector.evictions} late={detector.late}"
                f" candidates={self._pipeline.candidates} sampled={self._pipeline.sampler.lines}"
                f" differences={self._pipeline.sampler.differences}"
            )
            if self._integrity is not None:
                detail += f" integrity: {self._integrity.status()}"
                self._anchor()
            self._notes.append(heartbeat_signal(host=self._settings.host, at_utc=self._clock.now(), detail=detail))

    def _release(self) -> None:
        """Give freed memory back now and then, where something was read since: the C library keeps it by itself."""
        now_s = self._clock.monotonic()
        done = self._pipeline.lines, 0 if self._integrity is None else self._integrity.looked_at
        if now_s >= self._next_release and done != self._released:
            self._next_release, self._released = now_s + RELEASE_S, done
            give_back()

    def _anchor(self) -> None:
        """Tell the hub the baseline's head: an older or foreign baseline on this host then shows elsewhere."""
        head = self._store.baseline.head()
        if head is not None and head.counter != self._anchored:
            self._anchored = head.counter
            detail = f"counter={head.counter} root={head.root.hex()} chain={head.chain.hex()}"
            self.note("baseline_head", detail)

    def _tell_differences(self) -> None:
        """An alarm for each rule on which engine and reference differ in a sampled line; there the reference counts."""
        for rule in self._pipeline.sampler.wrong.keys() - self._alarmed:
            self._alarmed.add(rule)
            self.note("engine_differs", f"rule {rule}: engine and reference differ; report this as an error")

    def reload_rules(self) -> None:
        """Take new rules if every file is sound, else keep the old set and say so."""
        try:
            rules = rules_in(
                [Path(folder) for folder in self._settings.rule_folders],
                cache=self._cache,
                placeholders=self._settings.placeholders,
                apart=True,
            )
        except BreachWatchError as error:
            self.note("rules_kept", str(error))
            return
        if rules.refused:
            self.note("rules_kept", "; ".join(str(refused) for refused in rules.refused[:5]))
            return
        detector = Detector(rules)
        detector.restore(self._pipeline.detector.snapshot())
        self._pipeline.detector = detector
        self.crew.close()
        self.note("rules_reloaded", f"{len(rules.rules)} rules, {len(rules.correlations)} correlations")

    def names_changed(self) -> None:
        """Files came, went or were renamed: look now."""
        for watched in self._sources:
            if isinstance(watched.source, LogFiles):
                watched.source.hint()

    def grew(self, paths: set[str]) -> None:
        """These logs were written to: read them first. All are looked at now and then whatever the kernel says."""
        for watched in self._sources:
            if isinstance(watched.source, LogFiles):
                watched.source.grew(paths)

    def folders(self) -> set[Path]:
        """Where log files lie now, for kernel wake-ups."""
        return {folder for log in self._settings.logs for folder in folders(log.path)}

    def close(self) -> None:
        """Release files, watches and processes; nothing is lost, the store knows how far we came."""
        self.crew.close()
        for watched in self._sources:
            watched.source.close()


def _size(item: Seen) -> int:
    return len(item.data) if isinstance(item, Block) else 0


STATE_MARK = b"BW2"
"""A snapshot with lines of unfinished events before that of the correlations; without it, it is the latter alone."""

_unfinished_decoder = msgspec.msgpack.Decoder(tuple[list[tuple[str, RawLine]], bytes])


def packed_state(correlations: bytes, unfinished: list[tuple[str, RawLine]]) -> bytes:
    """What has to be known beside the offsets: what correlations count, and lines that wait for the rest of theirs."""
    return STATE_MARK + msgspec.msgpack.encode((unfinished, correlations)) if unfinished else correlations


def unpacked_state(stored: bytes) -> tuple[bytes, list[tuple[str, RawLine]]]:
    """The reverse. Raises: StoreError."""
    if not stored.startswith(STATE_MARK):
        return stored, []
    try:
        unfinished, correlations = _unfinished_decoder.decode(stored[len(STATE_MARK) :])
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise StoreError(f"the agent's state is damaged: {error}", source="correlation") from error
    return correlations, unfinished


def _listener(spec: ListenSpec, clock: Clock, on_open: Callable[[int], None]) -> Source:
    """Loaded only where it is asked for: TLS libraries take memory."""
    if spec.protocol == "udp":
        from breachwatch.watch.syslog import UdpSyslog

        return UdpSyslog(spec, clock=clock, on_open=on_open)
    from breachwatch.watch.syslog_stream import StreamSyslog

    return StreamSyslog(spec, clock=clock, on_open=on_open)


def _spec(log: LogSettings, max_line_bytes: int) -> LogSpec:
    return LogSpec(
        pattern=log.path,
        exclude=log.exclude,
        rotated=log.rotated,
        framing=Framing(log.encoding, log.record_start),
        from_start=log.from_start,
        max_line_bytes=max_line_bytes,
    )


def leave_network() -> bool:
    """Move this process to an empty network namespace, if it may. Source: unshare(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.unshare(CLONE_NEWNET) == 0)


def serve(settings: AgentSettings, *, asked: Asked, wake: Wake) -> None:
    """Run until asked to stop. Raises: StoreError (disk full, foreign state), ConfigError."""
    clock = SystemClock()
    layout = prepare_state(Path(settings.state_directory))
    allow_many_files()
    store = SqliteAgentStore(layout.agent_db, owner=True)
    try:
        agent = Agent(settings, store, clock, notify=wake.set, on_open=wake.listen)
        if settings.without_network:
            isolated = leave_network()
            agent.note("network_left" if isolated else "network_kept", "network namespace of the agent")
        try:
            _loop(agent, asked=asked, wake=wake)
            agent.tick()  # what senders have handed over already
            agent.commit()
        finally:
            agent.close()
    finally:
        store.close()


def allow_many_files() -> None:
    """Raise the soft limit of open files as far as the hard one: every watched log is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _loop(agent: Agent, *, asked: Asked, wake: Wake) -> None:
    unwatched: dict[Path, str] = {}
    idle = 0
    while not asked.stop:
        if asked.reload:
            asked.reload = False
            agent.reload_rules()
        if wake.names_changed:
            wake.names_changed = False
            agent.names_changed()
            failed = wake.watch(agent.folders())
            for folder in failed.keys() - unwatched.keys():
                agent.note("folder_polled", f"{folder}: {failed[folder]}; it is looked at every {POLL_S:.0f} s")
            unwatched = failed
        agent.grew(wake.take_grown())
        if agent.tick():
            idle = 0
            wake.wait(0)  # what the kernel said meanwhile
        else:
            # neighbours of a log may be busy: after a few wakes for nothing, wait a little for the next
            idle = idle + 1 if wake.wait(agent.next_due_s) else 0
            if idle > IDLE_WAKES:
                time.sleep(IDLE_PAUSE_S)


def _on_signals(**handlers: Callable[[], None]) -> None:
    def install(number: int, handler: Callable[[], None]) -> None:
        signal.signal(number, lambda _number, _frame: handler())

    for name, handler in handlers.items():
        install(getattr(signal, name), handler)


def main() -> int:
    """Entry point of the child process: settings as JSON on standard input."""
    prepare_for_many_lines()
    settings = msgspec.json.decode(sys.stdin.buffer.read(), type=AgentSettings)
    asked, wake = Asked(), Wake()

    def halt() -> None:
        asked.stop = True
        wake.set()

    def ask_reload() -> None:
        asked.reload = True
        wake.set()

    _on_signals(SIGTERM=halt, SIGINT=halt, SIGHUP=ask_reload)
    try:
        serve(settings, asked=asked, wake=wake)
    except BreachWatchError as error:
        print(f"breachwatch agent: {error}", file=sys.stderr)  # noqa: T201  # the supervisor's log
        return 3
    except Exception:  # noqa: BLE001  # supervisor boundary: leave with the trace, the parent restarts us
        traceback.print_exc()
        return 70
    return 0


if __name__ == "__main__":
    sys.exit(main())
