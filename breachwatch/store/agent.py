"""What an agent keeps on disk: checkpoints, baseline, correlation state and the signals for the hub.

Plain sqlite3 and msgspec: the agent must stay small, so the hub's database library is not loaded here.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import msgspec

from breachwatch.errors import LockedError, StoreError
from breachwatch.model import BaselineUpdate, Checkpoint, Deviation, DirectoryRow, Signal
from breachwatch.ports import BaselineSealer
from breachwatch.store.baseline import TABLES as BASELINE_TABLES
from breachwatch.store.baseline import BaselineTables
from breachwatch.store.wal import use_wal

BUSY_TIMEOUT_S = 30.0
"""How long agent, hub and supervisor wait for one another."""

APPLICATION_ID = 0x42574147  # "BWAG"
"""SQLite's application_id: tells our file from somebody else's."""

MIGRATIONS = (
    (
        (
            "CREATE TABLE signal (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL,"
            " at TEXT NOT NULL, body BLOB NOT NULL)"
        ),
        "CREATE TABLE checkpoint (key TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID",
        "CREATE TABLE correlation (one INTEGER PRIMARY KEY CHECK (one = 1), state BLOB NOT NULL)",
        "CREATE TABLE baseline (path BLOB PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID",
        "CREATE TABLE reader (name TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID",
    ),
    ("DROP TABLE baseline", *BASELINE_TABLES),
)
"""Step n brings `user_version` from n to n + 1."""

_signal_decoder = msgspec.json.Decoder(Signal)
_checkpoint_decoder = msgspec.msgpack.Decoder(Checkpoint)


class SqliteAgentStore:
    """`ports.SignalStore`, and all that an agent remembers, in one SQLite file.

    `owner=True` is the agent itself: only one may be.
    """

    def __init__(self, path: Path, *, owner: bool = False) -> None:
        self._path = path
        self._lock = _own(path) if owner else None
        try:
            with self._errors():
                self._connection = self._open()
        except StoreError:
            self._unlock()
            raise

    def _open(self) -> sqlite3.Connection:
        if self._path.exists() and self._path.stat().st_uid != os.geteuid():
            raise StoreError(
                "the agent's state belongs to another user", source=str(self._path), hint="run as its owner"
            )
        self._path.touch(mode=0o600, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        use_wal(connection.execute)
        for pragma in ("synchronous=FULL", "cache_size=-2000"):
            connection.execute(f"PRAGMA {pragma}")
        self._migrate(connection)
        return connection

    def _migrate(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        is_new = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] and version == 0
        foreign = application != (0 if is_new else APPLICATION_ID)
        if foreign or version > len(MIGRATIONS):
            connection.execute("ROLLBACK")
            raise StoreError(
                "this file is not an agent's state, or of a newer version", source=str(self._path),
                hint="set state.directory to another place, or upgrade",
            )  # fmt: skip
        for step in MIGRATIONS[version:]:
            for statement in step:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={len(MIGRATIONS)}")
        connection.execute("COMMIT")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            hint = "free space on the state volume" if "full" in str(error) else None
            raise StoreError(f"the agent's state: {error}", source=str(self._path), hint=hint) from error
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise StoreError(f"the agent's state is damaged: {error}", source=str(self._path)) from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    # -- the agent's own ------------------------------------------------------------------------------------------

    def checkpoints(self) -> Mapping[str, Checkpoint]:
        """By checkpoint key. Raises: StoreError."""
        with self._errors():
            rows = self._connection.execute("SELECT key, body FROM checkpoint").fetchall()
            return {key: _checkpoint_decoder.decode(body) for key, body in rows}

    def correlation_state(self) -> bytes | None:
        """The detector's last snapshot. Raises: StoreError."""
        with self._errors():
            row = self._connection.execute("SELECT state FROM correlation").fetchone()
            return None if row is None else bytes(row[0])

    def commit(
        self,
        *,
        signals: Sequence[Signal],
        checkpoints: Sequence[Checkpoint],
        forgotten: Sequence[str] = (),
        correlation_state: bytes | None = None,
        baseline: BaselineUpdate | None = None,
        sealer: BaselineSealer | None = None,
    ) -> None:
        """All or nothing, durable on return. Raises: StoreError."""
        with self._transaction() as connection:
            self._insert_signals(connection, signals)
            connection.executemany("DELETE FROM checkpoint WHERE key = ?", [(key,) for key in forgotten])
            connection.executemany(
                "INSERT OR REPLACE INTO checkpoint VALUES (?, ?)",
                [(checkpoint_key(item), msgspec.msgpack.encode(item)) for item in checkpoints],
            )
            if correlation_state is not None:
                connection.execute("INSERT OR REPLACE INTO correlation VALUES (1, ?)", (correlation_state,))
            if baseline is not None:
                BaselineTables(connection).write(baseline, sealer)

    # -- the baseline ---------------------------------------------------------------------------------------------

    @property
    def baseline(self) -> BaselineTables:
        """The baseline's tables as they are now; reading them may raise sqlite3 errors: use inside `reading`."""
        return BaselineTables(self._connection)

    @contextmanager
    def reading(self) -> Iterator[BaselineTables]:
        """One consistent view of the baseline. Raises: StoreError."""
        with self._errors():
            self._connection.execute("BEGIN")
            try:
                yield BaselineTables(self._connection)
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("COMMIT")

    def clear_baseline(self) -> None:
        """Forget the baseline: somebody begins anew. Raises: StoreError."""
        with self._transaction() as connection:
            BaselineTables(connection).clear()

    def directory_row(self, path: bytes) -> DirectoryRow | None:
        """What is known of one directory's entries. Raises: StoreError."""
        with self._errors():
            return self.baseline.row(path)

    def directory_rows(self, *, under: bytes, after: bytes | None, limit: int) -> Sequence[DirectoryRow]:
        """Known directories of a subtree in byte order. Raises: StoreError."""
        with self._errors():
            return self.baseline.rows(under=under, after=after, limit=limit)

    def deviation(self, path: bytes) -> Deviation | None:
        """What a path was when it was last accepted, if it is not so now. Raises: StoreError."""
        with self._errors():
            return self.baseline.deviation(path)

    def content(self, path: bytes) -> bytes | None:
        """Stored text of a file, compressed. Raises: StoreError."""
        with self._errors():
            return self.baseline.content(path)

    # -- the queue to the hub -------------------------------------------------------------------------------------

    @staticmethod
    def _insert_signals(connection: sqlite3.Connection, signals: Iterable[Signal]) -> int:
        before = connection.total_changes
        connection.executemany(
            "INSERT OR IGNORE INTO signal (id, kind, at, body) VALUES (?, ?, ?, ?)",
            [_row(item) for item in signals],
        )
        return connection.total_changes - before

    def append_signals(self, signals: Iterable[Signal]) -> int:
        """Store signals whose id is new; returns how many were. Raises: StoreError."""
        with self._transaction() as connection:
            return self._insert_signals(connection, signals)

    def read_signals(self, *, after: int, limit: int) -> Sequence[Signal]:
        """Signals with `seq > after`, ascending. Raises: StoreError."""
        query = "SELECT seq, body FROM signal WHERE seq > ? ORDER BY seq LIMIT ?"
        with self._errors():
            rows = self._connection.execute(query, (after, limit)).fetchall()
            return [_with_seq(_signal_decoder.decode(body), seq) for seq, body in rows]

    def acknowledge(self, reader: str, seq: int) -> None:
        """`reader` needs nothing up to `seq` any more. Raises: StoreError."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO reader VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET seq = max(seq, excluded.seq)",
                (reader, seq),
            )

    def acknowledged(self, reader: str) -> int:
        """How far `reader` has come; 0 at first. Raises: StoreError."""
        with self._errors():
            row = self._connection.execute("SELECT seq FROM reader WHERE name = ?", (reader,)).fetchone()
            return 0 if row is None else int(row[0])

    def forget_reader(self, name: str) -> None:
        """`name` reads no more: what it has not acknowledged may be pruned. Raises: StoreError."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM reader WHERE name = ?", (name,))

    def beyond(self, reader: str, cap_bytes: int) -> tuple[int, int]:
        """(seq, count) of the oldest signals that `reader` has yet to take but that exceed `cap_bytes`; (0, 0) if none.

        Acknowledging that seq leaves the newest `cap_bytes` at most. Raises: StoreError.
        """
        query = (
            "SELECT coalesce(max(seq), 0), count(*) FROM (SELECT seq, sum(length(body)) OVER (ORDER BY seq DESC)"
            " AS total FROM signal WHERE seq > coalesce((SELECT seq FROM reader WHERE name = ?), 0)) WHERE total > ?"
        )
        with self._errors():
            seq, count = self._connection.execute(query, (reader, cap_bytes)).fetchone()
            return int(seq), int(count)

    def prune(self, before_utc: datetime) -> int:
        """Delete signals that are older and that every reader has acknowledged. Raises: StoreError."""
        with self._transaction() as connection:
            query = "DELETE FROM signal WHERE at < ? AND seq <= (SELECT coalesce(min(seq), 0) FROM reader)"
            return connection.execute(query, (_stamp(before_utc),)).rowcount

    def change_token(self) -> int:
        """A number that changes when another process commits here: cheap to poll. Raises: StoreError."""
        with self._errors():
            return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def close(self) -> None:
        """Release the file and the lock."""
        self._connection.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def checkpoint_key(checkpoint: Checkpoint) -> str:
    """One row per life of a file; one for the journal."""
    if checkpoint.cursor:
        return checkpoint.source
    return f"{checkpoint.source}\0{checkpoint.device}:{checkpoint.inode}"


def _with_seq(signal: Signal, seq: int) -> Signal:
    return Signal(
        id=signal.id, kind=signal.kind, at_utc=signal.at_utc, host=signal.host, match=signal.match, gap=signal.gap,
        action=signal.action, detail=signal.detail, seq=seq,
    )  # fmt: skip


def _row(signal: Signal) -> tuple[str, str, str, bytes]:
    try:
        return signal.id, str(signal.kind), _stamp(signal.at_utc), msgspec.json.encode(signal)
    except UnicodeEncodeError:  # a file name that is no UTF-8, in words about it: stored as visible escapes
        plain = _visible(msgspec.to_builtins(signal))
        return plain["id"], str(signal.kind), _stamp(signal.at_utc), msgspec.json.encode(plain)


def _visible(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_visible(name): _visible(item) for name, item in value.items()}
    return [_visible(item) for item in value] if isinstance(value, list | tuple) else value


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _own(path: Path) -> IO[bytes]:
    lock_path = path.with_suffix(path.suffix + ".lock")
    try:
        handle = lock_path.open("ab")
    except OSError as error:
        raise StoreError(f"cannot use the state directory: {error.strerror}", source=str(path.parent)) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.close()
        raise LockedError(
            "another breachwatch agent owns this state directory", source=str(path.parent),
            hint="stop it first, or set state.directory to another place",
        ) from error  # fmt: skip
    return handle
