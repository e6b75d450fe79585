"""The hub's state: one transaction carries the change, the outbox rows and the audit entries that belong together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine
from sqlalchemy.pool import PoolProxiedConnection

from breachwatch.model import Entry
from breachwatch.ports import Auditor
from breachwatch.store.audit import SqlAuditTiles
from breachwatch.store.database import store_errors
from breachwatch.store.incidents import IncidentTable
from breachwatch.store.outbox import OutboxTable
from breachwatch.store.steps import StepTable


class HubTransaction:
    """What can be read and changed in one atomic unit. Audit entries are appended once, right before commit."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.incidents = IncidentTable(connection)
        self.steps = StepTable(connection)
        self.outbox = OutboxTable(connection)
        self.audit_tiles = SqlAuditTiles(connection)
        self._entries: list[Entry] = []

    def audit(self, *entries: Entry) -> None:
        """Add entries to the trail; they become durable with this transaction or not at all."""
        self._entries.extend(entries)

    def pending_entries(self) -> list[Entry]:
        """Entries added so far."""
        return self._entries


class HubStore:
    """Incidents, playbook steps, outbox and audit trail in one database."""

    def __init__(self, engine: Engine, auditor: Auditor) -> None:
        self._engine = engine
        self._auditor = auditor
        self._polled: PoolProxiedConnection | None = None

    def change_token(self) -> int | None:
        """A number that changes when any connection commits: cheap to poll, by one thread. None: always look.

        Raises: StoreError.
        """
        if self._engine.dialect.name != "sqlite":
            return None
        with store_errors("the hub's database"):
            if self._polled is None:
                self._polled = self._engine.raw_connection()
            cursor = self._polled.cursor()
            try:
                cursor.execute("PRAGMA data_version")
                row = cursor.fetchone()
                return None if row is None else int(row[0])
            finally:
                cursor.close()

    def close(self) -> None:
        """Release the database."""
        if self._polled is not None:
            self._polled.close()
            self._polled = None
        self._engine.dispose()

    @contextmanager
    def transaction(self) -> Iterator[HubTransaction]:
        """Begin (one writer at a time), yield, append the audit entries, commit; roll back on any error.

        Raises: StoreError, AuditError.
        """
        with store_errors("the hub's database"), self._engine.begin() as connection:
            transaction = HubTransaction(connection)
            yield transaction
            if entries := transaction.pending_entries():
                self._auditor.append(transaction.audit_tiles, entries)

    @contextmanager
    def reading(self) -> Iterator[HubTransaction]:
        """A consistent view without the writer's lock. Raises: StoreError."""
        with store_errors("the hub's database"), self._engine.connect() as plain:
            yield HubTransaction(plain.execution_options(reads_only=True))
