"""What differs from what was accepted: the answer to an operator who asks now, the agent running or not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from breachwatch.model import Deviation, FileChange, FileRecord, Gap
from breachwatch.watch.integrity.accepted import alike, unpack_accepted
from breachwatch.watch.integrity.entry import action_of, record_differences, record_of
from breachwatch.watch.integrity.examiner import Examiner
from breachwatch.watch.integrity.judge import Steps
from breachwatch.watch.integrity.sweep import again
from breachwatch.watch.integrity.tree import is_below

BATCH = 1_000
"""Changes that are put into words at once."""


class Comparison:
    """One pass over some paths. Changes nothing that is stored, unless its caller commits what `examiner` gathers."""

    def __init__(
        self, examiner: Examiner, paths: Sequence[bytes], *, contents: bool, on_folder: Callable[[int], None]
    ) -> None:
        self._examiner = examiner
        self._paths = paths
        self._contents = contents
        self._on_folder = on_folder

    def batches(self, deviations: Iterator[Deviation]) -> Iterator[tuple[list[FileChange], list[Gap]]]:
        """What differs now from what was accepted, and what could not be seen. The caller empties the examiner."""
        seen: set[bytes] = set()
        for changes in self._live():
            told = self._examiner.in_words(changes)
            seen.update(change.path for change in told)
            yield list(self._since_accepted(told)), self._examiner.ledger.take()
        open_ones = (item for item in deviations if item.path not in seen and self._asked_for(item.path))
        yield [change for item in open_ones if (change := self._still(item)) is not None], []

    def _asked_for(self, path: bytes) -> bool:
        return any(is_below(path, wanted) for wanted in self._paths)

    def _live(self) -> Iterator[list[FileChange]]:
        changes: list[FileChange] = []
        judge = self._examiner.judge
        for change in self._steps():
            if change is not None:
                changes.append(change)
            self._on_folder(judge.folders)
            if len(changes) >= BATCH or self._examiner.baseline.is_full:
                yield changes
                changes = []
        yield changes

    def _steps(self) -> Steps:
        examiner = self._examiner
        for path in self._paths:
            root = examiner.scope.root_of(path)
            if root is None:
                examiner.ledger.report(path, "not_watched", "it lies outside watch.integrity.paths")
            elif examiner.baseline.entries(root) is None:
                examiner.ledger.report(path, "not_in_baseline", "nothing was accepted here yet")
            else:
                yield from again(examiner.judge, path, contents=self._contents)

    def _since_accepted(self, changes: Sequence[FileChange]) -> Iterator[FileChange]:
        for change in changes:
            accepted = self._examiner.accepted.before(change)
            if accepted is change.before:
                yield change
            elif (again_told := _told(accepted, change.after, change)) is not None:
                yield again_told

    def _still(self, item: Deviation) -> FileChange | None:
        """A deviation that the agent has told and that is still there."""
        entry = self._examiner.baseline.entry(item.path)
        now = None if entry is None else record_of(item.path, entry)
        bare = FileChange(
            path=item.path, action="", before=None, after=now, explained_by=item.explained_by, seen_at=item.seen_at
        )
        told = _told(unpack_accepted(item), now, bare)
        return None if told is None else self._examiner.with_lines(self._examiner.judge.rated(told))


def _told(accepted: FileRecord | None, now: FileRecord | None, change: FileChange) -> FileChange | None:
    if alike(accepted, now):
        return None
    changed = record_differences(accepted, now) if accepted is not None and now is not None else ()
    action = action_of(accepted, now, changed)
    return None if action is None else replace(change, action=action, before=accepted, after=now, changed=changed)
