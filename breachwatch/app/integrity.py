"""File integrity, wired: settings to a watcher, for the agent and for the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from breachwatch.app.state import StateLayout
from breachwatch.ports import Clock
from breachwatch.store.agent import SqliteAgentStore
from breachwatch.watch.critical import default_paths, own_paths
from breachwatch.watch.integrity import Integrity, Options
from breachwatch.watch.integrity.dpkg import Dpkg
from breachwatch.watch.integrity.judge import HASH_LIMIT_BYTES
from breachwatch.watch.integrity.packages import Packages
from breachwatch.watch.integrity.rpm import Rpm
from breachwatch.watch.integrity.seal import Sealer, load_or_create_key


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegritySettings:
    """As configured, as plain values."""

    paths: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    diffs: tuple[str, ...] = ()
    sweep_s: float = 300.0
    full_s: float = 86_400.0
    cpu_share: float = 0.25
    bytes_per_s: int = 64 << 20
    hash_limit_bytes: int = HASH_LIMIT_BYTES
    rolling_hash: str = "sha256"
    setuid_s: float = 3_600.0
    processes: bool = True
    own_files: bool = True
    fanotify: bool = False


def open_sealer(layout: StateLayout, clock: Clock) -> Sealer:
    """The agent's sealer with its key and counter. Raises: StoreError."""
    return Sealer(load_or_create_key(layout.keys / "baseline.key"), layout.keys / "baseline.counter", clock.now)


def open_packages(clock: Clock, root: Path = Path("/")) -> Packages:
    """The package managers that this host has."""
    managers = [manager for manager in (Dpkg(root), Rpm(root)) if manager.is_there]
    return Packages(managers, clock.monotonic)


def options_of(settings: IntegritySettings) -> Options:
    """What is watched: the configured paths, else the critical ones that this host has."""
    return Options(
        paths=(*(settings.paths or default_paths()), *(own_paths() if settings.own_files else ())),
        exclude=settings.exclude,
        diffs=settings.diffs,
        sweep_s=settings.sweep_s,
        full_s=settings.full_s,
        cpu_share=settings.cpu_share,
        bytes_per_s=settings.bytes_per_s,
        hash_limit_bytes=settings.hash_limit_bytes,
        rolling_hash=settings.rolling_hash,
        setuid_s=settings.setuid_s,
        processes=settings.processes,
        fanotify=settings.fanotify,
    )


def open_integrity(
    settings: IntegritySettings,
    store: SqliteAgentStore,
    clock: Clock,
    layout: StateLayout,
    notify: Callable[[], None] | None = None,
) -> Integrity:
    """A watcher of this host's files. Raises: StoreError."""
    packages = open_packages(clock)
    packages.remember()
    return Integrity(
        options_of(settings), store, clock=clock, sealer=open_sealer(layout, clock), notify=notify,
        packages=packages,
    )  # fmt: skip
