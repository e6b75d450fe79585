"""Connections to an empty database: SQLite always; PostgreSQL too where there is one (else those tests say so)."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, make_url, text

import breachwatch.store.incidents
import breachwatch.store.steps
from breachwatch.store.database import metadata, open_database, sqlite_url

HUB_TABLES = [*breachwatch.store.incidents.TABLES, *breachwatch.store.steps.TABLES]


@pytest.fixture(params=["sqlite", "postgresql"])
def hub_engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An engine on a database (PostgreSQL: a schema of its own) that holds the empty tables of incidents and steps."""
    if request.param == "sqlite":
        engine = open_database(sqlite_url(tmp_path / "hub.sqlite"))
        metadata.create_all(engine, tables=HUB_TABLES)
        yield engine
        engine.dispose()
        return
    url = make_url(request.getfixturevalue("postgresql_url"))
    schema = f"breachwatch_test_{uuid.uuid4().hex}"
    outer = open_database(url.render_as_string(hide_password=False))
    with outer.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {schema}"))
    inside = url.update_query_dict({"options": f"-csearch_path={schema}"})
    engine = open_database(inside.render_as_string(hide_password=False))
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
