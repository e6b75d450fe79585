"""`breachwatch run`: agent and hub as two child processes, restarted with back-off when they die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from breachwatch.app.clock import SystemClock
from breachwatch.app.pipeline import daemon_signal
from breachwatch.app.process import die_with_parent
from breachwatch.app.state import ALIVE_EVERY_S, StateLayout, hold_lock, prepare_state, write_alive
from breachwatch.app.systemd import sd_notify
from breachwatch.errors import BreachWatchError, StoreError
from breachwatch.model import Signal
from breachwatch.ports import Clock
from breachwatch.store.agent import SqliteAgentStore
from breachwatch.watch.wake import Wake

BACK_OFF_S = (1.0, 2.0, 5.0, 15.0, 60.0)
"""Waits between restarts of a child that keeps dying; the last one repeats."""

STEADY_S = 60.0
"""A child that lived this long starts again with the shortest wait."""

STOP_GRACE_S = 20.0
"""How long a child may take to finish its transaction after SIGTERM before it is killed."""

CONFIGURATION_EXITS = (2,)
"""Exit codes that a restart cannot mend. They end the daemon only while a child has never run: a file that somebody
breaks later must not stop the other child from watching."""

PROVEN_S = 5.0
"""A child that lived this long once was configured rightly."""

MAX_UNRECORDED = 1_000
"""Statements kept in memory while the state cannot be written; beyond them the oldest are only in the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """How to start one child."""

    name: str
    command: tuple[str, ...]
    stdin: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorSettings:
    """All a supervisor needs to know, as plain values."""

    state_directory: str
    host: str
    specs: tuple[ChildSpec, ...]


@dataclass(slots=True)
class Child:
    """One supervised process and its history."""

    spec: ChildSpec
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    restart_at: float | None = 0.0
    crashes: int = 0
    proven: bool = False

    def start(self, now_s: float) -> None:
        """Spawn it and hand over its settings. Raises: OSError (no process or memory left); the next is scheduled."""
        self.started_at = now_s
        self._schedule(now_s)
        self.process = subprocess.Popen(
            self.spec.command,
            stdin=subprocess.PIPE,
            preexec_fn=die_with_parent,  # noqa: PLW1509  # only prctl: async-signal-safe
        )
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it died before it read them; its exit code says why
            self.process.stdin.write(self.spec.stdin)
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.restart_at = None
        self.crashes -= 1

    def _schedule(self, now_s: float) -> None:
        """When it starts again: after a wait that grows with every crash in a row."""
        self.restart_at = now_s + BACK_OFF_S[min(self.crashes, len(BACK_OFF_S) - 1)]
        self.crashes += 1

    def died(self, now_s: float) -> int | None:
        """Its exit code if it has just ended; schedules the restart."""
        if self.process is None or self.restart_at is not None:
            return None
        code = self.process.poll()
        if code is None:
            return None
        self.proven = self.proven or now_s - self.started_at >= PROVEN_S
        self.crashes = 0 if now_s - self.started_at >= STEADY_S else self.crashes
        self._schedule(now_s)
        return code


@dataclass(slots=True)
class Supervisor:
    """Keeps the children alive until told to stop."""

    layout: StateLayout
    host: str
    specs: Sequence[ChildSpec]
    clock: Clock = field(default_factory=SystemClock)
    say: Callable[[str], None] = print
    _children: list[Child] = field(default_factory=list)
    _wake: Wake = field(default_factory=Wake)
    """No `threading.Event`: a signal while that is cleared would wait for its own lock for ever."""
    _stopping: bool = False
    _hang_up: bool = False
    _unrecorded: list[Signal] = field(default_factory=list)
    _said: set[str] = field(default_factory=set)

    def run(self) -> int:
        """Supervise until SIGTERM or SIGINT; 0 after a clean stop. Raises: LockedError, StoreError."""
        prepare_state(self.layout.root)
        lock = hold_lock(self.layout.lock("run"), "breachwatch run")
        try:
            self._children = [Child(spec) for spec in self.specs]
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
                signal.signal(number, self._on_signal)
            return self._loop()
        finally:
            lock.close()

    def _on_signal(self, number: int, _frame: object) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stopping = True
        elif number == signal.SIGHUP:
            self._hang_up = True
        self._wake.set()

    def _loop(self) -> int:
        next_alive = 0.0
        told_ready = False
        while not self._stopping:
            now_s = self.clock.monotonic()
            fatal = self._care(now_s)
            if fatal is not None:
                self._stop_children()
                return fatal
            if now_s >= next_alive:
                next_alive = now_s + ALIVE_EVERY_S
                self._beat()
            if self._hang_up:
                self._hang_up = False
                self._signal_children(signal.SIGHUP)
            if not told_ready:
                told_ready = sd_notify("READY=1", "STATUS=agent and hub are running") or True
            self._wake.wait(self._pause(now_s, next_alive))
        sd_notify("STOPPING=1")
        return self._stop_children()

    def _pause(self, now_s: float, next_alive: float) -> float:
        due = [child.restart_at for child in self._children if child.restart_at is not None]
        return max(0.01, min([next_alive, *due]) - now_s)

    def _care(self, now_s: float) -> int | None:
        for child in self._children:
            code = child.died(now_s)
            if code is not None:
                wait_s = (child.restart_at or now_s) - now_s
                self._record(
                    "child_exited", f"{child.spec.name} ended with {_outcome(code)}; restart in {wait_s:.0f} s"
                )
                if code in CONFIGURATION_EXITS and not child.proven:
                    return code
            if child.restart_at is not None and now_s >= child.restart_at:
                self._start(child, now_s)
        return None

    def _start(self, child: Child, now_s: float) -> None:
        again = child.process is not None
        try:
            child.start(now_s)
        except OSError as error:
            self._record("child_not_started", f"{child.spec.name}: {error.strerror}")
            return
        if again:
            self._record("child_restarted", f"{child.spec.name}, restart {child.crashes}")

    def _beat(self) -> None:
        """A sign of life, and what could not be recorded before. Trouble with the disk ends no supervision."""
        try:
            write_alive(self.layout.alive("run"), self.clock.now())
            self._write_down()
            self._said.clear()
        except StoreError as error:
            self._tell_once(str(error))

    def _tell_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self.say(f"breachwatch run: {text}; it is tried again")

    def _record(self, action: str, detail: str) -> None:
        """Tell the operator now and the audit trail as soon as the state can be written and a hub runs."""
        self.say(f"breachwatch run: {action}: {detail}")
        self._unrecorded.append(daemon_signal(action, detail, host=self.host, at_utc=self.clock.now()))
        del self._unrecorded[:-MAX_UNRECORDED]
        try:
            self._write_down()
        except StoreError as error:
            self._tell_once(str(error))

    def _write_down(self) -> None:
        """Make durable what is on record only here. Raises: StoreError (it stays, and is tried with the next beat)."""
        if not self._unrecorded:
            return
        store = SqliteAgentStore(self.layout.agent_db)
        try:
            store.append_signals(self._unrecorded)
        finally:
            store.close()
        self._unrecorded.clear()

    def _signal_children(self, number: signal.Signals) -> None:
        for child in self._children:
            if child.process is not None and child.process.poll() is None:
                child.process.send_signal(number)

    def _stop_children(self) -> int:
        self._signal_children(signal.SIGTERM)
        code = 0
        deadline = self.clock.monotonic() + STOP_GRACE_S
        for child in self._children:
            if child.process is None:
                continue
            try:
                child.process.wait(max(0.1, deadline - self.clock.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
                code = 3
                self.say(f"breachwatch run: {child.spec.name} did not stop in {STOP_GRACE_S:.0f} s and was killed")
        return code


def _outcome(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def hub_command(config: Path | None) -> tuple[str, ...]:
    """The command line of the hub child."""
    options = ("--config", os.fspath(config)) if config else ()
    return (sys.executable, "-m", "breachwatch", *options, "hub")


def agent_command() -> tuple[str, ...]:
    """The command line of the agent child; its settings travel on standard input."""
    return (sys.executable, "-m", "breachwatch.app.agent")


def supervisor_command() -> tuple[str, ...]:
    """The command line of the supervisor itself; its settings travel on standard input."""
    return (sys.executable, "-m", "breachwatch.app.supervise")


def main() -> int:
    """Entry point: settings as JSON on standard input."""
    settings = msgspec.json.decode(sys.stdin.buffer.read(), type=SupervisorSettings)
    layout = StateLayout(Path(settings.state_directory))
    try:
        return Supervisor(layout=layout, host=settings.host, specs=settings.specs, say=_say).run()
    except BreachWatchError as error:
        _say(f"breachwatch: {error}")
        return 3


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201  # the operator's log


if __name__ == "__main__":
    sys.exit(main())
