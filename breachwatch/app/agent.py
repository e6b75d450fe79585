"""The agent: reads every source of this host, detects, and commits matches with the offsets they came from.

Runs as its own process (`python -m breachwatch.app.agent`), takes its settings as JSON on standard input, and never
imports the hub's libraries: it has to stay small. Under `breachwatch run` it gives up the network where it may.
"""

from __future__ import annotations

import ctypes
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec

from breachwatch.app.clock import SystemClock
from breachwatch.app.pipeline import Pipeline, SourceFormat, daemon_signal, heartbeat_signal
from breachwatch.app.rules import rules_in
from breachwatch.app.state import ALIVE_EVERY_S, StateLayout, prepare_state, write_alive
from breachwatch.app.wake import poke
from breachwatch.detect.engine import Detector
from breachwatch.detect.load import RuleSet
from breachwatch.errors import BreachWatchError
from breachwatch.model import Signal
from breachwatch.ports import Clock
from breachwatch.store.agent import SqliteAgentStore
from breachwatch.watch.files import LogFiles
from breachwatch.watch.integrity import Integrity
from breachwatch.watch.journal import Journal
from breachwatch.watch.source import Source
from breachwatch.watch.wake import LogWake

POLL_S = 1.0
"""How long the agent sleeps at most when no kernel event wakes it (network file systems send none)."""

BATCH_BYTES = 1 << 20
"""Read per source and commit; bounds memory and the work a crash repeats."""

HEARTBEAT_S = 60.0
"""How often the hub and the fleet hear that this host is watched."""

CLONE_NEWNET = 0x40000000
"""unshare(2): a network namespace of its own, that is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """One configured log: path or glob, and how to read it."""

    path: str
    format: str = "auto"
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
    integrity: bool = False
    integrity_paths: tuple[str, ...] = ()
    integrity_exclude: tuple[str, ...] = ()
    integrity_sweep_s: float = 300.0
    rule_folders: tuple[str, ...] = ()
    placeholders: dict[str, tuple[str, ...]] = field(default_factory=dict)
    retention_days: int = 90
    without_network: bool = False


@dataclass(slots=True)
class WatchedSource:
    """A source and how its lines are read."""

    source: Source
    how: SourceFormat


class Agent:
    """One host's watch: sources, pipeline and store."""

    def __init__(self, settings: AgentSettings, store: SqliteAgentStore, clock: Clock) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self._notes: list[Signal] = []
        self._wake = StateLayout(Path(settings.state_directory)).wake
        self._told = False
        rules = self._load_rules()
        detector = Detector(rules)
        if (saved := store.correlation_state()) is not None:
            detector.restore(saved)
        self._saved_state = saved
        self._pipeline = Pipeline(host=settings.host, detector=detector, now=clock.now)
        self._sources = self._open_sources()
        self._next_beat = 0.0
        self._next_alive = 0.0

    def _load_rules(self) -> RuleSet:
        rules = rules_in(
            [Path(folder) for folder in self._settings.rule_folders],
            cache=Path(self._settings.state_directory) / "cache",
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
        for log in settings.logs:
            files = LogFiles([log.path], known, clock=self._clock, max_line_bytes=settings.max_line_bytes)
            watched.append(WatchedSource(files, SourceFormat(format=log.format, tz=ZoneInfo(log.tz))))
        if settings.journal:
            journal = Journal(known.get("journal"), clock=self._clock, units=settings.journal_units)
            watched.append(WatchedSource(journal, SourceFormat(format="journal")))
        if settings.integrity:
            integrity = Integrity(
                settings.integrity_paths,
                settings.integrity_exclude,
                self._store,
                clock=self._clock,
                sweep_interval_s=settings.integrity_sweep_s,
            )
            watched.append(WatchedSource(integrity, SourceFormat()))
        return watched

    def note(self, action: str, detail: str) -> None:
        """Queue a statement about the daemon itself; it leaves with the next commit."""
        self._notes.append(daemon_signal(action, detail, host=self._settings.host, at_utc=self._clock.now()))

    def tick(self) -> int:
        """Poll every source once and commit what came; returns the number of things seen. Raises: StoreError."""
        seen = sum(self._tick_source(watched) for watched in self._sources)
        self._beat()
        if self._notes:
            notes, self._notes = self._notes, []
            self._store.commit(signals=notes, checkpoints=())
            self._told = True
        if self._told:
            self._told = False
            poke(self._wake)
        return seen

    def _tick_source(self, watched: WatchedSource) -> int:
        seen = 0
        signals: list[Signal] = []
        for item in watched.source.poll(BATCH_BYTES):
            seen += 1
            signals.extend(self._pipeline.signals(item, watched.how))
        progress = watched.source.progress()
        if not (seen or progress.checkpoints or progress.forgotten or progress.baseline or progress.baseline_deleted):
            return 0
        state = self._pipeline.detector.snapshot()
        self._store.commit(
            signals=signals,
            checkpoints=progress.checkpoints,
            forgotten=progress.forgotten,
            correlation_state=None if state == self._saved_state else state,
            baseline=progress.baseline,
            baseline_deleted=progress.baseline_deleted,
        )
        self._saved_state = state
        self._told = self._told or bool(signals)
        return seen

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
            )
            self._notes.append(heartbeat_signal(host=self._settings.host, at_utc=self._clock.now(), detail=detail))

    def reload_rules(self) -> None:
        """Take new rules if every file is sound, else keep the old set and say so."""
        try:
            rules = rules_in(
                [Path(folder) for folder in self._settings.rule_folders],
                cache=Path(self._settings.state_directory) / "cache",
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
        self.note("rules_reloaded", f"{len(rules.rules)} rules, {len(rules.correlations)} correlations")

    def directories(self) -> list[Path]:
        """Where log files lie, for kernel wake-ups."""
        return sorted({Path(log.path).parent for log in self._settings.logs if "*" not in str(Path(log.path).parent)})

    def close(self) -> None:
        """Release files and watches; nothing is lost, the store knows how far we came."""
        for watched in self._sources:
            watched.source.close()


def leave_network() -> bool:
    """Move this process to an empty network namespace, if it may. Source: unshare(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.unshare(CLONE_NEWNET) == 0)


def serve(settings: AgentSettings, *, stop: threading.Event, reload: threading.Event, wake: threading.Event) -> None:
    """Run until `stop`. Raises: StoreError (disk full, foreign state), ConfigError."""
    clock = SystemClock()
    layout = prepare_state(Path(settings.state_directory))
    store = SqliteAgentStore(layout.agent_db, owner=True)
    try:
        agent = Agent(settings, store, clock)
        if settings.without_network:
            isolated = leave_network()
            agent.note("network_left" if isolated else "network_kept", "network namespace of the agent")
        wake_source = LogWake(agent.directories(), wake.set)
        try:
            _loop(agent, stop=stop, reload=reload, wake=wake)
        finally:
            wake_source.close()
            agent.close()
    finally:
        store.close()


def _loop(agent: Agent, *, stop: threading.Event, reload: threading.Event, wake: threading.Event) -> None:
    while not stop.is_set():
        if reload.is_set():
            reload.clear()
            agent.reload_rules()
        wake.clear()
        if agent.tick() == 0:
            wake.wait(POLL_S)


def _on_signals(**handlers: Callable[[], None]) -> None:
    def install(number: int, handler: Callable[[], None]) -> None:
        signal.signal(number, lambda _number, _frame: handler())

    for name, handler in handlers.items():
        install(getattr(signal, name), handler)


def main() -> int:
    """Entry point of the child process: settings as JSON on standard input."""
    settings = msgspec.json.decode(sys.stdin.buffer.read(), type=AgentSettings)
    stop, reload, wake = threading.Event(), threading.Event(), threading.Event()

    def halt() -> None:
        stop.set()
        wake.set()

    def ask_reload() -> None:
        reload.set()
        wake.set()

    _on_signals(SIGTERM=halt, SIGINT=halt, SIGHUP=ask_reload)
    try:
        serve(settings, stop=stop, reload=reload, wake=wake)
    except BreachWatchError as error:
        print(f"breachwatch agent: {error}", file=sys.stderr)  # noqa: T201  # the supervisor's log
        return 3
    except Exception:  # noqa: BLE001  # supervisor boundary: leave with the trace, the parent restarts us
        traceback.print_exc()
        return 70
    return 0


if __name__ == "__main__":
    sys.exit(main())
