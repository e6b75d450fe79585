"""A named pipe that wakes the hub: agents and commands poke it after a commit, so that nobody waits for a poll.

A poke is a hint and may be lost; the hub looks by itself every second. It works across network namespaces.
"""

from __future__ import annotations

import os
import select
from contextlib import suppress
from pathlib import Path

from breachwatch.errors import StoreError


def poke(path: Path) -> None:
    """Wake whoever waits; nothing happens if nobody does."""
    with suppress(OSError):
        pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(pipe, b"!")
        finally:
            os.close(pipe)


class WakePipe:
    """The waiting end. Raises: StoreError (it cannot be made)."""

    def __init__(self, path: Path) -> None:
        try:
            with suppress(FileExistsError):
                os.mkfifo(path, 0o600)
            # opened for both, so that it never reads as closed while no poker has it open
            self._pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise StoreError(f"cannot make the hub's pipe: {error.strerror}", source=str(path)) from error

    def wait(self, timeout_s: float) -> bool:
        """Sleep until poked or for `timeout_s`; True if poked."""
        ready, _, _ = select.select([self._pipe], [], [], max(0.0, timeout_s))
        if ready:
            with suppress(BlockingIOError):
                while len(os.read(self._pipe, 65_536)) == 65_536:  # noqa: PLR2004  # a whole pipe of pokes is one poke
                    pass
        return bool(ready)

    def poke(self) -> None:
        """Wake the waiting thread of this process; safe in a signal handler."""
        with suppress(BlockingIOError):
            os.write(self._pipe, b"!")

    def close(self) -> None:
        """Release the pipe; its name stays for the next hub."""
        os.close(self._pipe)
