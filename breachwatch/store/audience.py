"""Affected people from the company's own database: any SQLAlchemy address and one SELECT, read in a stream."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from breachwatch.errors import AudienceError
from breachwatch.model import Person
from breachwatch.model.contact import AudienceProblem, RowNormaliser, column_name

BATCH = 1_000
"""Rows fetched at a time."""


def read_query(
    url: str, query: str, *, source: str = "audience query", normaliser: RowNormaliser | None = None
) -> Iterator[Person | AudienceProblem]:
    """People and problems in the order of the query; its columns are id (needed), name, email, phone, language.

    The transaction is read-only where the database knows that, and is rolled back in any case.
    Raises: AudienceError, which never repeats the address (it may hold a password) or a row.
    """
    first = query.lstrip("( \t\r\n").split(None, 1)[:1]
    if not first or first[0].lower() not in {"select", "with", "values", "table"}:
        raise AudienceError("the audience query is no SELECT", source=source)
    rules = normaliser or RowNormaliser()
    try:
        engine = create_engine(url, poolclass=NullPool, hide_parameters=True)
    except (ArgumentError, NoSuchModuleError, ImportError, ValueError):
        raise AudienceError(
            "the audience address is none that SQLAlchemy knows, or its driver is not installed", source=source,
            hint="for example postgresql+psycopg://user@host/database",
        ) from None  # fmt: skip
    try:
        with engine.connect() as connection:
            _read_only(connection)
            try:
                yield from _rows(connection, query, source, rules)
            finally:
                connection.rollback()
    except SQLAlchemyError as error:
        raise AudienceError(f"the audience query failed: {_reason(error)}", source=source) from None
    finally:
        engine.dispose()


def _rows(connection: Connection, query: str, source: str, rules: RowNormaliser) -> Iterator[Person | AudienceProblem]:
    streaming = connection.execution_options(stream_results=True, yield_per=BATCH)
    # a colon in the query is SQL (a cast, a time), not one of our parameters
    result = streaming.execute(text(query.replace(":", r"\:")))
    if not result.returns_rows:
        raise AudienceError("the audience query gives no rows", source=source)
    header = [column_name(name) for name in tuple(result.keys())]
    if "id" not in header:
        raise AudienceError("the audience query gives no column `id`", source=source)
    for number, row in enumerate(result, start=1):
        yield from rules.normalise(dict(zip(header, row, strict=True)), f"{source}, row {number}")


def _read_only(connection: Connection) -> None:
    """Ask the database to refuse writes, where it can. Raises: SQLAlchemyError."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA query_only = ON")
    elif connection.dialect.name in {"postgresql", "mysql", "mariadb"}:
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")


def _reason(error: SQLAlchemyError) -> str:
    """The kind of failure: the database's own words may repeat rows or the address."""
    cause = getattr(error, "orig", None)
    return type(cause if cause is not None else error).__name__
