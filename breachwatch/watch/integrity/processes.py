"""Programs that run but are on no disk: deleted after their start, or never there (memfd). Source: proc(5)."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from breachwatch.model import FileChange, Writer

GONE = b" (deleted)"
MEMORY = b"/memfd:"

T_DELETED, T_MEMORY = "attack.t1070.004", "attack.t1620"


class Processes:
    """Tells each such process once."""

    def __init__(self, now: Callable[[], datetime], proc: Path = Path("/proc")) -> None:
        self._now = now
        self._proc = os.fsencode(proc)
        self._told: set[tuple[int, bytes]] = set()

    def check(self) -> list[FileChange]:
        """Those that have not been told yet."""
        seen: set[tuple[int, bytes]] = set()
        found = []
        for pid, program in self._running():
            seen.add((pid, program))
            if (pid, program) not in self._told:
                found.append(self._change(pid, program))
        self._told = seen
        return found

    def _running(self) -> Iterator[tuple[int, bytes]]:
        for name in os.listdir(self._proc):  # noqa: PTH208  # bytes
            if not name.isdigit():
                continue
            try:
                program = os.readlink(self._proc + b"/" + name + b"/exe")  # noqa: PTH115  # bytes
            except OSError:
                continue  # a kernel thread, gone, or another account's
            if program.endswith(GONE):
                yield int(name), program

    def _change(self, pid: int, program: bytes) -> FileChange:
        path = program.removesuffix(GONE)
        in_memory = path.startswith(MEMORY)
        # After an upgrade old daemons run a file that is deleted, and another has taken its name
        was_replaced = not in_memory and os.path.lexists(path)
        return FileChange(
            path=path,
            action="deleted",
            before=None,
            after=None,
            changed=("running",),
            severity="low" if was_replaced else "high",
            tags=(T_MEMORY if in_memory else T_DELETED,),
            channel="sweep",
            writer=Writer(pid=pid, executable=path.decode("utf-8", "backslashreplace"), user=self._user(pid)),
            seen_at=self._now(),
        )

    def _user(self, pid: int) -> str:
        try:
            uid = os.stat(self._proc + b"/%d" % pid).st_uid  # noqa: PTH116  # bytes
        except OSError:
            return ""
        try:
            return pwd.getpwuid(uid).pw_name
        except KeyError:
            return f"uid{uid}"
