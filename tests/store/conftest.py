"""Connections to an empty database: SQLite always; PostgreSQL too where BREACHWATCH_TEST_POSTGRESQL names one."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, text

import breachwatch.store.incidents
import breachwatch.store.steps
from breachwatch.store.database import metadata, open_database, sqlite_url

HUB_TABLES = [*breachwatch.store.incidents.TABLES, *breachwatch.store.steps.TABLES]

POSTGRESQL_URL = os.environ.get("BREACHWATCH_TEST_POSTGRESQL", "")


@pytest.fixture(params=["sqlite", "postgresql"] if POSTGRESQL_URL else ["sqlite"])
def hub_engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An engine on a database (PostgreSQL: a schema of its own) that holds the empty tables of incidents and steps."""
    if request.param == "sqlite":
        engine = open_database(sqlite_url(tmp_path / "hub.sqlite"))
        metadata.create_all(engine, tables=HUB_TABLES)
        yield engine
        engine.dispose()
        return
    schema = f"breachwatch_test_{uuid.uuid4().hex}"
    outer = open_database(POSTGRESQL_URL)
    with outer.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {schema}"))
    engine = open_database(f"{POSTGRESQL_URL}?options=-csearch_path%3D{schema}")
    metadata.create_all(engine, tables=HUB_TABLES)
    yield engine
    engine.dispose()
    with outer.begin() as connection:
        connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
    outer.dispose()


@pytest.fixture
def connection(hub_engine: Engine) -> Iterator[Connection]:
    """One open transaction."""
    with hub_engine.begin() as opened:
        yield opened
