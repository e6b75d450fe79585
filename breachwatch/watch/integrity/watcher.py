"""File integrity as a source of the agent: hints are judged at once, everything is swept again and again."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from glob import iglob
from typing import Protocol

from breachwatch.errors import VerificationError
from breachwatch.model import BaselineUpdate, FileChange, Gap, Writer
from breachwatch.ports import Clock, SealView
from breachwatch.watch.integrity.accepted import Accepted, AcceptedStore
from breachwatch.watch.integrity.content import Contents, difference
from breachwatch.watch.integrity.coverage import Coverage
from breachwatch.watch.integrity.dirty import DirtyPaths
from breachwatch.watch.integrity.guard import Finding, Guard
from breachwatch.watch.integrity.inotify import HintObserver
from breachwatch.watch.integrity.judge import HASH_LIMIT_BYTES, Judge, Steps
from breachwatch.watch.integrity.ledger import Ledger
from breachwatch.watch.integrity.scope import Scope
from breachwatch.watch.integrity.seal import Sealer
from breachwatch.watch.integrity.sweep import full, quick
from breachwatch.watch.integrity.tree import Baseline, RowStore
from breachwatch.watch.source import Progress

SLICE_S = 0.05
"""So long a poll works at most before the other sources have their turn."""

SLICE_CHANGES = 2_000
SLICE_FOLDERS = 500
"""Bounds of what one commit carries."""

SUSPENDED_S = 30.0
"""Not polled for so long: the process was stopped, or the machine slept."""

CLOCK_STEP_S = 5.0
"""A wall clock that runs so much ahead or behind was set: change times are no proof then."""


class Store(RowStore, AcceptedStore, Protocol):
    """What integrity needs of the agent's store."""

    @property
    def baseline(self) -> SealView: ...


class Packages(Protocol):
    """Who knows which changes a package manager made."""

    def explain(self, changes: Sequence[FileChange]) -> Sequence[FileChange]:
        """The same changes, those that are a package's own content named as such."""
        ...


class Writers(Protocol):
    """Who knows which process touched a path lately."""

    def writer_of(self, path: bytes) -> Writer | None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How integrity watches."""

    paths: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    diffs: tuple[str, ...] = ()
    sweep_s: float = 300.0
    full_s: float = 86_400.0
    cpu_share: float = 0.25
    """Of one core, for sweeps that nothing urgent asked for."""
    bytes_per_s: int = 64 << 20
    """Read by the rolling re-hash."""
    hash_limit_bytes: int = HASH_LIMIT_BYTES


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
    last_poll: float | None = None
    last_wall: float = 0.0
    jobs: deque[_Job] = field(default_factory=deque)


class Integrity:
    """A `Source` of file changes against a baseline that lives in the agent's store."""

    name = "integrity"

    def __init__(
        self,
        options: Options,
        store: Store,
        *,
        clock: Clock,
        sealer: Sealer,
        notify: Callable[[], None] | None = None,
        packages: Packages | None = None,
        writers: Callable[[DirtyPaths, Scope], Writers | None] | None = None,
    ) -> None:
        self._options = options
        self._store = store
        self._clock = clock
        self._sealer = sealer
        self._packages = packages
        self._scope = Scope(options.paths, exclude=options.exclude)
        self._ledger = Ledger(clock.now)
        self._baseline = Baseline(store, self._scope)
        self._accepted = Accepted(store)
        self._dirty = DirtyPaths(clock.monotonic, notify)
        self._contents = Contents(options.diffs)
        self._observer = HintObserver(self._dirty)
        self._guard = Guard(self._scope.roots, was_known=lambda path: store.directory_row(path) is not None)
        self._judge = Judge(
            baseline=self._baseline, scope=self._scope, ledger=self._ledger, clock=clock,
            watches=self._observer.watched, mounts=self._guard, limit_bytes=options.hash_limit_bytes,
        )  # fmt: skip
        self.coverage = Coverage()
        self._pace = _Pace(next_full=clock.monotonic() + min(60.0, options.full_s))
        self._changes: list[FileChange] = []
        self._hint_steps: Steps | None = None
        self._learning = False
        self._kept_counter = 0
        self._check_seal()
        self._start()
        self._writers = writers(self._dirty, self._scope) if writers is not None else None

    def _check_seal(self) -> None:
        try:
            self._sealer.verify(self._store.baseline)
        except VerificationError as error:
            self._ledger.tell(b"integrity", "baseline_tampered", str(error))
        head = self._store.baseline.head()
        self._sealer.sealed_counter = 0 if head is None else head.counter

    def _keep_counter(self) -> None:
        """After a commit: the counter beside the database. It may lag behind after a crash, never run ahead."""
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
            self._ledger.report(b"integrity", "unwatched", why)
            return
        for root in self._scope.roots:
            if not os.path.isdir(root):  # noqa: PTH112  # bytes path
                self._observer.watched.ensure(os.path.dirname(root))  # noqa: PTH120  # bytes path
        self._observer.start()

    # -- one poll -------------------------------------------------------------------------------------------------

    def poll(self, budget_bytes: int) -> Iterator[FileChange | Gap]:  # noqa: ARG002  # works by time, not by bytes
        """Changes since the last poll, and a slice of the sweep that is under way."""
        now = self._clock.monotonic()
        self._keep_counter()
        self._notice_pauses(now)
        for finding in self._guard.check():
            self._react(finding)
        for why in self._dirty.take_overflows():
            self._ledger.tell(b"integrity", "overflow", f"hints were lost: {why}; everything is compared now")
            self.sweep_now()
        if not self._observer.error and not self._observer.is_alive():
            self._ledger.report(b"integrity", "unwatched", "the thread that reads kernel hints has ended; sweeps go on")
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
            self._pace.jobs.appendleft(self._job("subtree", _again(judge, path), share=1.0))
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
            full_up = len(self._changes) >= SLICE_CHANGES or self._baseline.pending >= SLICE_FOLDERS
            if full_up or self._clock.monotonic() >= end:
                return False
        return True

    # -- sweeps ---------------------------------------------------------------------------------------------------

    def _job(self, kind: str, steps: Steps, share: float) -> _Job:
        return _Job(kind, steps, share, folders_before=self._judge.folders, entries_before=self._judge.entries)

    def sweep_now(self) -> None:
        """Compare everything, as fast as it goes, in place of a sweep that is already under way."""
        jobs = self._pace.jobs
        for job in [job for job in jobs if job.kind == "quick"]:
            jobs.remove(job)
        jobs.appendleft(self._job("quick", self._everything(quick), share=1.0))

    def read_now(self) -> None:
        """Read every content as soon as may be."""
        self._pace.next_full = self._clock.monotonic()

    def _schedule(self, now: float) -> None:
        pace, kinds = self._pace, {job.kind for job in self._pace.jobs}
        if now >= pace.next_quick and "quick" not in kinds:
            for root in self._scope.expand():
                self._guard.add(root)
                if pace.next_quick:
                    self._baseline.put_folder(root, {})  # it came while we watched: it is created, not learnt
            first = pace.next_quick == 0.0
            pace.jobs.append(
                self._job("quick", self._everything(quick), share=1.0 if first else self._options.cpu_share)
            )
        if now >= pace.next_full and "full" not in kinds:
            pace.jobs.append(self._job("full", self._everything(full), share=self._options.cpu_share))

    def _everything(self, sweep: Callable[[Judge, bytes], Steps]) -> Steps:
        for root in self._scope.roots:
            self._learning = self._baseline.entries(root) is None
            yield from sweep(self._judge, root)
        self._learning = False

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
            self._store_contents()
        elif job.kind == "full":
            self._pace.next_full = now + self._options.full_s
            self.coverage.read_at = self._clock.now()
        self.coverage.blind = len(self._ledger.open)
        self.coverage.watched = len(self._observer.watched)

    def _tell_watches(self) -> None:
        refused = self._observer.watched.refused
        if not refused:
            self._ledger.clear(b"integrity")
            return
        code = os.strerror(next(iter(refused.values())))
        self._ledger.report(
            b"integrity", "watches_exhausted",
            f"{len(refused)} of {self.coverage.folders} folders have no kernel watch ({code};"
            f" fs.inotify.max_user_watches); sweeps every {self._options.sweep_s:.0f} s find changes there",
        )  # fmt: skip

    def _store_contents(self) -> None:
        """Texts whose differences are to be shown, when they are seen for the first time."""
        for pattern in self._contents.patterns:
            for name in iglob(pattern):  # noqa: PTH207  # plain strings: a name need not be UTF-8
                path = os.fsencode(name)
                if self._contents.wants(path) and self._scope.covers(path) and self._accepted.content(path) is None:
                    text = self._contents.read(path)
                    if text is not None:
                        self._accepted.put_content(path, text)

    # -- what leaves ----------------------------------------------------------------------------------------------

    def _finish(self) -> Iterator[FileChange | Gap]:
        for damaged in self._baseline.damaged:
            self._ledger.tell(damaged, "baseline_tampered", "what was known of this folder is damaged")
        self._baseline.damaged.clear()
        changes, self._changes = self._changes, []
        changes = [self._dressed(change) for change in changes]
        if self._packages is not None and changes:
            changes = list(self._packages.explain(changes))
        for change in changes:
            self._accepted.deviates(change)
        yield from self._ledger.take()
        yield from changes

    def _dressed(self, change: FileChange) -> FileChange:
        """With the lines that differ and the process that wrote."""
        writer = None if self._writers is None else self._writers.writer_of(change.path)
        if writer is not None:
            change = replace(change, writer=writer)
        if change.action not in {"created", "modified", "replaced", "deleted"} or not self._contents.wants(change.path):
            return change
        before = self._accepted.content(change.path)
        after = None if change.after is None or change.after.type != "file" else self._contents.read(change.path)
        if after is not None:
            self._accepted.put_content(change.path, after)
        if before is None and change.action != "created":
            return change
        return replace(change, diff=difference(before, after))

    def progress(self) -> Progress:
        """Baseline rows that changed with what was yielded, and when to poll again."""
        rows, deleted = self._baseline.take()
        deviations, settled, contents = self._accepted.take()
        update = None
        if rows or deleted or deviations or settled or contents:
            update = BaselineUpdate(
                rows=rows, deleted=deleted, deviations=deviations, settled=settled, contents=contents,
                kind="learn" if self._learning else "update",
            )  # fmt: skip
        return Progress(baseline=update, sealer=self._sealer, next_due_s=self._next_due_s())

    def _next_due_s(self) -> float | None:
        now, pace = self._clock.monotonic(), self._pace
        due = [job.not_before - now for job in pace.jobs]
        if self._hint_steps is not None:
            return 0.0
        if (hint := self._dirty.next_due_s()) is not None:
            due.append(hint)
        return max(0.0, min(due)) if due else None

    @property
    def is_settled(self) -> bool:
        """True when no hint waits and no sweep is under way or due."""
        pace, now = self._pace, self._clock.monotonic()
        idle = self._hint_steps is None and not len(self._dirty) and not self._judge.postponed
        return idle and not pace.jobs and now < min(pace.next_quick, pace.next_full)

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


def _again(judge: Judge, path: bytes) -> Steps:
    yield from judge.path(path)
    yield from judge.subtree(path)
