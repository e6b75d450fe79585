"""Where the audit trail keeps its bytes in the hub's database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlalchemy import Column, Connection, Integer, LargeBinary, Table, delete, func, insert, select

from breachwatch.store.database import metadata

audit_entry = Table(
    "audit_entry",
    metadata,
    Column("idx", Integer, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
)

audit_tile = Table(
    "audit_tile",
    metadata,
    Column("level", Integer, primary_key=True, autoincrement=False),
    Column("idx", Integer, primary_key=True, autoincrement=False),
    Column("hashes", LargeBinary, nullable=False),
)

audit_checkpoint = Table(
    "audit_checkpoint",
    metadata,
    Column("size", Integer, primary_key=True, autoincrement=False),
    Column("note", LargeBinary, nullable=False),
)

READ_BATCH = 2_000


class SqlAuditTiles:
    """`ports.AuditTiles` inside one open transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def size(self) -> int:
        """Number of entries; ones that do not stand at their place count as missing."""
        highest = self._connection.execute(select(func.max(audit_entry.c.idx))).scalar()
        return 0 if highest is None else int(highest) + 1

    def tile(self, level: int, index: int) -> bytes | None:
        """One tile of hashes."""
        query = select(audit_tile.c.hashes).where(audit_tile.c.level == level, audit_tile.c.idx == index)
        return self._connection.execute(query).scalar()

    def put_tile(self, level: int, index: int, hashes: bytes) -> None:
        """Store a tile, replacing its shorter self."""
        place = (audit_tile.c.level == level) & (audit_tile.c.idx == index)
        self._connection.execute(delete(audit_tile).where(place))
        self._connection.execute(insert(audit_tile), {"level": level, "idx": index, "hashes": hashes})

    def put_entries(self, first: int, entries: Sequence[bytes]) -> None:
        """Store entries from index `first` on; an index that is taken is an error of the database."""
        rows = [{"idx": first + offset, "data": data} for offset, data in enumerate(entries)]
        self._connection.execute(insert(audit_entry), rows)

    def entries(self, first: int, last: int) -> Iterator[bytes]:
        """Entries `first <= index < last`; stops at the first that is missing."""
        for start in range(first, last, READ_BATCH):
            end = min(last, start + READ_BATCH)
            query = select(audit_entry.c.idx, audit_entry.c.data).where(
                audit_entry.c.idx >= start, audit_entry.c.idx < end
            )
            expected = start
            for index, data in self._connection.execute(query.order_by(audit_entry.c.idx)):
                if index != expected:
                    return
                yield bytes(data)
                expected += 1

    def put_checkpoint(self, size: int, note: bytes) -> None:
        """Store a signed head; earlier ones stay."""
        self._connection.execute(insert(audit_checkpoint), {"size": size, "note": note})

    def checkpoint(self) -> bytes | None:
        """The latest signed head."""
        query = select(audit_checkpoint.c.note).order_by(audit_checkpoint.c.size.desc()).limit(1)
        return self._connection.execute(query).scalar()
