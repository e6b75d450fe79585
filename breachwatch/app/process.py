"""Child processes."""

from __future__ import annotations

import ctypes
import signal
from dataclasses import dataclass

PR_SET_PDEATHSIG = 1
"""prctl(2): the signal a child gets when its parent dies, so that no orphan keeps a lock."""

_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """Called in a child before its program starts: one system call, safe after a fork."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


@dataclass(slots=True)
class Asked:
    """What signals asked of a process. No `threading.Event`: one that is set in a handler may wait for its own lock."""

    stop: bool = False
    reload: bool = False
