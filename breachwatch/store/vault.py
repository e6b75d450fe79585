"""The vault's rows in a SQLite file of their own; `secure_delete` so that erased keys leave no bytes behind."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import ahocorasick_rs

from breachwatch.errors import StoreError
from breachwatch.store.wal import use_wal

LOOKUP = 500
"""Ids per query, below SQLite's variable limit."""

PIECE, STRIDE = 12, 4
"""An erased row is looked for by pieces of so many bytes, one every so many."""

READ_BYTES = 1 << 20


class SqliteVaultRows:
    """`ports.VaultRows` on one file."""

    def __init__(self, path: Path, *, timeout_s: float = 30.0) -> None:
        self._lock = threading.Lock()
        self._traces: set[bytes] = set()
        """Of rows that were deleted, and not looked for in the file yet."""
        with _errors(path):
            path.touch(mode=0o600, exist_ok=True)
            self._path = path
            self._connection = sqlite3.connect(path, timeout=timeout_s, isolation_level=None, check_same_thread=False)
            use_wal(self._connection.execute)
            for pragma in ("secure_delete=ON", "synchronous=FULL"):
                self._connection.execute(f"PRAGMA {pragma}")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS person"
                " (person_id TEXT PRIMARY KEY, wrapped_key BLOB NOT NULL, sealed BLOB NOT NULL) WITHOUT ROWID"
            )

    def put_rows(self, rows: Sequence[tuple[str, bytes, bytes]]) -> None:
        """Insert or replace, durable on return. Raises: StoreError."""
        with self._lock, _errors(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.executemany("INSERT OR REPLACE INTO person VALUES (?, ?, ?)", rows)
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def get_rows(self, person_ids: Sequence[str]) -> list[tuple[str, bytes, bytes]]:
        """Rows that exist. Raises: StoreError."""
        found: list[tuple[str, bytes, bytes]] = []
        with self._lock, _errors(self._path):
            for start in range(0, len(person_ids), LOOKUP):
                part = person_ids[start : start + LOOKUP]
                marks = ",".join("?" * len(part))
                query = f"SELECT person_id, wrapped_key, sealed FROM person WHERE person_id IN ({marks})"  # noqa: S608
                found.extend(self._connection.execute(query, part))
        return found

    def erase_row(self, person_id: str) -> bool:
        """Delete one row and rewrite the write-ahead log, so that no byte of the key stays. Raises: StoreError.

        `secure_delete` overwrites the row where it lies. When rows moved between pages, older copies may lie in what
        their pages do not use any more: then the whole file is written anew, before the row is deleted, so that a crash
        leaves a person to be erased again and not the remains of one who is gone. Reads the whole file twice.
        """
        with self._lock, _errors(self._path):
            query = "SELECT wrapped_key, sealed FROM person WHERE person_id = ?"
            row = self._connection.execute(query, (person_id,)).fetchone()
            if row is not None:
                pieces = _pieces(person_id.encode(), *row)
                self._traces |= pieces
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                if self._copies(pieces) > 1:
                    self._connection.execute("VACUUM")
                self._connection.execute("DELETE FROM person WHERE person_id = ?", (person_id,))
            self._checkpoint()
            if self._copies(self._traces):
                self._connection.execute("VACUUM")
                self._checkpoint()
            self._traces.clear()
        return row is not None

    def _checkpoint(self) -> None:
        if self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            raise StoreError(
                "erased, but another process still reads the vault: its write-ahead log keeps the old bytes",
                source=str(self._path),
                hint="repeat the erasure when that process has ended",
            )

    def _copies(self, pieces: Collection[bytes]) -> int:
        """How often the file holds that one of the pieces that it holds most often."""
        if not pieces:
            return 0
        find = ahocorasick_rs.BytesAhoCorasick(sorted(pieces)).find_matches_as_indexes
        found: Counter[int] = Counter()
        before = b""
        with self._path.open("rb") as file:
            while chunk := file.read(READ_BYTES):
                data = before + chunk
                found.update(number for number, _, _ in find(data, overlapping=True))
                before = data[1 - PIECE :]
        return max(found.values(), default=0)

    def close(self) -> None:
        """Release the file."""
        self._connection.close()


def _pieces(*erased: bytes) -> set[bytes]:
    return {whole[at : at + PIECE] for whole in erased for at in range(0, max(1, len(whole) - PIECE), STRIDE)}


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"the contact vault: {error}", source=str(path)) from error
