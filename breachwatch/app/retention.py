"""Upkeep of the signal table: what is old and taken by everybody goes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from breachwatch.ports import Clock
from breachwatch.store.agent import SqliteAgentStore

PRUNE_EVERY_S = 6 * 3600.0
"""How often old signals are deleted."""


@dataclass(slots=True)
class Retention:
    """Deletes signals that are old and that every reader has taken, every few hours."""

    store: SqliteAgentStore
    clock: Clock
    days: int
    readers: tuple[str, ...]
    """Who must have taken a signal first, even if it has not taken any yet."""
    _next_s: float = 0.0

    def tick(self) -> None:
        """Prune if it is time. Raises: StoreError."""
        now_s = self.clock.monotonic()
        if now_s < self._next_s:
            return
        self._next_s = now_s + PRUNE_EVERY_S
        for reader in self.readers:
            self.store.acknowledge(reader, 0)
        self.store.prune(self.clock.now() - timedelta(days=self.days))
