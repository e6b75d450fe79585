"""Opening the hub's database: SQLite on one host, PostgreSQL for an HA hub. The only engine settings there are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, MetaData, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from breachwatch.errors import StoreError

metadata = MetaData()
"""Every table of the hub hangs here; migrations are checked against it."""

BUSY_TIMEOUT_MS = 30_000
"""How long a writer waits for another process of the same hub (CLI beside daemon) before it gives up."""


def open_database(url: str) -> Engine:
    """An engine whose commits are durable (SQLite: WAL, FULL) and whose writers queue. Raises: StoreError."""
    if not url.startswith("sqlite:"):
        return create_engine(url, pool_pre_ping=True)
    engine = create_engine(url, poolclass=QueuePool, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000})

    @event.listens_for(engine, "connect")
    def _configure(connection, _record):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        connection.isolation_level = None  # we begin transactions ourselves
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        reads = connection.get_execution_options().get("reads_only", False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite file."""
    return f"sqlite:///{os.fspath(path.absolute())}"


@contextmanager
def store_errors(what: str) -> Iterator[None]:
    """Turn database errors into StoreError, without statement parameters (they may hold contacts)."""
    try:
        yield
    except DBAPIError as error:
        reason = str(error.orig).splitlines()[0] if error.orig else type(error).__name__
        hint = "free space on the state volume" if "full" in reason else None
        raise StoreError(f"{what}: {reason}", hint=hint) from error
