"""An agent's state that is written to until somebody kills the writer: `python -m tests.store.writer FILE FIRST`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from breachwatch.app.pipeline import daemon_signal
from breachwatch.model import Checkpoint, Signal
from breachwatch.store.agent import SqliteAgentStore

AT = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
PER_COMMIT = 20


def said(number: int) -> Signal:
    """A signal of its own for each number."""
    return daemon_signal("said", f"{number}", host="web01", at_utc=AT + timedelta(seconds=number))


def reached(offset: int) -> Checkpoint:
    """How far a log was read."""
    return Checkpoint(
        source="/var/log/auth.log", device=1, inode=2, offset=offset, generation="g", head_hash="h", head_len=1,
        tail=b"t",
    )  # fmt: skip


def main(file: Path, first: int) -> None:
    """Commit and say so, for ever."""
    store = SqliteAgentStore(file, owner=True)
    while True:
        batch = [said(number) for number in range(first, first + PER_COMMIT)]
        first += PER_COMMIT
        store.commit(signals=batch, checkpoints=[reached(first)], correlation_state=b"%d" % first)
        print(first, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
