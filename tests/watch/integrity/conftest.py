"""Hosts that are stopped when their test ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.watch.integrity.host import Host


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def watch(tmp_path: Path, root: Path) -> Iterator[Callable[..., Host]]:
    """Start a host on `root`, or on the roots that are named."""
    hosts: list[Host] = []

    def start(*roots: Path | str, **options: object) -> Host:
        host = Host(tmp_path, list(roots) or [root], **options)
        hosts.append(host)
        return host.start()

    yield start
    for host in hosts:
        host.stop()
