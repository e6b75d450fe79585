"""One schema for SQLite and PostgreSQL, brought up to date by Alembic before a hub or a command uses the database.

Alembic is loaded only when there is something to do: a hub in steady state never pays for it.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

import breachwatch.store.hub  # noqa: F401  # every table
from breachwatch.errors import StoreError
from breachwatch.store.database import metadata, store_errors

REVISIONS = ("0001",)
"""Those in `migrations/versions`, oldest first."""

HEAD = REVISIONS[-1]
"""The newest."""

LOCK = 0x42574842  # "BWHB"
"""PostgreSQL's advisory lock: two hubs that start at once migrate one after the other."""

_FOLDER = Path(__file__).parent / "migrations"


def migrate(engine: Engine) -> None:
    """Bring the database to HEAD, atomically; nothing happens where it is there already.

    Raises: StoreError (foreign or newer database, damaged file, no permission).
    """
    with store_errors("the hub's database"):
        with engine.connect() as plain:
            known = _revision(plain.execution_options(reads_only=True))
        if known == HEAD:
            return
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            known = _revision(connection)  # another process may have been faster
            if known != HEAD:
                _refuse_foreign(connection, known)
                _upgrade(connection)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if found is None else str(found)


def _refuse_foreign(connection: Connection, known: str | None) -> None:
    where = str(connection.engine.url.render_as_string(hide_password=True))
    tables = set(inspect(connection).get_table_names()) - {"alembic_version"}
    if known is None and tables & set(metadata.tables):
        raise StoreError("this database has tables of ours but no version", source=where, hint="restore a backup")
    is_newer = known is not None and known > HEAD and "incident" in tables
    is_foreign = known not in REVISIONS if known is not None else tables and connection.dialect.name == "sqlite"
    if is_foreign and not is_newer:
        raise StoreError("this is not a hub's database", source=where, hint="name an empty one, or another place")
    if is_newer:
        raise StoreError(
            f"the hub's database is of a newer version ({known}; this program knows {HEAD})",
            source=where,
            hint="upgrade this program, or restore the backup that belongs to it",
        )


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
