"""What an operator does with the baseline of file integrity: begin, compare, accept. The agent may run or not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from breachwatch.app.clock import SystemClock
from breachwatch.app.integrity import open_packages, open_sealer
from breachwatch.app.pipeline import daemon_signal
from breachwatch.app.state import StateLayout, prepare_state
from breachwatch.app.wake import poke
from breachwatch.errors import StoreError, UsageError, VerificationError
from breachwatch.model import Deviation, FileChange, Gap
from breachwatch.store.agent import SqliteAgentStore
from breachwatch.watch.integrity.comparison import Comparison
from breachwatch.watch.integrity.examiner import Examiner, Options
from breachwatch.watch.integrity.guard import Guard
from breachwatch.watch.integrity.scope import count_folders
from breachwatch.watch.integrity.seal import Sealer
from breachwatch.watch.integrity.sweep import quick

Progress = Callable[[int, int], None]
"""(folders done, folders there are)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a comparison met, whatever it differs in."""

    entries: int
    folders: int
    blind: int


@dataclass(slots=True)
class Baseline:
    """The stored baseline of this host with what it takes to compare and change it."""

    layout: StateLayout
    host: str
    store: SqliteAgentStore
    sealer: Sealer
    examiner: Examiner

    # -- begin ----------------------------------------------------------------------------------------------------

    def begin(self, *, actor: str, reason: str, force: bool, on_progress: Progress) -> Found:
        """Learn everything as it is now. Raises: UsageError (there is a baseline), StoreError."""
        head = self.store.baseline.head()
        if head is not None or self.store.baseline.count():
            if not force:
                raise UsageError(
                    "this host has a baseline already",
                    hint="`integrity accept` takes changes over; --force forgets the old one and begins anew",
                )
            self._forget(0 if head is None else head.counter)
        total = count_folders(self.examiner.scope)
        for _ in self.examiner.everything(quick):
            if self.examiner.baseline.is_full:
                self._commit("init", actor, reason)
            on_progress(self.examiner.judge.folders, total)
        self._commit("init", actor, reason)
        self.examiner.keep_texts()
        self._commit("init", actor, reason)
        self._tell("baseline_begun", actor, reason, self.examiner.judge.entries)
        return self._found()

    def _forget(self, counter: int) -> None:
        try:
            noted = self.sealer.noted_counter()
        except VerificationError:
            noted = 0  # the file was edited; the head's own counter and the hub's trail remain
        self.sealer.starts_after = max(counter, noted)
        self.store.clear_baseline()

    # -- compare --------------------------------------------------------------------------------------------------

    def verify(self) -> None:
        """Recompute the seal from the stored bytes. Raises: VerificationError, StoreError (there is no baseline)."""
        with self.store.reading() as view:
            if view.head() is None and not view.count():
                raise StoreError(
                    "this host has no baseline yet", source=str(self.layout.agent_db),
                    hint="`breachwatch integrity init`, or start the agent",
                )  # fmt: skip
            self.sealer.verify(view)

    def compare(
        self, paths: Sequence[Path], *, contents: bool, on_progress: Progress
    ) -> Iterator[FileChange | Gap | Found]:
        """What differs from what was accepted, what could not be seen, and at last the counts. Stores nothing."""
        yield from self._guarded()
        for changes, gaps in self._compared(paths, contents=contents, on_progress=on_progress):
            self.examiner.update()  # not committed: whoever only looks leaves no trace
            yield from gaps
            yield from changes
        yield self._found()

    def _guarded(self) -> Iterator[Gap]:
        guard = Guard(self.examiner.scope.roots, was_known=lambda path: self.store.directory_row(path) is not None)
        try:
            for finding in guard.check():
                self.examiner.ledger.report(finding.path, finding.reason, finding.detail)
        finally:
            guard.close()
        self.examiner.guard(guard)
        yield from self.examiner.ledger.take()

    def _compared(
        self, paths: Sequence[Path], *, contents: bool, on_progress: Progress
    ) -> Iterator[tuple[list[FileChange], list[Gap]]]:
        total = self.store.baseline.count()
        wanted = [os.path.realpath(os.path.dirname(path)) + "/" + path.name for path in paths]  # noqa: PTH120
        asked = [os.fsencode(path) for path in wanted] or list(self.examiner.scope.roots)
        comparison = Comparison(
            self.examiner, asked, contents=contents, on_folder=lambda done: on_progress(done, total)
        )  # fmt: skip
        return comparison.batches(iter(list(self.store.baseline.deviations())))

    # -- accept ---------------------------------------------------------------------------------------------------

    def accept(
        self, paths: Sequence[Path], *, actor: str, reason: str, on_progress: Progress
    ) -> Iterator[FileChange | Gap]:
        """Take over what is there now; yields what that is. Raises: VerificationError, StoreError."""
        self.verify()
        accepted, examiner = 0, self.examiner
        yield from self._guarded()
        for changes, gaps in self._compared(paths, contents=False, on_progress=on_progress):
            yield from gaps
            for change in changes:
                examiner.accepted.accept(change.path)
                examiner.keep_text(change.path)
                accepted += 1
            self._commit("accept", actor, reason)
            yield from changes
        if accepted:
            self._tell("baseline_accepted", actor, reason, accepted)

    def accept_explained(self, *, actor: str, reason: str) -> list[Deviation]:
        """Settle what the agent has told and a package explains. Raises: VerificationError, StoreError.

        What it has not told yet is not looked at: nothing may be taken over that nobody was told.
        """
        self.verify()
        settled = [item for item in self.store.baseline.deviations() if item.explained_by]
        for item in settled:
            self.examiner.accepted.accept(item.path)
            self.examiner.keep_text(item.path)
        self._commit("accept", actor, reason)
        if settled:
            self._tell("baseline_accepted", actor, reason, len(settled))
        return settled

    # -- what all of them do --------------------------------------------------------------------------------------

    def _commit(self, kind: str, actor: str, reason: str) -> None:
        update = self.examiner.update(kind=kind, actor=actor, reason=reason)
        if update is None:
            return
        self.store.commit(signals=(), checkpoints=(), baseline=update, sealer=self.sealer)
        if self.sealer.broken:
            raise VerificationError(self.sealer.broken, source=str(self.layout.agent_db))
        try:
            self.sealer.note_counter(self.sealer.sealed_counter)
        except OSError as error:
            raise StoreError(f"the baseline's counter: {error.strerror}", source=str(self.layout.keys)) from error

    def _tell(self, action: str, actor: str, reason: str, count: int) -> None:
        detail = f"by {actor}: {count} paths; counter={self.sealer.sealed_counter}" + (f"; {reason}" if reason else "")
        told = daemon_signal(action, detail, host=self.host, at_utc=SystemClock().now())
        self.store.commit(signals=[told], checkpoints=())
        poke(self.layout.wake)

    def _found(self) -> Found:
        judge = self.examiner.judge
        return Found(entries=judge.entries, folders=judge.folders, blind=len(self.examiner.ledger.open))


@contextmanager
def open_baseline(options: Options, state_directory: Path, *, host: str, owner: bool = False) -> Iterator[Baseline]:
    """The baseline of this installation. `owner`: nobody else may use it meanwhile. Raises: StoreError, LockedError."""
    layout, clock = prepare_state(state_directory), SystemClock()
    store = SqliteAgentStore(layout.agent_db, owner=owner)
    try:
        examiner = Examiner(options, store, clock, packages=open_packages(clock))
        yield Baseline(
            layout=layout, host=host, store=store, sealer=open_sealer(layout, clock),
            examiner=examiner,
        )  # fmt: skip
    finally:
        store.close()
