"""A real trail in a SQLite file, and the ways to damage it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection, Engine, text

from breachwatch.audit.keys import Signer, load_or_create_signer
from breachwatch.audit.log import TransparencyLog
from breachwatch.model import Entry
from breachwatch.store.audit import SqlAuditTiles, audit_checkpoint, audit_entry, audit_tile
from breachwatch.store.database import metadata, open_database, sqlite_url

ORIGIN = "trail.test.invalid/hub"
START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
TABLES = [audit_entry, audit_tile, audit_checkpoint]


def entries(count: int, first: int = 0) -> list[Entry]:
    return [
        Entry(
            type="notify.intent" if number % 2 else "notify.outcome",
            at_utc=START + timedelta(seconds=number),
            actor="system",
            incident_id="INC-2026-000001",
            body={"delivery": f"d{number}", "attempt": number, "note": "Hà Nội"},
        )
        for number in range(first, first + count)
    ]


class Trail:
    """One log on disk."""

    def __init__(self, folder: Path, *, origin: str = ORIGIN) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.signer: Signer = load_or_create_signer(folder, origin)
        self.verifier = self.signer.verifier
        self.engine: Engine = open_database(sqlite_url(folder / "hub.db"))
        metadata.create_all(self.engine, tables=TABLES)

    @contextmanager
    def tiles(self) -> Iterator[SqlAuditTiles]:
        with self.engine.begin() as connection:
            yield SqlAuditTiles(connection)

    def append(self, new: Sequence[Entry], *, batch: int | None = None) -> None:
        step = batch or max(1, len(new))
        for start in range(0, len(new), step):
            with self.tiles() as tiles:
                TransparencyLog(self.signer).append(tiles, new[start : start + step])

    def damage(self, change: Callable[[Connection], object]) -> None:
        with self.engine.begin() as connection:
            change(connection)

    def sql(self, *statements: str, **values: object) -> None:
        """What an intruder with the database in hand does."""
        with self.engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement), values)

    def scalar(self, query: str) -> bytes:
        with self.engine.begin() as connection:
            return bytes(connection.execute(text(query)).scalar_one())

    def close(self) -> None:
        self.engine.dispose()
