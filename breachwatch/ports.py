"""The seams: what stages need from the outside, so that tests and other stores can stand in.

Storage ports are implemented by `breachwatch.store`; `app` hands them to the stages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol

from breachwatch.model import Checkpoint, Entry, FileRecord, Signal


class Clock(Protocol):
    """Time, as a dependency."""

    def now(self) -> datetime:
        """Wall clock, aware, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never step back."""
        ...


class SignalStore(Protocol):
    """The durable, ordered queue from agents to hub on one host."""

    def read_signals(self, *, after: int, limit: int) -> Sequence[Signal]:
        """Signals with `seq > after`, ascending. Raises: StoreError."""
        ...

    def acknowledge(self, reader: str, seq: int) -> None:
        """Remember durably that `reader` needs nothing up to `seq` any more. Raises: StoreError."""
        ...

    def append_signals(self, signals: Iterable[Signal]) -> int:
        """Store signals whose id is new, durably; returns how many were new. Raises: StoreError."""
        ...


class AgentStore(SignalStore, Protocol):
    """What an agent keeps on disk. One agent owns it."""

    def checkpoints(self) -> Mapping[str, Checkpoint]:
        """By checkpoint key (source path plus file identity, or `journal`)."""
        ...

    def correlation_state(self) -> bytes | None:
        """The detector's last snapshot, or None on a first start."""
        ...

    def commit(
        self,
        *,
        signals: Sequence[Signal],
        checkpoints: Sequence[Checkpoint],
        forgotten: Sequence[str] = (),
        correlation_state: bytes | None = None,
        baseline: Sequence[FileRecord] = (),
        baseline_deleted: Sequence[bytes] = (),
    ) -> None:
        """All or nothing, durable on return (synchronous=FULL). Raises: StoreError."""
        ...

    def baseline(self, under: bytes | None = None) -> Iterator[FileRecord]:
        """Known paths in byte order; `under` limits to one path and what is below it."""
        ...


class AuditTiles(Protocol):
    """Where a transparency log keeps its bytes, inside one open transaction."""

    def size(self) -> int: ...
    def tile(self, level: int, index: int) -> bytes | None:
        """Concatenated 32-byte hashes, at most 256 of them; None if absent."""
        ...

    def put_tile(self, level: int, index: int, hashes: bytes) -> None: ...
    def put_entries(self, first: int, entries: Sequence[bytes]) -> None: ...
    def entries(self, first: int, last: int) -> Iterator[bytes]:
        """Entry bytes in order, `first <= index < last`."""
        ...

    def put_checkpoint(self, size: int, note: bytes) -> None: ...
    def checkpoint(self) -> bytes | None:
        """The latest signed note."""
        ...


class Auditor(Protocol):
    """Appends entries to the tree that `tiles` holds and signs the new head. Raises: AuditError."""

    def append(self, tiles: AuditTiles, entries: Sequence[Entry]) -> None: ...


class Transactional(Protocol):
    """A store whose changes and audit entries commit together."""

    def transaction(self) -> AbstractContextManager[object]: ...
