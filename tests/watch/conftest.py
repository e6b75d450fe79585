from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from breachwatch.watch.files import LogSpec
from tests.conftest import FakeClock
from tests.watch.reader import Reader


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "app.log"


@pytest.fixture
def read(clock: FakeClock) -> Iterator[Callable[..., Reader]]:
    """Makes readers, and closes them at the end."""
    readers: list[Reader] = []

    def make(pattern: Path | str, **spec: object) -> Reader:
        reader = Reader(str(pattern), clock, LogSpec(pattern=str(pattern), **spec))  # type: ignore[arg-type]
        readers.append(reader)
        return reader

    yield make
    for reader in readers:
        reader.close()
