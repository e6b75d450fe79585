"""File integrity as a source of the agent: hints are judged at once, everything is swept again and again."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Protocol

from breachwatch.errors import VerificationError
from breachwatch.model import FileChange, Gap
from breachwatch.ports import Clock, SealView
from breachwatch.watch.integrity.census import LOCAL, census
from breachwatch.watch.integrity.coverage import Coverage
from breachwatch.watch.integrity.dirty import DirtyPaths
from breachwatch.watch.integrity.examiner import Examiner, Options, Packages, Store
from breachwatch.watch.integrity.fanotify import FanotifyObserver
from breachwatch.watch.integrity.guard import Finding, Guard
from breachwatch.watch.integrity.inotify import HintObserver
from breachwatch.watch.integrity.judge import Steps
from breachwatch.watch.integrity.processes import Processes
from breachwatch.watch.integrity.seal import Sealer
from breachwatch.watch.integrity.sweep import again, full, quick
from breachwatch.watch.source import Progress

SLICE_S = 0.05
"""So long a poll works at most before the other sources have their turn."""

SLICE_CHANGES = 2_000
"""Bound of what one poll gives."""

SUSPENDED_S = 30.0
"""Not polled for so long: the process was stopped, or the machine slept."""

CLOCK_STEP_S = 5.0
"""A wall clock that runs so much ahead or behind was set: change times are no proof then."""


class SealedStore(Store, Protocol):
    """What integrity needs of the agent's store."""

    def reading(self) -> AbstractContextManager[SealView]: ...


@dataclass(slots=True)
class _Job:
    """A sweep under way."""

    kind: str
    steps: Steps
    share: float
    not_before: float = 0.0
    folders_before: int = 0
    entries_before: int = 0


@dataclass(slots=True)
class _Pace:
    """When what comes next."""

    next_quick: float = 0.0
    next_full: float = 0.0
    next_setuid: float = 0.0
    last_poll: float | None = None
    last_wall: float = 0.0
    jobs: deque[_Job] = field(default_factory=deque)


class Integrity:
    """A `Source` of file changes against a baseline that lives in the agent's store."""

    name = "integrity"

    def __init__(
        self,
        options: Options,
        store: SealedStore,
        *,
        clock: Clock,
        sealer: Sealer,
        notify: Callable[[], None] | None = None,
        packages: Packages | None = None,
    ) -> None:
        self._options = options
        self._store = store
        self._clock = clock
        self._sealer = sealer
        self._dirty = DirtyPaths(clock.monotonic, notify)
        self._observer = HintObserver(self._dirty)
        self._examiner = Examiner(options, store, clock, watches=self._observer.watched, packages=packages)
        self._scope, self._ledger = self._examiner.scope, self._examiner.ledger
        self._baseline, self._judge = self._examiner.baseline, self._examiner.judge
        self._judge.holds = None if packages is None else packages.holds
        self._guard = Guard(self._scope.roots, was_known=lambda path: store.directory_row(path) is not None)
        for link, root in self._scope.links.items():
            self._guard.follow(link, root)
        self._examiner.guard(self._guard)
        self.setuid_starts: list[bytes] = []
        """Where setuid files are counted; none named: on all local file systems."""
        self._processes = Processes(clock.now) if options.processes else None
        self.coverage = Coverage()
        self._pace = _Pace(next_full=clock.monotonic() + min(60.0, options.full_s))
        self._changes: list[FileChange] = []
        self._hint_steps: Steps | None = None
        self._texts_due = ""
        """swept, stored: a sweep has ended, and then what it found was stored. New texts are read after that."""
        self._kept_counter = 0
        self._check_seal()
        self._start()
        self._writers = self._hear_writers() if options.fanotify else None

    def _check_seal(self) -> None:
        try:
            with self._store.reading() as view:
                self._sealer.verify(view)
        except VerificationError as error:
            self._sealer.broken = str(error)
        self._kept_counter = self._sealer.sealed_counter

    def _tell_seal(self) -> None:
        """After a commit: whether the baseline still holds; and the counter beside the database.

        The counter may lag behind after a crash, it never runs ahead.
        """
        if self._sealer.broken:
            why = f"{self._sealer.broken}; nothing is signed until `breachwatch integrity init --force`"
            self._ledger.report(b"baseline", "baseline_tampered", why)
        counter = self._sealer.sealed_counter
        if counter != self._kept_counter:
            try:
                self._sealer.note_counter(counter)
            except OSError as error:
                self._ledger.tell(b"integrity", "counter_not_kept", error.strerror or "cannot be written")
            self._kept_counter = counter

    def _start(self) -> None:
        if self._observer.error:
            why = f"no kernel hints ({self._observer.error}: fs.inotify.max_user_instances); sweeps alone find changes"
            self._ledger.report(b"hints", "unwatched", why)
            return
        for root in self._scope.roots:
            if not os.path.isdir(root):  # noqa: PTH112  # bytes path
                self._observer.watched.ensure(os.path.dirname(root))  # noqa: PTH120  # bytes path
        self._observer.start()

    def _hear_writers(self) -> FanotifyObserver | None:
        try:
            return FanotifyObserver(self._dirty, self._scope.roots, lambda path: self._scope.root_of(path) is not None)
        except OSError as error:
            why = f"fanotify: {error.strerror}; who wrote is not known (it takes CAP_SYS_ADMIN and Linux 5.9)"
            self._ledger.tell(b"integrity", "writers_unknown", why)
            return None

    # -- one poll -------------------------------------------------------------------------------------------------

    def poll(self, budget_bytes: int) -> Iterator[FileChange | Gap]:  # noqa: ARG002  # works by time, not by bytes
        """Changes since the last poll, and a slice of the sweep that is under way."""
        now = self._clock.monotonic()
        self._tell_seal()
        self._baseline.forget_unchanged()
        if self._texts_due == "stored":
            self._texts_due = ""
            self._examiner.keep_texts()
        self._notice_pauses(now)
        for finding in self._guard.check():
            self._react(finding)
        for why in self._dirty.take_overflows():
            self._ledger.tell(b"integrity", "hints_lost", f"{why}; everything is compared now")
            self.sweep_now()
        if not self._observer.error and not self._observer.is_alive():
            self._ledger.report(b"hints", "unwatched", "the thread that reads kernel hints has ended; sweeps go on")
        self._judge_hints(now + SLICE_S)
        self._schedule(now)
        self._work(self._clock.monotonic() + SLICE_S)
        yield from self._finish()

    def _notice_pauses(self, now: float) -> None:
        wall, pace = self._clock.now().timestamp(), self._pace
        if pace.last_poll is not None:
            passed, by_wall = now - pace.last_poll, wall - pace.last_wall
            if passed > SUSPENDED_S or by_wall - passed > SUSPENDED_S:
                self._ledger.tell(b"integrity", "suspended", f"nothing was watched for {max(passed, by_wall):.0f} s")
                self.sweep_now()
            if abs(by_wall - passed) > CLOCK_STEP_S:
                step = by_wall - passed
                self._ledger.tell(
                    b"integrity", "clock_stepped", f"the clock was set by {step:+.0f} s: contents are read again"
                )
                pace.next_full = now
        pace.last_poll, pace.last_wall = now, wall

    def _react(self, finding: Finding) -> None:
        path, judge = finding.path, self._judge
        if finding.reason == "over_mounted":
            self._ledger.report(path, finding.reason, finding.detail)
            return
        self._ledger.tell(path, finding.reason, finding.detail)
        if finding.reason == "unmounted":
            self._ledger.clear_below(path)
            judge.devices.clear()
            self._pace.jobs.appendleft(self._job("subtree", again(judge, path, contents=False), share=1.0))
        elif finding.reason == "root_redirected":
            self._expand()
            self.sweep_now()
        elif finding.reason != "guard_blind":
            judge.devices.pop(path, None)
            self._pace.jobs.appendleft(self._job("root", quick(judge, path), share=1.0))

    def _judge_hints(self, end: float) -> None:
        self._judge.channel = "event"
        if self._judge.postponed:
            postponed, self._judge.postponed = self._judge.postponed, []
            self._dirty.add((), postponed)
        if self._hint_steps is None:
            self._hint_steps = self._hinted()
        if self._drain(self._hint_steps, end):
            self._hint_steps = None

    def _hinted(self) -> Steps:
        while paths := self._dirty.due():
            for path in paths:
                yield from self._judge.path(path)
                if self._baseline.entries(path) is not None:
                    yield from self._judge.folder(path)

    def _drain(self, steps: Steps, end: float) -> bool:
        """Take changes until the time or the room of this poll is used up; True if there are no more."""
        for change in steps:
            if change is not None:
                self._changes.append(change)
            if len(self._changes) >= SLICE_CHANGES or self.is_full or self._clock.monotonic() >= end:
                return False
        return True

    def _expand(self) -> None:
        """Roots that came while we watched: what is in them is created, not learnt."""
        for root in self._scope.expand():
            self._guard.add(root)
            self._baseline.put_folder(root, {})
        for link, root in self._scope.links.items():
            self._guard.follow(link, root)

    # -- sweeps ---------------------------------------------------------------------------------------------------

    def _job(self, kind: str, steps: Steps, share: float) -> _Job:
        return _Job(kind, steps, share, folders_before=self._judge.folders, entries_before=self._judge.entries)

    def sweep_now(self) -> None:
        """Compare everything, as fast as it goes, in place of a sweep that is already under way."""
        if self._pace.next_quick:
            self._expand()
        jobs = self._pace.jobs
        for job in [job for job in jobs if job.kind == "quick"]:
            jobs.remove(job)
        jobs.appendleft(self._job("quick", self._examiner.everything(quick), share=1.0))

    def read_now(self) -> None:
        """Read every content as soon as may be."""
        self._pace.next_full = self._clock.monotonic()

    def _schedule(self, now: float) -> None:
        pace, kinds = self._pace, {job.kind for job in self._pace.jobs}
        if now >= pace.next_quick and "quick" not in kinds:
            if pace.next_quick:
                self._expand()
            first = pace.next_quick == 0.0
            pace.jobs.append(
                self._job("quick", self._examiner.everything(quick), share=1.0 if first else self._options.cpu_share)
            )
        if now >= pace.next_full and "full" not in kinds:
            steps = self._examiner.everything(full)
            pace.jobs.append(self._job("full", steps, share=self._options.cpu_share))
        if self._options.setuid_s and now >= pace.next_setuid and "setuid" not in kinds:
            pace.jobs.append(self._job("setuid", self._census(), share=self._options.cpu_share))

    def _census(self) -> Steps:
        mounts = self._guard.mounts
        local = [m.point for m in mounts if m.kind in LOCAL and "nosuid" not in m.options.split(",")]
        starts = self.setuid_starts or local
        every = frozenset(mount.point for mount in mounts)
        return census(self._judge, starts, every, lambda: int(self._clock.now().timestamp() * 1e9))

    def _work(self, end: float) -> None:
        """A slice of the first job that may run now."""
        jobs = self._pace.jobs
        start = self._clock.monotonic()
        job = next((job for job in jobs if job.not_before <= start), None)
        if job is None:
            return
        read_before = self._judge.read_bytes
        self._judge.channel = "content" if job.kind == "full" else "sweep"
        if self._drain(job.steps, end):
            jobs.remove(job)
            self._ended(job)
            return
        now = self._clock.monotonic()
        rest = (now - start) * (1.0 - job.share) / job.share
        if job.kind == "full":
            rest = max(rest, (self._judge.read_bytes - read_before) / self._options.bytes_per_s)
        job.not_before = now + rest

    def _ended(self, job: _Job) -> None:
        now = self._clock.monotonic()
        if job.kind == "quick":
            self._pace.next_quick = now + self._options.sweep_s
            self.coverage.folders = self._judge.folders - job.folders_before
            self.coverage.entries = self._judge.entries - job.entries_before
            self.coverage.swept_at = self._clock.now()
            self._tell_watches()
            self._texts_due = "swept"
            self._ledger.swept()
            if self._processes is not None:
                self._changes += self._processes.check()
        elif job.kind == "setuid":
            self._pace.next_setuid = now + self._options.setuid_s
        elif job.kind == "full":
            self._pace.next_full = now + self._options.full_s
            self.coverage.read_at = self._clock.now()
        self.coverage.blind = len(self._ledger.open)
        self.coverage.watched = len(self._observer.watched)

    def _tell_watches(self) -> None:
        refused = self._observer.watched.refused
        if not refused:
            self._ledger.clear(b"watches")
            return
        code = os.strerror(next(iter(refused.values())))
        self._ledger.report(
            b"watches", "watches_exhausted",
            f"{len(refused)} of {self.coverage.folders} folders have no kernel watch ({code};"
            f" fs.inotify.max_user_watches); sweeps every {self._options.sweep_s:.0f} s find changes there",
        )  # fmt: skip

    # -- what leaves ----------------------------------------------------------------------------------------------

    def _finish(self) -> Iterator[FileChange | Gap]:
        for damaged in self._baseline.damaged:
            self._ledger.tell(damaged, "baseline_tampered", "what was known of this folder is damaged")
        self._baseline.damaged.clear()
        changes, self._changes = self._changes, []
        told = self._examiner.in_words(map(self._with_writer, changes))
        yield from self._ledger.take()
        yield from told

    def _with_writer(self, change: FileChange) -> FileChange:
        writer = None if self._writers is None else self._writers.writer_of(change.path)
        return change if writer is None else replace(change, writer=writer)

    def progress(self) -> Progress:
        """Baseline rows that changed with what was yielded, and when to poll again."""
        update = self._examiner.update()
        if self._texts_due:
            self._texts_due = "stored"
        return Progress(baseline=update, sealer=self._sealer)

    @property
    def is_full(self) -> bool:
        """True when nothing more is judged until `progress` is stored."""
        return self._baseline.is_full

    @property
    def next_due_s(self) -> float | None:
        """Poll again after so many seconds, whether something wakes the agent or not."""
        now, pace = self._clock.monotonic(), self._pace
        if self._hint_steps is not None:
            return 0.0
        due = [job.not_before - now for job in pace.jobs]
        if (hint := self._dirty.next_due_s()) is not None:
            due.append(hint)
        return max(0.0, min(due)) if due else None

    @property
    def is_settled(self) -> bool:
        """True when no hint waits and no sweep is under way or due."""
        pace, now = self._pace, self._clock.monotonic()
        idle = not self._texts_due and self._hint_steps is None and not len(self._dirty) and not self._judge.postponed
        is_due = now >= min(pace.next_quick, pace.next_full) or (self._options.setuid_s and now >= pace.next_setuid)
        return idle and not pace.jobs and not is_due

    @property
    def looked_at(self) -> int:
        """Directories compared so far."""
        return self._judge.folders

    def status(self) -> str:
        """One line for the heartbeat."""
        return self.coverage.line(sweeping=bool(self._pace.jobs))

    def close(self) -> None:
        """Stop the threads and give the watches back."""
        if self._writers is not None:
            self._writers.close()
        self._observer.close()
        self._guard.close()
        for job in self._pace.jobs:
            job.steps.close()
        if self._hint_steps is not None:
            self._hint_steps.close()
