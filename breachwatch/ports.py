"""The seams: what stages need from the outside, so that tests and other stores can stand in.

Storage ports are implemented by `breachwatch.store`; `app` hands them to the stages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol

from breachwatch.model import (
    Accepted,
    BaselineHead,
    BaselineUpdate,
    Campaign,
    CampaignState,
    Channel,
    Delivery,
    DeliveryResult,
    DeliveryState,
    Deviation,
    DirectoryRow,
    Entry,
    JournalEntry,
    OutgoingMessage,
    Person,
    Seal,
    Signal,
)


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


class SealView(Protocol):
    """The stored baseline as its sealer sees it."""

    def head(self) -> BaselineHead | None: ...

    def nodes(self) -> Iterable[tuple[int, bytes]]: ...

    def leaves(self, bucket: int) -> Iterable[tuple[tuple[int, bytes], bytes]]:
        """((kind, path), hash) of all that hangs below one node."""
        ...

    def all_rows(self) -> Iterator[DirectoryRow]: ...

    def deviations(self) -> Iterator[Deviation]: ...

    def contents(self) -> Iterator[tuple[bytes, bytes]]: ...

    def journal(self) -> Iterator[JournalEntry]:
        """Oldest first."""
        ...


class BaselineSealer(Protocol):
    """Seals a change of the baseline inside the transaction that stores it."""

    def seal(self, view: SealView, update: BaselineUpdate) -> Seal:
        """What has to be stored with it."""
        ...


class Tiles(Protocol):
    """Hash tiles of a transparency log."""

    def tile(self, level: int, index: int) -> bytes | None:
        """Concatenated 32-byte hashes, at most 256 of them; None if absent."""
        ...


class WritableTiles(Tiles, Protocol):
    """Hash tiles that grow."""

    def put_tile(self, level: int, index: int, hashes: bytes) -> None:
        """Store a tile, replacing its shorter self."""
        ...


class StoredTrail(Tiles, Protocol):
    """A whole log that can be read: its tiles, entries and latest signed head."""

    def size(self) -> int:
        """Number of entries."""
        ...

    def entries(self, first: int, last: int) -> Iterator[bytes]:
        """Entry bytes in order, `first <= index < last`."""
        ...

    def checkpoint(self) -> bytes | None:
        """The latest signed note."""
        ...


class AuditTiles(StoredTrail, WritableTiles, Protocol):
    """Where a transparency log keeps its bytes, inside one open transaction."""

    def put_entries(self, first: int, entries: Sequence[bytes]) -> None:
        """Store entries from index `first` on."""
        ...

    def put_checkpoint(self, size: int, note: bytes) -> None:
        """Store the signed head of a tree of `size`."""
        ...


class Auditor(Protocol):
    """Appends entries to the tree that `tiles` holds and signs the new head. Raises: AuditError."""

    def append(self, tiles: AuditTiles, entries: Sequence[Entry]) -> None: ...


class ContactVault(Protocol):
    """Contacts, encrypted per person; the only place that knows them between audience and channel."""

    def put(self, people: Sequence[Person]) -> list[str]:
        """Store people durably; returns their ids (keyed commitments to `Person.ref`). Raises: StoreError."""
        ...

    def get(self, person_ids: Sequence[str]) -> Mapping[str, Person]:
        """Who these ids are; erased ones are missing. Raises: StoreError."""
        ...


class VaultRows(Protocol):
    """Where a vault keeps its encrypted rows: (person id, wrapped key, sealed contact)."""

    def put_rows(self, rows: Sequence[tuple[str, bytes, bytes]]) -> None:
        """Insert or replace, durably. Raises: StoreError."""
        ...

    def get_rows(self, person_ids: Sequence[str]) -> list[tuple[str, bytes, bytes]]:
        """Rows that exist, in any order. Raises: StoreError."""
        ...

    def erase_row(self, person_id: str) -> bool:
        """Destroy one row so that no byte of it stays in the file. Raises: StoreError."""
        ...


class ChannelSender(Protocol):
    """One way out, used by one thread: keeps its connection between messages."""

    def send(self, message: OutgoingMessage) -> Accepted:
        """Try once. Raises: TransientDeliveryError, AmbiguousDeliveryError, ChannelDownError, PermanentDeliveryError.

        May not answer for as long as its time limit; `close` from another thread ends the waiting.
        """
        ...

    def close(self) -> None:
        """Drop the connection; the next `send` makes a new one."""
        ...


class OutboxRows(Protocol):
    """Campaigns and deliveries inside one open transaction, as the sending engine needs them."""

    def campaigns(self, states: Sequence[CampaignState] = ...) -> list[Campaign]: ...

    def campaign(self, campaign_id: str) -> Campaign | None: ...

    def content(self, campaign_id: str) -> bytes: ...

    def set_campaign_state(self, campaign_id: str, state: CampaignState) -> None: ...

    def claim(
        self,
        worker: str,
        now: datetime,
        limit: int,
        lease_s: float,
        *,
        channel: Channel | None = None,
        retries: int = ...,
    ) -> list[Delivery]: ...

    def has_due(self, now: datetime, channel: Channel) -> bool: ...

    def has_open(self, campaign_id: str) -> bool: ...

    def record(self, results: Sequence[DeliveryResult]) -> list[DeliveryResult]: ...

    def add_fallback(self, rows: Sequence[Delivery]) -> list[Delivery]: ...

    def counts(self, campaign_id: str) -> Mapping[DeliveryState, int]: ...

    def renew(self, worker: str, until: datetime) -> None: ...

    def reclaim_expired(self, now: datetime) -> int: ...

    def release_all(self) -> int: ...


class OutboxTransaction(Protocol):
    """One atomic unit of the sending engine."""

    @property
    def outbox(self) -> OutboxRows: ...

    def audit(self, *entries: Entry) -> None: ...


class OutboxStore(Protocol):
    """Where the sending engine keeps what it does."""

    def transaction(self) -> AbstractContextManager[OutboxTransaction]:
        """All or nothing, durable at the end of the block. Raises: StoreError, AuditError."""
        ...

    def reading(self) -> AbstractContextManager[OutboxTransaction]:
        """A consistent view. Raises: StoreError."""
        ...
