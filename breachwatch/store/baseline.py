"""The tables of the file integrity baseline: packed directory rows, open deviations, texts, and their seal."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from datetime import datetime

from breachwatch.errors import StoreError
from breachwatch.model import KEPT_JOURNAL, BaselineHead, BaselineUpdate, Deviation, DirectoryRow, JournalEntry, Seal
from breachwatch.ports import BaselineSealer

TABLES = (
    ("CREATE TABLE directory (path BLOB PRIMARY KEY, names BLOB NOT NULL, meta BLOB NOT NULL, rest BLOB NOT NULL)"),
    (
        "CREATE TABLE baseline_leaf (kind INTEGER NOT NULL, path BLOB NOT NULL, bucket INTEGER NOT NULL,"
        " hash BLOB NOT NULL, PRIMARY KEY (kind, path)) WITHOUT ROWID"
    ),
    "CREATE INDEX baseline_leaf_bucket ON baseline_leaf (bucket)",
    "CREATE TABLE baseline_node (bucket INTEGER PRIMARY KEY, hash BLOB NOT NULL)",
    (
        "CREATE TABLE deviation (path BLOB PRIMARY KEY, before BLOB NOT NULL, seen_at TEXT NOT NULL,"
        " explained_by TEXT NOT NULL) WITHOUT ROWID"
    ),
    "CREATE TABLE content (path BLOB PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID",
    (
        "CREATE TABLE baseline_journal (counter INTEGER PRIMARY KEY, at TEXT NOT NULL, actor TEXT NOT NULL,"
        " kind TEXT NOT NULL, summary TEXT NOT NULL, root BLOB NOT NULL, previous BLOB NOT NULL, hash BLOB NOT NULL)"
    ),
    (
        "CREATE TABLE baseline_head (one INTEGER PRIMARY KEY CHECK (one = 1), counter INTEGER NOT NULL,"
        " root BLOB NOT NULL, chain BLOB NOT NULL, at TEXT NOT NULL, signature BLOB NOT NULL)"
    ),
)

Row = tuple[bytes, bytes, bytes, bytes, bytes]

_ROWS = (
    "SELECT CAST(directory.path AS BLOB), CAST(names AS BLOB), CAST(meta AS BLOB), CAST(rest AS BLOB),"
    " CAST(coalesce(hash, x'00') AS BLOB) FROM directory"  # whatever an attacker's hand has left there
    " LEFT JOIN baseline_leaf AS leaf ON leaf.kind = 0 AND leaf.path = directory.path"
)


class BaselineTables:
    """Reads and writes on one open connection. `ports.SealView`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    # -- reading --------------------------------------------------------------------------------------------------

    def row(self, path: bytes) -> DirectoryRow | None:
        """One directory."""
        found = self._connection.execute(f"{_ROWS} WHERE directory.path = ?", (path,)).fetchone()
        return None if found is None else _row(found)

    def rows(self, *, under: bytes, after: bytes | None, limit: int) -> Sequence[DirectoryRow]:
        """A page of a subtree in byte order of the paths."""
        stem = under.rstrip(b"/")
        low, high = stem + b"/", stem + b"0"  # '0' follows '/'
        found: list[Row] = []
        if after is None:
            found += self._connection.execute(f"{_ROWS} WHERE directory.path = ?", (under,)).fetchall()
        query = f"{_ROWS} WHERE directory.path > ? AND directory.path < ? ORDER BY directory.path LIMIT ?"
        start = low if after is None or after == under else after
        found += self._connection.execute(query, (start, high, limit - len(found))).fetchall()
        return [_row(item) for item in found]

    def deviation(self, path: bytes) -> Deviation | None:
        """One open deviation."""
        query = "SELECT path, before, seen_at, explained_by FROM deviation WHERE path = ?"
        found = self._connection.execute(query, (path,)).fetchone()
        return None if found is None else _deviation(found)

    def deviations(self) -> Iterator[Deviation]:
        """All open deviations in byte order."""
        query = "SELECT path, before, seen_at, explained_by FROM deviation ORDER BY path"
        for found in self._connection.execute(query):
            yield _deviation(found)

    def content(self, path: bytes) -> bytes | None:
        """Stored text of one file."""
        found = self._connection.execute("SELECT body FROM content WHERE path = ?", (path,)).fetchone()
        return None if found is None else bytes(found[0])

    def count(self) -> int:
        """Known directories."""
        return int(self._connection.execute("SELECT count(*) FROM directory").fetchone()[0])

    def head(self) -> BaselineHead | None:
        """The sealed summary."""
        found = self._connection.execute("SELECT counter, root, chain, at, signature FROM baseline_head").fetchone()
        if found is None:
            return None
        counter, root, chain, at, signature = found
        at_utc = datetime.fromisoformat(at)
        return BaselineHead(counter=counter, root=root, chain=chain, at_utc=at_utc, signature=signature)

    def nodes(self) -> list[tuple[int, bytes]]:
        """Hash of each node that has one."""
        return self._connection.execute("SELECT bucket, hash FROM baseline_node").fetchall()

    def leaves(self, bucket: int) -> Iterator[tuple[tuple[int, bytes], bytes]]:
        """((kind, path), hash) of all that hangs below one node."""
        query = "SELECT kind, path, hash FROM baseline_leaf WHERE bucket = ?"
        for kind, path, digest in self._connection.execute(query, (bucket,)):
            yield (kind, path), digest

    def all_rows(self) -> Iterator[DirectoryRow]:
        """Every directory."""
        yield from map(_row, self._connection.execute(_ROWS))

    def contents(self) -> Iterator[tuple[bytes, bytes]]:
        """Every stored text."""
        yield from self._connection.execute("SELECT path, body FROM content")

    def journal(self) -> Iterator[JournalEntry]:
        """Oldest first."""
        query = "SELECT counter, at, actor, kind, summary, root, previous, hash FROM baseline_journal ORDER BY counter"
        for counter, at, actor, kind, summary, root, previous, digest in self._connection.execute(query):
            yield JournalEntry(
                counter=counter, at_utc=datetime.fromisoformat(at), actor=actor, kind=kind, summary=summary, root=root,
                previous=previous, hash=digest,
            )  # fmt: skip

    # -- writing --------------------------------------------------------------------------------------------------

    def write(self, update: BaselineUpdate, sealer: BaselineSealer | None) -> None:
        """Store a change with its seal. Raises: StoreError (nobody to seal it), sqlite3.Error."""
        if sealer is None:
            raise StoreError("a change of the baseline without a seal")
        seal = sealer.seal(self, update)
        run = self._connection.executemany
        run("DELETE FROM directory WHERE path = ?", [(path,) for path in update.deleted])
        run(
            "INSERT OR REPLACE INTO directory (path, names, meta, rest) VALUES (?, ?, ?, ?)",
            [(row.path, row.names, row.meta, row.rest) for row in update.rows],
        )
        run("DELETE FROM deviation WHERE path = ?", [(path,) for path in update.settled])
        run(
            "INSERT OR REPLACE INTO deviation VALUES (?, ?, ?, ?)",
            [(item.path, item.before, item.seen_at.isoformat(), item.explained_by) for item in update.deviations],
        )
        run("INSERT OR REPLACE INTO content VALUES (?, ?)", update.contents)
        self._write_seal(seal)

    def _write_seal(self, seal: Seal) -> None:
        run = self._connection.executemany
        run("DELETE FROM baseline_leaf WHERE kind = ? AND path = ?", seal.gone)
        run(
            "INSERT OR REPLACE INTO baseline_leaf VALUES (?, ?, ?, ?)",
            [(leaf.kind, leaf.path, leaf.bucket, leaf.hash) for leaf in seal.leaves],
        )
        run("INSERT OR REPLACE INTO baseline_node VALUES (?, ?)", list(seal.nodes.items()))
        if (entry := seal.entry) is not None:
            self._connection.execute(
                "INSERT INTO baseline_journal VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    entry.counter, entry.at_utc.isoformat(), entry.actor, entry.kind, entry.summary, entry.root,
                    entry.previous, entry.hash,
                ),
            )  # fmt: skip
            self._connection.execute("DELETE FROM baseline_journal WHERE counter <= ?", (entry.counter - KEPT_JOURNAL,))
        if (head := seal.head) is not None:
            self._connection.execute(
                "INSERT OR REPLACE INTO baseline_head VALUES (1, ?, ?, ?, ?, ?)",
                (head.counter, head.root, head.chain, head.at_utc.isoformat(), head.signature),
            )

    def clear(self) -> None:
        """Forget everything: whoever begins anew signs under the next counter."""
        for table in ("directory", "baseline_leaf", "baseline_node", "deviation", "content", "baseline_journal",
                      "baseline_head"):  # fmt: skip
            self._connection.execute(f"DELETE FROM {table}")  # noqa: S608  # names from the line above


def _row(found: Row) -> DirectoryRow:
    path, names, meta, rest, leaf = found
    return DirectoryRow(path=path, names=names, meta=meta, rest=rest, leaf=leaf)


def _deviation(found: tuple[bytes, bytes, str, str]) -> Deviation:
    path, before, seen_at, explained_by = found
    return Deviation(path=path, before=before, seen_at=datetime.fromisoformat(seen_at), explained_by=explained_by)
