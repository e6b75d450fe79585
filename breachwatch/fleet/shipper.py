"""From the spool to the server: read, send, and acknowledge only what the server said it has.

The spool is the agent's own signal table, durable before anything is sent. A crash between the server's yes and our
acknowledgement sends the same ids again, and the server keeps each id once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from breachwatch.errors import FleetError, RequestRefusedError
from breachwatch.fleet.documents import Document, document
from breachwatch.model import Signal
from breachwatch.ports import Clock, SignalStore

READER = "telemetry"
"""Under this name what the server has is acknowledged in the signal table."""

BATCH = 500
"""Signals read at once; bounds memory and what a crash sends again."""

REQUEST_BYTES = 4 << 20
"""Of one request; the server's own limit is 100 MB, its advice 5 to 15 MB. Source: Elasticsearch, bulk API."""


class Spool(SignalStore, Protocol):
    """A signal store that remembers how far each reader came."""

    def acknowledged(self, reader: str) -> int:
        """How far `reader` has come; 0 at first. Raises: StoreError."""
        ...


class Server(Protocol):
    """What takes documents. Raises: FleetError, RequestRefusedError."""

    def create(self, documents: Sequence[Document]) -> dict[str, str]: ...


@dataclass(slots=True)
class Shipper:
    """Moves signals on. `on_refused` hears of each one that the server will never take, before it is acknowledged."""

    spool: Spool
    server: Server
    clock: Clock
    prefix: str
    on_refused: Callable[[Signal, str], None]
    version: str = ""

    def ship(self) -> int:
        """Send one batch; returns how many signals are done with. Raises: FleetError (try again later), StoreError."""
        batch = self.spool.read_signals(after=self.spool.acknowledged(READER), limit=BATCH)
        for signals, documents in self._requests(batch):
            refused = self._send(documents)
            if len(refused) == len(documents) and all(said.whole for said in refused.values()):
                # nothing at all got through: that is the server's or the setting's fault, not that of every document
                raise FleetError(f"takes none of {len(documents)} documents: {next(iter(refused.values())).reason}")
            for signal, item in zip(signals, documents, strict=True):
                if item.id in refused:
                    self.on_refused(signal, refused[item.id].reason)
            self.spool.acknowledge(READER, signals[-1].seq)
        return len(batch)

    def _requests(self, batch: Sequence[Signal]) -> Iterator[tuple[list[Signal], list[Document]]]:
        signals: list[Signal] = []
        documents: list[Document] = []
        size = 0
        for signal in batch:
            item = document(signal, prefix=self.prefix, ingested_at=self.clock.now(), version=self.version)
            if documents and size + len(item.source) > REQUEST_BYTES:
                yield signals, documents
                signals, documents, size = [], [], 0
            signals.append(signal)
            documents.append(item)
            size += len(item.source)
        if documents:
            yield signals, documents

    def _send(self, documents: Sequence[Document]) -> dict[str, Refusal]:
        """Send them; a request refused as a whole is halved until the document that spoils it stands alone."""
        try:
            refused = self.server.create(documents)
        except RequestRefusedError as error:
            if len(documents) == 1:
                return {documents[0].id: Refusal(reason=error.message, whole=True)}
            middle = len(documents) // 2
            return self._send(documents[:middle]) | self._send(documents[middle:])
        return {identity: Refusal(reason=reason) for identity, reason in refused.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a document was not taken."""

    reason: str
    whole: bool = False
    """The server refused the request rather than the document in it."""
