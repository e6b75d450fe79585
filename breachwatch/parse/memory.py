"""What a parser remembers of earlier lines of its file, and how lines may be skipped without changing any answer.

Whoever skips lines calls `forget` with a way to make good for it. A parser that then reads what it no longer knows has
the skipped lines read after all, so that its answer is the one it would have given had nothing been skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

Said = tuple[str, str, str | None, str]
"""Host, tag, pid and message of a syslog line."""

Saved = tuple[datetime | None, Said | None]


class Memory:
    """The time of the last line that had one, and the last message."""

    __slots__ = ("_at", "_catch_up", "_knows_at", "_knows_said", "_said")

    def __init__(self) -> None:
        self._at: datetime | None = None
        self._said: Said | None = None
        self._knows_at = self._knows_said = True
        self._catch_up: Callable[[], None] | None = None

    def note(self, at_utc: datetime, said: Said | None = None) -> None:
        """A line with a time of its own was read; `said` is what `last message repeated` would mean next."""
        self._at, self._said = at_utc, said
        self._knows_at = self._knows_said = True
        self._catch_up = None

    def pass_over(self) -> datetime | None:
        """A line nobody could read: the last message is gone, the time known stays and is returned."""
        at_utc = self.at_utc
        self._said = None
        self._knows_said = True
        return at_utc

    @property
    def at_utc(self) -> datetime | None:
        """Time of the last line that had one."""
        if not self._knows_at:
            self._recall()
        return self._at

    @property
    def said(self) -> Said | None:
        """The line before, if it was a syslog message."""
        if not self._knows_said:
            self._recall()
        return self._said

    # -- for who skips lines --------------------------------------------------------------------------------------

    @property
    def is_whole(self) -> bool:
        """True if nothing that was skipped matters any more."""
        return self._knows_at and self._knows_said

    def saved(self) -> Saved:
        """What is remembered now. Only where `is_whole`."""
        return self._at, self._said

    def restore(self, saved: Saved) -> None:
        """Remember what was saved."""
        self._at, self._said = saved
        self._knows_at = self._knows_said = True
        self._catch_up = None

    def forget(self, catch_up: Callable[[], None]) -> Saved | None:
        """Lines were skipped; `catch_up` restores this memory to what they would have left.

        Gives what was remembered till now; None if lines before that were skipped, too, and matter still.
        """
        saved = (self._at, self._said) if self._knows_at and self._knows_said else None
        self._knows_at = self._knows_said = False
        self._catch_up = catch_up
        return saved

    def _recall(self) -> None:
        assert self._catch_up is not None
        self._catch_up()
        self._knows_at = self._knows_said = True
