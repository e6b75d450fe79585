from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.audit.trail import Trail


@pytest.fixture
def trail(tmp_path: Path) -> Iterator[Trail]:
    opened = Trail(tmp_path / "state")
    yield opened
    opened.close()
