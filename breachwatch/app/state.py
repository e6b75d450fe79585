"""The state directory: who may use it, what lies where, and signs of life of the two processes."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

from breachwatch.errors import LockedError, StoreError

ALIVE_EVERY_S = 10.0
"""How often each process writes its sign of life."""

STALE_AFTER_S = 45.0
"""A sign of life older than this means the process hangs or is gone."""


@dataclass(frozen=True, slots=True)
class StateLayout:
    """Names of the files below one state directory."""

    root: Path

    @property
    def agent_db(self) -> Path:
        """Checkpoints, baseline and the signals for the hub."""
        return self.root / "agent.db"

    @property
    def hub_db(self) -> Path:
        """Incidents, steps, outbox and audit trail."""
        return self.root / "hub.db"

    @property
    def vault_db(self) -> Path:
        """Contacts, encrypted per person."""
        return self.root / "vault.db"

    @property
    def keys(self) -> Path:
        """Signing key and vault keys."""
        return self.root / "keys"

    @property
    def spool(self) -> Path:
        """Telemetry on its way to Elasticsearch."""
        return self.root / "spool"

    @property
    def wake(self) -> Path:
        """A pipe: whoever wrote something the hub should look at pokes it."""
        return self.root / "hub.wake"

    def alive(self, process: str) -> Path:
        """Sign of life of `agent`, `hub` or `run`."""
        return self.root / f"{process}.alive"

    def lock(self, process: str) -> Path:
        """Held for as long as the process runs."""
        return self.root / f"{process}.lock"


def prepare_state(root: Path) -> StateLayout:
    """Create the directory (0700) or check that it is ours. Raises: StoreError."""
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = root.stat().st_uid
    except OSError as error:
        raise StoreError(
            f"cannot use the state directory: {error.strerror}", source=str(root), hint="set state.directory"
        ) from error
    if owner != os.geteuid():
        raise StoreError(
            f"the state directory belongs to uid {owner}, not to uid {os.geteuid()} who runs this",
            source=str(root),
            hint="run as its owner, or set state.directory to another place",
        )
    layout = StateLayout(root)
    with _state_errors(root):
        layout.keys.mkdir(mode=0o700, exist_ok=True)
    return layout


@contextmanager
def _state_errors(path: Path) -> Iterator[None]:
    """Turn what the file system refuses into StoreError: a full disk is said, never a traceback."""
    try:
        yield
    except OSError as error:
        hint = "free space on the state volume" if error.errno in {errno.ENOSPC, errno.EDQUOT} else None
        raise StoreError(
            f"cannot write to the state directory: {error.strerror}", source=str(path), hint=hint
        ) from error


def hold_lock(path: Path, what: str) -> IO[str]:
    """Take the lock for the life of the returned file. Raises: LockedError, StoreError (it cannot be written)."""
    with _state_errors(path):
        handle = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.seek(0)
        holder = handle.read(32).strip()
        handle.close()
        raise LockedError(
            f"{what} already runs on this state directory" + (f" (pid {holder})" if holder else ""),
            source=str(path.parent),
            hint="stop it first, or set state.directory to another place",
        ) from error
    with _state_errors(path):
        handle.seek(0)
        handle.truncate()
        handle.write(f"{os.getpid()}\n")
        handle.flush()
    return handle


def write_alive(path: Path, now: datetime, **details: str | int) -> None:
    """Replace the sign of life in one step. Raises: StoreError (full disk: then the old one goes stale)."""
    fresh = path.with_suffix(".alive.new")
    with _state_errors(path):
        fresh.write_text(json.dumps({"pid": os.getpid(), "at": now.isoformat(), **details}), encoding="utf-8")
        fresh.replace(path)


def read_alive(path: Path) -> tuple[datetime, int] | None:
    """When and by which pid the last sign of life was given; None if never or unreadable."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return datetime.fromisoformat(content["at"]), int(content["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
