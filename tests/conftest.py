"""Fixtures that more than one test folder needs."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.postgresql import private_server, server_programs

ROOT = Path(__file__).resolve().parent.parent

# that a shared machine was busy is no failure
settings.register_profile("breachwatch", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("breachwatch")


class FakeClock:
    """A clock that moves only when a test moves it."""

    def __init__(self, start: datetime = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)) -> None:
        self._now = start
        self._monotonic = 0.0

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)
        self._monotonic += seconds


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Other people's logs, attacks, mails and proofs; never part of the repository."""
    folder = Path(os.environ.get("BREACHWATCH_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "README.md").is_file():
        pytest.skip(f"test data not found at {folder}: set BREACHWATCH_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """A PostgreSQL database: the one that BREACHWATCH_TEST_POSTGRESQL names, else a private server's."""
    named = os.environ.get("BREACHWATCH_TEST_POSTGRESQL", "")
    if named:
        yield named
        return
    programs = server_programs()
    if programs is None:
        pytest.skip(
            "PostgreSQL not tried: install the package postgresql, "
            "or set BREACHWATCH_TEST_POSTGRESQL=postgresql+psycopg://user@host/database"
        )
    with private_server(programs) as url:
        yield url


@pytest.fixture(autouse=True)
def no_leaked_threads() -> Iterator[None]:
    """A test that leaves a thread behind fails."""
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if thread not in before and thread.is_alive()]
    for thread in left:
        thread.join(timeout=2)
    alive = [thread.name for thread in left if thread.is_alive()]
    assert not alive, f"threads left running: {alive}"
