"""The hub's schema on SQLite and PostgreSQL: migrated once whoever starts at once, and never into what is not ours."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, inspect, make_url, text

import breachwatch.store.hub  # every table  # noqa: F401
from breachwatch.errors import StoreError
from breachwatch.store import migrate as migration
from breachwatch.store.database import metadata, open_database, sqlite_url
from breachwatch.store.migrate import HEAD, migrate
from tests.store.together import all_end_well

SECRET = "never-shown"


@dataclass
class Place:
    """An empty database, and how another process reaches it."""

    url: str

    def open(self) -> Engine:
        return open_database(self.url)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "sqlite":
        yield Place(sqlite_url(tmp_path / "hub.db"))
        return
    url = make_url(request.getfixturevalue("postgresql_url"))
    schema = f"breachwatch_test_{uuid.uuid4().hex}"
    outer = open_database(url.render_as_string(hide_password=False))
    with outer.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {schema}"))
    inside = url.update_query_dict({"options": f"-csearch_path={schema}"})
    yield Place(inside.render_as_string(hide_password=False))
    with outer.begin() as connection:
        connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
    outer.dispose()


@pytest.fixture
def engine(place: Place) -> Iterator[Engine]:
    made = place.open()
    yield made
    made.dispose()


def revision(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT version_num FROM alembic_version")).scalars())


def shape(engine: Engine) -> dict[str, object]:
    """Columns, keys and indices of every table as the database tells them."""
    seen = inspect(engine)
    return {
        name: (
            [(one["name"], str(one["type"]), one["nullable"]) for one in seen.get_columns(name)],
            seen.get_pk_constraint(name)["constrained_columns"],
            sorted((tuple(one["constrained_columns"]), one["referred_table"]) for one in seen.get_foreign_keys(name)),
            sorted((str(one["name"]), tuple(map(str, one["column_names"])), bool(one["unique"]))
                   for one in seen.get_indexes(name)),
        )
        for name in sorted(seen.get_table_names())
        if name != "alembic_version"
    }  # fmt: skip


def test_the_migrated_schema_is_that_of_the_code(engine: Engine) -> None:
    migrate(engine)
    assert revision(engine) == [HEAD]
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    migrated = shape(engine)
    assert set(migrated) == set(metadata.tables)
    with engine.begin() as connection:
        metadata.drop_all(connection)
    metadata.create_all(engine)
    assert shape(engine) == migrated


def test_a_difference_would_be_found(engine: Engine) -> None:
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(text("DROP INDEX step_run_by_due"))
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) != []


def test_migrating_again_changes_nothing(engine: Engine) -> None:
    migrate(engine)
    before = shape(engine)
    migrate(engine)
    assert (shape(engine), revision(engine)) == (before, [HEAD])


STARTER = """
import sys
from breachwatch.store.database import open_database
from breachwatch.store.migrate import migrate
engine = open_database(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
migrate(engine)
engine.dispose()
"""


def test_many_processes_that_start_at_once_all_find_it_done(place: Place) -> None:
    all_end_well(STARTER, place.url, count=4)
    engine = place.open()
    assert revision(engine) == [HEAD]
    assert set(shape(engine)) == set(metadata.tables)
    engine.dispose()


def refused(engine: Engine) -> StoreError:
    before = shape(engine)
    with pytest.raises(StoreError) as error:
        migrate(engine)
    assert shape(engine) == before, "what is refused is left as it is"
    assert SECRET not in str(error.value)
    return error.value


def test_a_newer_schema_is_refused_with_both_versions(engine: Engine) -> None:
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0999'"))
    error = refused(engine)
    assert f"of a newer version (0999; this program knows {HEAD})" in str(error)
    assert "upgrade this program" in str(error)
    assert error.source is not None


@pytest.mark.parametrize("other", ["ae1027a6acf1", "0000", "000"])
def test_the_database_of_another_program_that_uses_alembic_is_refused(engine: Engine, other: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"))
        connection.execute(text("INSERT INTO alembic_version VALUES (:other)"), {"other": other})
        connection.execute(text("CREATE TABLE orders (id INTEGER PRIMARY KEY)"))
    assert "not a hub's database" in str(refused(engine))


@pytest.mark.parametrize("table", ["incident", "delivery"])
def test_tables_of_ours_without_a_version_are_refused(engine: Engine, table: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY)"))
    assert "but no version" in str(refused(engine))


def test_a_sqlite_file_with_foreign_tables_is_refused(tmp_path: Path) -> None:
    engine = open_database(sqlite_url(tmp_path / "bookmarks.db"))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE moz_places (id INTEGER PRIMARY KEY)"))
    assert "not a hub's database" in str(refused(engine))
    engine.dispose()


@pytest.mark.parametrize("content", [b"#!/bin/sh\necho this is no database at all\n" * 50, os.urandom(8_192)])
def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "hub.db"
    file.write_bytes(content)
    engine = open_database(sqlite_url(file))
    with pytest.raises(StoreError, match="not a database"):
        migrate(engine)
    engine.dispose()
    assert file.read_bytes() == content


def test_a_migration_that_fails_half_way_leaves_nothing_behind(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with engine.begin() as connection:
        before = set(inspect(connection).get_table_names())
    upgrade = migration._upgrade

    def torn(connection) -> None:
        upgrade(connection)
        raise StoreError("the power went")

    monkeypatch.setattr(migration, "_upgrade", torn)
    with pytest.raises(StoreError, match="the power went"):
        migrate(engine)
    monkeypatch.undo()
    assert set(inspect(engine).get_table_names()) == before
    migrate(engine)
    assert revision(engine) == [HEAD]
