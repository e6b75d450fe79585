"""A small host under watch: real files, real kernel hints, a real store; the test decides when time passes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from breachwatch.model import FileChange, Gap
from breachwatch.store.agent import SqliteAgentStore
from breachwatch.watch.integrity import Integrity, Options
from breachwatch.watch.integrity.seal import Sealer, load_or_create_key

LONG_S = 36_000.0
"""An interval that never comes in a test: what is found was found by the channel that is asked for."""


class RealClock:
    """Real time, which a test may shift as an attacker or an administrator would."""

    shift_s = 0.0
    skipped_s = 0.0
    """Time in which nobody polled: the process was stopped."""

    def now(self) -> datetime:
        return datetime.fromtimestamp(time.time() + self.shift_s + self.skipped_s, UTC)

    def monotonic(self) -> float:
        return time.monotonic() + self.skipped_s


class Host:
    """State directory and watcher; `start` may be called again after `stop`."""

    def __init__(self, folder: Path, roots: list[Path | str], **options: object) -> None:
        self.state = folder / "state"
        self.state.mkdir(exist_ok=True)
        self.clock = RealClock()
        self.options = Options(
            **{  # type: ignore[arg-type]  # a test names what it needs
                "paths": tuple(map(str, roots)), "sweep_s": LONG_S, "full_s": LONG_S, "cpu_share": 1.0,
                "bytes_per_s": 1 << 40, "setuid_s": 0.0, "processes": False, **options,
            }
        )  # fmt: skip
        self.packages: object = None
        self.changes: list[FileChange] = []
        self.gaps: list[Gap] = []
        self.integrity: Integrity | None = None
        self.store: SqliteAgentStore | None = None

    def start(self, *, settle: bool = True) -> Host:
        """Open the store, watch, and sweep once."""
        self.store = SqliteAgentStore(self.state / "agent.db", owner=True)
        self.integrity = Integrity(
            self.options, self.store, clock=self.clock, sealer=self.sealer(), packages=self.packages,  # type: ignore[arg-type]
        )  # fmt: skip
        if settle:
            self.settle()
        return self

    def sealer(self) -> Sealer:
        return Sealer(load_or_create_key(self.state / "key"), self.state / "counter", self.clock.now)

    def only_mounts(self, *points: Path) -> None:
        """Count setuid files there only, whatever else this machine has mounted."""
        assert self.integrity is not None
        self.integrity.setuid_starts = [os.fsencode(point) for point in points]

    def stop(self) -> None:
        if self.integrity is not None:
            self.integrity.close()
        if self.store is not None:
            self.store.close()
        self.integrity = self.store = None

    def poll(self) -> int:
        """One turn of the agent's loop: everything seen, then committed."""
        assert self.integrity is not None
        assert self.store is not None
        seen = list(self.integrity.poll(1 << 20))
        self.changes += [item for item in seen if isinstance(item, FileChange)]
        self.gaps += [item for item in seen if isinstance(item, Gap)]
        progress = self.integrity.progress()
        if progress.baseline is not None:
            self.store.commit(signals=(), checkpoints=(), baseline=progress.baseline, sealer=progress.sealer)
        return len(seen)

    def until(self, holds: Callable[[], object], timeout_s: float = 15.0) -> None:
        """Poll until something holds."""
        end = time.monotonic() + timeout_s
        while not holds():
            assert time.monotonic() < end, f"not seen in {timeout_s} s, but {self.told()}"
            if not self.poll():
                time.sleep(0.003)

    def settle(self) -> None:
        """Poll until no hint waits and no sweep is under way."""
        assert self.integrity is not None
        self.poll()
        self.until(lambda: self.integrity is not None and self.integrity.is_settled)

    def quiet(self, wait_s: float = 0.15) -> None:
        """Poll for a while in which nothing should come."""
        end = time.monotonic() + wait_s
        while time.monotonic() < end:
            self.poll()
            time.sleep(0.01)
        self.settle()

    def age(self) -> None:
        """Wait until what was new at the first look is old enough for its change time to be kept."""
        self.quiet()
        self.sweep()

    def sweep(self) -> None:
        """A quick sweep now."""
        assert self.integrity is not None
        self.integrity.sweep_now()
        self.settle()

    def read_all(self) -> None:
        """A full re-hash now."""
        assert self.integrity is not None
        self.integrity.read_now()
        self.settle()

    def take(self) -> list[FileChange]:
        taken, self.changes = self.changes, []
        return taken

    def found(self, path: Path | str | bytes, action: str | None = None) -> list[FileChange]:
        wanted = os.fsencode(path)
        return [item for item in self.changes if item.path == wanted and action in (None, item.action)]

    def expect(self, path: Path | str | bytes, action: str, *, channel: str, timeout_s: float = 15.0) -> FileChange:
        """The verdict comes, by this channel. Returns it."""
        self.until(lambda: self.found(path, action), timeout_s)
        change = self.found(path, action)[0]
        assert change.channel == channel, f"found by {change.channel}, not by {channel}"
        return change

    def expect_gap(self, reason: str, source: Path | str | None = None, timeout_s: float = 15.0) -> Gap:
        def fitting() -> list[Gap]:
            return [gap for gap in self.gaps if gap.reason == reason and (source is None or gap.source == str(source))]

        self.until(fitting, timeout_s)
        return fitting()[0]

    def told(self) -> str:
        changes = [f"{os.fsdecode(item.path)} {item.action} {item.changed} {item.channel}" for item in self.changes]
        return "\n".join([*changes[-20:], *(f"{gap.source}: {gap.reason}" for gap in self.gaps[-20:])])

    def reasons(self) -> list[str]:
        return [gap.reason for gap in self.gaps]
