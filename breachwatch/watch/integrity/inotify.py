"""Kernel hints through inotify: a watchdog emitter that says what it could not watch and when hints were lost.

watchdog's own emitter (7.1) swallows missing watches, tells no handler of an overflow and never leaves one with many
directories (it removes every watch, which fills the queue again). This one only reads; the sweep adds the watches, each
right before it lists the directory, so nothing falls between.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
import threading
from typing import Any

from watchdog.events import FileSystemEventHandler
from watchdog.observers.api import BaseObserver, EventEmitter, EventQueue, ObservedWatch

from breachwatch.watch.integrity.hints import Hints

IN_MODIFY, IN_ATTRIB, IN_CLOSE_WRITE = 0x2, 0x4, 0x8
IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x40, 0x80, 0x100, 0x200
IN_DELETE_SELF, IN_MOVE_SELF = 0x400, 0x800
IN_Q_OVERFLOW, IN_IGNORED = 0x4000, 0x8000
IN_ONLYDIR, IN_DONT_FOLLOW, IN_EXCL_UNLINK = 0x0100_0000, 0x0200_0000, 0x0400_0000
"""Source: inotify(7), linux/inotify.h."""

MASK = (
    IN_MODIFY | IN_ATTRIB | IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE
    | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR | IN_DONT_FOLLOW | IN_EXCL_UNLINK
)  # fmt: skip
"""Nothing that our own reading causes (open, access, close without write)."""

UNSETTLED = IN_MODIFY | IN_CREATE

EVENT = struct.Struct("iIII")
BURST_BYTES, BURST_S = 2_048, 0.005
"""After so much at once, events are left to gather for a moment: in a storm they come one by one otherwise, and each
wakes three threads. The kernel's queue holds hundreds of times as many."""

READ_BYTES = 1 << 20
MAX_REFUSED = 1_000_000
"""Remembered directories without a watch; the count in the gap stops there."""

_libc = ctypes.CDLL(None, use_errno=True)


class Watched:
    """The watches of one inotify instance: which directory each stands for, and how many could not be had."""

    def __init__(self) -> None:
        self.descriptor = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        self.error = errno.errorcode.get(ctypes.get_errno(), "?") if self.descriptor < 0 else ""
        self._paths: dict[int, bytes] = {}
        self._numbers: dict[bytes, int] = {}
        self._lock = threading.Lock()
        self.refused: dict[bytes, int] = {}
        """Directories without a watch, with the kernel's reason: the sweep alone sees changes there."""

    def ensure(self, folder: bytes) -> None:
        """Watch a directory under its present path; asking again costs one system call."""
        if self.descriptor < 0:
            return
        number = _libc.inotify_add_watch(self.descriptor, folder, MASK)
        if number >= 0:
            with self._lock:
                self._paths[number] = folder
                self._numbers[folder] = number
            if self.refused:
                self.refused.pop(folder, None)
            return
        code = ctypes.get_errno()
        if code not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP} and len(self.refused) < MAX_REFUSED:
            self.refused[folder] = code

    def drop(self, folder: bytes) -> None:
        """Give back the watch of a directory that has left, unless it already goes by another path."""
        with self._lock:
            number = self._numbers.pop(folder, None)
            is_its_own = number is not None and self._paths.get(number) == folder
        self.refused.pop(folder, None)
        if number is not None and is_its_own and self.descriptor >= 0:
            _libc.inotify_rm_watch(self.descriptor, number)  # the kernel answers with IN_IGNORED

    def path_of(self, number: int) -> bytes | None:
        """The directory of a watch."""
        return self._paths.get(number)

    def forget(self, number: int) -> None:
        """The kernel removed this watch."""
        with self._lock:
            folder = self._paths.pop(number, None)
            if folder is not None and self._numbers.get(folder) == number:
                del self._numbers[folder]

    def __len__(self) -> int:
        return len(self._paths)

    def close(self) -> None:
        """Give all watches back."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def parse_events(data: bytes, watched: Watched) -> Hints:
    """Hints of one read, each path once."""
    settled: dict[bytes, None] = {}
    unsettled: dict[bytes, None] = {}
    overflow, at, size = "", 0, len(data)
    while at + EVENT.size <= size:
        number, mask, _cookie, length = EVENT.unpack_from(data, at)
        name = data[at + EVENT.size : at + EVENT.size + length].rstrip(b"\0") if length else b""
        at += EVENT.size + length
        if mask & IN_Q_OVERFLOW:
            overflow = "the kernel's queue of hints was full (fs.inotify.max_queued_events)"
            continue
        folder = watched.path_of(number)
        if mask & IN_IGNORED:
            watched.forget(number)
        if folder is None:
            continue
        path = folder.rstrip(b"/") + b"/" + name if name else folder
        if mask & UNSETTLED and not mask & ~(UNSETTLED | 0x4000_0000):
            unsettled[path] = None
        else:
            settled[path] = None
            unsettled.pop(path, None)
    return Hints(list(settled), list(unsettled), overflow)


class InotifyEmitter(EventEmitter):
    """Reads one inotify instance and nothing else, so that the kernel's queue stays short."""

    def __init__(self, event_queue: EventQueue, watch: ObservedWatch, *, watched: Watched, **options: Any) -> None:
        super().__init__(event_queue, watch, **options)
        self._watched = watched
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def queue_events(self, timeout: float) -> None:
        """Wait for hints and queue them as one batch."""
        ready, _, _ = select.select([self._watched.descriptor, self._wake_read], [], [], timeout)
        if self._watched.descriptor in ready:
            try:
                data = os.read(self._watched.descriptor, READ_BYTES)
            except BlockingIOError:
                return
            self.queue_event(parse_events(data, self._watched))
            if len(data) >= BURST_BYTES:
                select.select([self._wake_read], [], [], BURST_S)

    def on_thread_stop(self) -> None:
        """Leave `select` at once."""
        try:
            os.write(self._wake_write, b".")
        except OSError:
            return

    def release(self) -> None:
        """Close what the thread used; only after it has ended."""
        os.close(self._wake_read)
        os.close(self._wake_write)
        self._wake_read = self._wake_write = -1


class HintObserver(BaseObserver):
    """A watchdog observer with one emitter for all roots: the directories are added by the sweep through `watched`."""

    def __init__(self, handler: FileSystemEventHandler) -> None:
        self.watched = Watched()
        super().__init__(InotifyEmitter, timeout=5.0, watched=self.watched)
        if self.watched.descriptor >= 0:
            self.schedule(handler, "/", recursive=False)
        self._released = False

    @property
    def error(self) -> str:
        """Why there are no hints at all (EMFILE: fs.inotify.max_user_instances)."""
        return self.watched.error

    def close(self) -> None:
        """Stop the threads and give the watches back."""
        if self._released:
            return
        self._released = True
        emitters = list(self.emitters)
        if self.is_alive():
            self.stop()
            self.join()
        for emitter in emitters:
            if isinstance(emitter, InotifyEmitter):
                emitter.join() if emitter.is_alive() else None
                emitter.release()
        self.watched.close()
