"""What every watcher is: something that can be polled, and that says how far it came."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from breachwatch.model import Block, Checkpoint, FileChange, FileRecord, Gap, RawLine


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What has to be stored together with the matches of everything yielded since the last call."""

    checkpoints: Sequence[Checkpoint] = ()
    forgotten: Sequence[str] = ()
    """Checkpoint keys that are not needed any more."""
    baseline: Sequence[FileRecord] = ()
    baseline_deleted: Sequence[bytes] = ()


class Source(Protocol):
    """A watcher. `poll` never sleeps or retries: the caller owns the schedule."""

    name: str

    def poll(self, budget_bytes: int) -> Iterator[Block | RawLine | FileChange | Gap]:
        """What is new, at most about `budget_bytes` of it. Consume it whole before `progress`."""
        ...

    def progress(self) -> Progress:
        """State that matches exactly what was yielded since the last call."""
        ...

    def close(self) -> None:
        """Release descriptors and watches."""
        ...


def display(path: str | bytes) -> str:
    r"""A path as valid text: bytes that are no UTF-8 become \xhh."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def checkpoint_key(checkpoint: Checkpoint) -> str:
    """One key per life of a file; the journal has one."""
    if checkpoint.cursor:
        return checkpoint.source
    return f"{checkpoint.source}\0{checkpoint.device}:{checkpoint.inode}"
