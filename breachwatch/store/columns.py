"""Column types and statements that mean the same on SQLite and PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from sqlalchemy import BigInteger, Connection, Dialect, Table, Text, literal
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DontWrapMixin
from sqlalchemy.sql.dml import ReturningInsert
from sqlalchemy.types import TypeDecorator

from breachwatch.errors import RowError, StoreError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class _ColumnError(StoreError, DontWrapMixin):
    """Reaches the caller as it is: SQLAlchemy would wrap it into an error of its own, with the parameters."""


class _DamagedError(RowError, DontWrapMixin):
    """The same of a stored value that cannot be read."""


class UtcMicros(TypeDecorator[datetime]):
    """An aware instant as whole microseconds since 1970: exact, ordered, the same in both databases."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """To the database. Raises: StoreError for a time without a zone."""
        del dialect
        if value is None:
            return None
        if value.tzinfo is None:
            raise _ColumnError("a time without a zone cannot be stored", hint="this is a defect: report it")
        return (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        """From the database, in UTC."""
        del dialect
        return None if value is None else _EPOCH + timedelta(microseconds=value)


class Json(TypeDecorator[Any]):
    """A JSON value as ASCII text: NUL and lone surrogates stay escaped, which both databases accept."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """To the database."""
        del dialect
        return None if value is None else json.dumps(value, separators=(",", ":"))

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """From the database. Raises: StoreError when the stored text is no JSON."""
        del dialect
        if value is None:
            return None
        try:
            return json.loads(value)
        except ValueError as error:
            raise _DamagedError("a stored row is damaged: no JSON", hint="check the disk; restore a backup") from error


class HostileText(TypeDecorator[str]):
    """Text that may hold what a database refuses: NUL and lone surrogates are stored as visible escapes."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """To the database."""
        del dialect
        if value is None:
            return None
        return value.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")


def insert_ignoring(connection: Connection, table: Table, values: Mapping[str, Any]) -> bool:
    """Insert a row unless its key is there; returns whether it was new."""
    statement = _insert_ignoring(connection.dialect.name, table)
    # asked of the row itself: psycopg leaves rowcount of an INSERT unset
    return connection.execute(statement, dict(values)).one_or_none() is not None


def insert_or_update(
    connection: Connection, table: Table, values: Mapping[str, Any], *, key: Sequence[str], update: Sequence[str]
) -> None:
    """Insert a row, or give the columns `update` their new values where the row with this key is there."""
    statement = _insert(connection.dialect.name, table)
    new = {name: statement.excluded[name] for name in update}
    connection.execute(statement.on_conflict_do_update(index_elements=list(key), set_=new), dict(values))


@lru_cache(maxsize=64)
def _insert_ignoring(dialect: str, table: Table) -> ReturningInsert[Any]:
    """Built once: building a statement costs more than running it."""
    return _insert(dialect, table).on_conflict_do_nothing().returning(literal(1))


def _insert(dialect: str, table: Table) -> sqlite.Insert | postgresql.Insert:
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
