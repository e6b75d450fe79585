"""File integrity, wired: settings to a watcher, for the agent and for the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from breachwatch.app.state import StateLayout
from breachwatch.ports import Clock
from breachwatch.store.agent import SqliteAgentStore
from breachwatch.watch.critical import default_paths, own_paths
from breachwatch.watch.integrity import Integrity, Options
from breachwatch.watch.integrity.dpkg import Dpkg
from breachwatch.watch.integrity.packages import Packages
from breachwatch.watch.integrity.rpm import Rpm
from breachwatch.watch.integrity.seal import Sealer, load_or_create_key


def open_sealer(layout: StateLayout, clock: Clock) -> Sealer:
    """The agent's sealer with its key and counter. Raises: StoreError."""
    return Sealer(load_or_create_key(layout.keys / "baseline.key"), layout.keys / "baseline.counter", clock.now)


def open_packages(clock: Clock, root: Path = Path("/")) -> Packages:
    """The package managers that this host has."""
    managers = [manager for manager in (Dpkg(root), Rpm(root)) if manager.is_there]
    return Packages(managers, clock.monotonic)


def watched_paths(configured: Sequence[str], *, own_files: bool) -> tuple[str, ...]:
    """The configured paths, else the critical ones that this host has; and the agent's own program."""
    return (*(configured or default_paths()), *(own_paths() if own_files else ()))


def open_integrity(
    options: Options,
    store: SqliteAgentStore,
    clock: Clock,
    layout: StateLayout,
    notify: Callable[[], None] | None = None,
) -> Integrity:
    """A watcher of this host's files. Raises: StoreError."""
    packages = open_packages(clock)
    packages.remember()
    return Integrity(
        options, store, clock=clock, sealer=open_sealer(layout, clock), notify=notify,
        packages=packages,
    )  # fmt: skip
