"""What is remembered of the lives a log has had: enough to read every life once, and none twice."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

from breachwatch.model import Checkpoint
from breachwatch.watch.fingerprint import HEAD_BYTES, ReadAt, head_hash

REMEMBERED_LIVES = 64
"""Finished lives kept with each checkpoint: older ones are told by the time of their last change."""

Life = tuple[str, int, int]
"""(head hash, head length, size)."""


@dataclass(slots=True)
class History:
    """One log's past."""

    is_known: bool = False
    """False for a log that was never watched: what lies beside it ended before our time."""
    newest_ns: int = 0
    """The last change of all lives that were read to their end."""
    finished: deque[Life] = field(default_factory=lambda: deque(maxlen=REMEMBERED_LIVES))

    def learn(self, known: Checkpoint) -> None:
        """Take over what a stored checkpoint remembers."""
        self.is_known = True
        self.newest_ns = max(self.newest_ns, known.newest_ns)
        self.finished.extend(life for life in known.finished if life not in self.finished)

    def finish(self, known: Checkpoint) -> None:
        """Remember a life that was read to its end."""
        self.newest_ns = max(self.newest_ns, known.changed_ns)
        life = life_of(known)
        if known.head_len and life not in self.finished:
            self.finished.append(life)

    def is_finished(self, known: Checkpoint) -> bool:
        """True if the checkpoint's own life was read to its end."""
        return life_of(known) in self.finished

    def read_of(self, read_at: ReadAt) -> int | None:
        """How many bytes of the life with this content were read, if it is one of the finished ones."""
        head = read_at(HEAD_BYTES, 0)
        sizes = [
            size for hashed, length, size in self.finished if length <= len(head) and head_hash(head[:length]) == hashed
        ]
        return max(sizes, default=None)

    def written(self, known: Checkpoint) -> Checkpoint:
        """The checkpoint as it is stored."""
        return replace(known, newest_ns=self.newest_ns, finished=tuple(self.finished))


def life_of(known: Checkpoint) -> Life:
    """How a life is told from others."""
    return known.head_hash, known.head_len, known.offset
