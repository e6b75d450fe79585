"""What the agent's watcher and the command line share: the parts that look, compare and put a change into words."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from breachwatch.model import BaselineUpdate, FileChange
from breachwatch.ports import Clock
from breachwatch.watch.integrity.accepted import Accepted, AcceptedStore
from breachwatch.watch.integrity.content import Contents, difference
from breachwatch.watch.integrity.hashing import hashing_of
from breachwatch.watch.integrity.judge import HASH_LIMIT_BYTES, Judge, Mounts, Steps, Watches
from breachwatch.watch.integrity.ledger import Ledger
from breachwatch.watch.integrity.scope import Scope
from breachwatch.watch.integrity.tree import Baseline, RowStore, join

_WILD = re.compile(r"[*?\[]")

Sweep = Callable[[Judge, bytes], Steps]


class Store(RowStore, AcceptedStore, Protocol):
    """What integrity reads of the agent's store."""


class Packages(Protocol):
    """Who knows which changes a package manager made."""

    def holds(self, path: bytes) -> bool:
        """True while the verdict on a path has to wait for one that is at work."""
        ...

    def explain(self, changes: Sequence[FileChange]) -> Sequence[FileChange]:
        """The same changes, those that are a package's own content named as such."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is watched and how."""

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
    rolling_hash: str = "sha256"
    setuid_s: float = 3_600.0
    """Between counts of setuid files on all local file systems; 0: none."""
    processes: bool = True
    """Tell of programs that run but are on no disk."""
    fanotify: bool = False
    """Ask the kernel who wrote."""


class Examiner:
    """Scope, baseline and judge of one host. Who drives it says when, and commits what `update` gives."""

    def __init__(
        self,
        options: Options,
        store: Store,
        clock: Clock,
        *,
        watches: Watches | None = None,
        packages: Packages | None = None,
    ) -> None:
        self.scope = Scope(options.paths, exclude=options.exclude)
        self.ledger = Ledger(clock.now)
        self.baseline = Baseline(store, self.scope)
        self.accepted = Accepted(store)
        self._contents = Contents(options.diffs)
        self._packages = packages
        self.judge = Judge(
            baseline=self.baseline, scope=self.scope, ledger=self.ledger, clock=clock, watches=watches,
            limit_bytes=options.hash_limit_bytes, hashing=hashing_of(options.rolling_hash),
        )  # fmt: skip
        self.is_learning = False

    def guard(self, mounts: Mounts) -> None:
        """Ask this one which directories a mount hides."""
        self.judge.mounts = mounts

    def everything(self, sweep: Sweep) -> Steps:
        """All roots. What is told of a root that is not known yet is its baseline."""
        for root in self.scope.roots:
            self.is_learning = self.baseline.entries(root) is None
            yield from sweep(self.judge, root)
        self.is_learning = False

    def in_words(self, changes: Iterable[FileChange]) -> list[FileChange]:
        """The changes with the package that explains them and the lines that differ; remembered as deviations."""
        told = [self.with_lines(change) for change in changes]
        if self._packages is not None and told:
            told = list(self._packages.explain(told))
        for change in told:
            self.accepted.deviates(change)
        return told

    def with_lines(self, change: FileChange) -> FileChange:
        """Lines are compared with those of the text that was accepted."""
        if not set(change.changed) - {"mtime_ns", "ctime_ns"} and change.action == "attributes":
            return change
        if not self._contents.wants(change.path):
            return change
        before = self.accepted.content(change.path)
        after = None if change.after is None or change.after.type != "file" else self._contents.read(change.path)
        if before is None and change.before is not None:
            return change
        return replace(change, diff=difference(before, after))

    def keep_texts(self) -> None:
        """Texts whose differences are to be shown, when they are seen for the first time."""
        for path in self._known_texts():
            if self.accepted.content(path) is None and self.accepted.is_as_accepted(path):
                self.keep_text(path)

    def _known_texts(self) -> Iterator[bytes]:
        for pattern in self._contents.patterns:
            literal = os.fsencode(_WILD.split(pattern)[0])
            folder = literal.rpartition(b"/")[0] or b"/"
            for row in self.baseline.rows(folder):
                for name in row.names.split(b"\0"):
                    path = join(row.path, name)
                    if path.startswith(literal) and self._contents.wants(path):
                        yield path

    def keep_text(self, path: bytes) -> None:
        """The text of one file, if it is one whose differences are shown, is as it should be."""
        if self._contents.wants(path) and self.scope.covers(path):
            text = self._contents.read(path)
            if text is not None:
                self.accepted.put_content(path, text)

    def update(self, *, kind: str = "", actor: str = "agent", reason: str = "") -> BaselineUpdate | None:
        """What changed since the last call, None if nothing did."""
        rows, deleted = self.baseline.take()
        deviations, settled, contents = self.accepted.take()
        if not (rows or deleted or deviations or settled or contents):
            return None
        return BaselineUpdate(
            rows=rows, deleted=deleted, deviations=deviations, settled=settled, contents=contents,
            kind=kind or ("learn" if self.is_learning else "update"), actor=actor, reason=reason,
        )  # fmt: skip
