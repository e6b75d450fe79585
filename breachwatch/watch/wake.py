"""Waking the agent when a log grows: kernel events are hints only, polling finds everything without them.

The agent's own thread waits on the kernel's descriptors: no thread in between, so a line is read a fraction of a
millisecond after it was written, and nothing runs while nothing happens. Source: inotify(7), epoll(7).
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

IN_MODIFY, IN_MOVED, IN_CREATE, IN_DELETE, IN_MOVE_SELF, IN_DELETE_SELF = 0x2, 0xC0, 0x100, 0x200, 0x800, 0x400
IN_Q_OVERFLOW, IN_IGNORED, IN_ONLYDIR = 0x4000, 0x8000, 0x1000000
MASK = IN_MODIFY | IN_MOVED | IN_CREATE | IN_DELETE | IN_MOVE_SELF | IN_DELETE_SELF | IN_ONLYDIR
NAMES_CHANGED = IN_MOVED | IN_CREATE | IN_DELETE | IN_MOVE_SELF | IN_DELETE_SELF | IN_Q_OVERFLOW | IN_IGNORED

READ_BYTES = 65_536
_EVENT = struct.Struct("iIII")


class Wake:
    """Waits like a `threading.Event`, which other threads and signal handlers may `set`, and for the kernel's hints."""

    def __init__(self) -> None:
        self.names_changed = True
        """Files may have come, gone or changed names since this was last set to False."""
        self._poll = select.epoll()
        self._pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll.register(self._pipe[0], select.EPOLLIN)
        self._inotify = -1
        self._watched: dict[Path, int] = {}
        self._folders: dict[int, Path] = {}
        self._grown: set[str] = set()

    def watch(self, folders: Iterable[Path]) -> dict[Path, str]:
        """Be woken for these folders too; returns those that cannot be watched, with the reason."""
        failed: dict[Path, str] = {}
        libc = ctypes.CDLL(None, use_errno=True)
        if self._inotify < 0:
            self._inotify = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
            if self._inotify < 0:
                return dict.fromkeys(folders, os.strerror(ctypes.get_errno()))
            self._poll.register(self._inotify, select.EPOLLIN)
        for folder in folders:
            # adding a folder again is free, and finds one that was replaced under its name
            number = libc.inotify_add_watch(self._inotify, os.fsencode(folder), MASK)
            if number < 0:
                failed[folder] = os.strerror(ctypes.get_errno())
                self._watched.pop(folder, None)
            else:
                self._watched[folder] = number
                self._folders[number] = folder
        return failed

    def take_grown(self) -> set[str]:
        """Paths that were written to since the last call, as far as the kernel said."""
        grown, self._grown = self._grown, set()
        return grown

    def listen(self, descriptor: int) -> None:
        """Be woken when something new can be read there. What is left unread wakes only if this is called again."""
        try:
            self._poll.register(descriptor, select.EPOLLIN | select.EPOLLET)
        except FileExistsError:
            self._poll.modify(descriptor, select.EPOLLIN | select.EPOLLET)

    def set(self) -> None:
        """Wake whoever waits; safe in a signal handler and in any thread."""
        with suppress(BlockingIOError):
            os.write(self._pipe[1], b"!")

    def wait(self, timeout_s: float) -> bool:
        """Sleep until something happens or for `timeout_s`; True if something did."""
        ready = self._poll.poll(max(0.0, timeout_s))
        for descriptor, _ in ready:
            if descriptor == self._pipe[0]:
                with suppress(BlockingIOError):
                    while len(os.read(descriptor, READ_BYTES)) == READ_BYTES:
                        pass
            elif descriptor == self._inotify:
                self._drain()
        return bool(ready)

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            while events := os.read(self._inotify, READ_BYTES):
                position = 0
                while position < len(events):
                    number, mask, _, length = _EVENT.unpack_from(events, position)
                    position += _EVENT.size + length
                    if mask & NAMES_CHANGED:
                        self.names_changed = True
                    elif mask & IN_MODIFY and number in self._folders:
                        name = os.fsdecode(events[position - length : position].rstrip(b"\0"))
                        self._grown.add(f"{self._folders[number]}/{name}")
                if len(events) < READ_BYTES // 2:
                    return

    def close(self) -> None:
        """Release all descriptors; what was listened to stays open."""
        self._poll.close()
        for descriptor in (*self._pipe, self._inotify):
            if descriptor >= 0:
                os.close(descriptor)
