"""Who wrote: hints of a whole file system with the process behind each, where kernel and privileges allow.

A watchdog emitter beside the inotify one. It needs CAP_SYS_ADMIN and Linux 5.9, and hears every write of the file
systems that it marks, so it is the operator's choice. Its hints are hints like any other.
Source: fanotify(7), fanotify_init(2), fanotify_mark(2), open_by_handle_at(2), linux/fanotify.h.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import select
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from watchdog.events import FileSystemEventHandler
from watchdog.observers.api import BaseObserver, EventEmitter, EventQueue, ObservedWatch

from breachwatch.model import Writer
from breachwatch.watch.integrity.hints import Hints

FAN_CLOEXEC, FAN_NONBLOCK, FAN_REPORT_DIR_FID, FAN_REPORT_NAME = 0x1, 0x2, 0x400, 0x800
FAN_MARK_ADD, FAN_MARK_FILESYSTEM = 0x1, 0x100
FAN_ATTRIB, FAN_CLOSE_WRITE, FAN_MOVED_FROM, FAN_MOVED_TO = 0x4, 0x8, 0x40, 0x80
FAN_CREATE, FAN_DELETE, FAN_Q_OVERFLOW, FAN_ONDIR = 0x100, 0x200, 0x4000, 0x4000_0000
MASK = FAN_ATTRIB | FAN_CLOSE_WRITE | FAN_MOVED_FROM | FAN_MOVED_TO | FAN_CREATE | FAN_DELETE | FAN_ONDIR
"""Without FAN_MODIFY: a log that grows would be heard at each line."""

WITH_NAME = {2, 10, 12}
"""FAN_EVENT_INFO_TYPE_DFID_NAME, _OLD_DFID_NAME, _NEW_DFID_NAME."""

METADATA = struct.Struct("=IBBHQii")
INFO = struct.Struct("=BBH8sIi")
AT_FDCWD = -100
READ_BYTES = 1 << 18

MAX_WRITERS = 20_000
MAX_FOLDERS = 5_000

_libc = ctypes.CDLL(None, use_errno=True)


class Writers:
    """The last process that touched each path; bounded, and filled by the emitter's thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_path: OrderedDict[bytes, Writer] = OrderedDict()

    def note(self, path: bytes, writer: Writer) -> None:
        """Remember who touched the path."""
        with self._lock:
            self._by_path[path] = writer
            self._by_path.move_to_end(path)
            if len(self._by_path) > MAX_WRITERS:
                self._by_path.popitem(last=False)

    def writer_of(self, path: bytes) -> Writer | None:
        """Who touched it last, if that was heard; each is given once."""
        with self._lock:
            return self._by_path.pop(path, None)


def who(pid: int) -> Writer:
    """The process by its number; of one that has ended only the number is known."""
    try:
        executable = os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")  # noqa: PTH115  # need not be UTF-8
        uid = os.stat(f"/proc/{pid}").st_uid  # noqa: PTH116
    except OSError:
        return Writer(pid=pid)
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = f"uid{uid}"
    return Writer(pid=pid, executable=os.fsencode(executable).decode("utf-8", "backslashreplace"), user=user)


def parse_events(data: bytes) -> Iterator[tuple[int, int, bytes, bytes]]:
    """(mask, pid, file handle of the folder, name) of each event; handle and name are empty for an overflow."""
    at = 0
    while at + METADATA.size <= len(data):
        length, _version, _, head, mask, _descriptor, pid = METADATA.unpack_from(data, at)
        if length < METADATA.size or at + length > len(data):
            return
        info, end, found = at + head, at + length, False
        while info + INFO.size <= end:
            kind, _, size, _fsid, handle_bytes, _handle_type = INFO.unpack_from(data, info)
            if size < INFO.size:
                break
            handle_at = info + INFO.size - 8
            handle_end = handle_at + 8 + handle_bytes
            if kind in WITH_NAME and handle_end <= info + size:
                found = True
                yield mask, pid, data[handle_at:handle_end], data[handle_end : info + size].split(b"\0", 1)[0]
            info += size
        if not found:
            yield mask, pid, b"", b""
        at += length


class Marks:
    """One fanotify group that hears the file systems of some roots. Raises: OSError."""

    def __init__(self, roots: Iterable[bytes]) -> None:
        flags = FAN_CLOEXEC | FAN_NONBLOCK | FAN_REPORT_DIR_FID | FAN_REPORT_NAME
        self.descriptor = _checked(_libc.fanotify_init(flags, os.O_RDONLY | os.O_CLOEXEC))
        self._mounts: list[int] = []
        self._folders: OrderedDict[bytes, bytes | None] = OrderedDict()
        try:
            for root in roots:
                mask = ctypes.c_uint64(MASK)
                _checked(_libc.fanotify_mark(self.descriptor, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, mask, AT_FDCWD, root))
                folder = root if os.path.isdir(root) else os.path.dirname(root)  # noqa: PTH112, PTH120  # bytes
                self._mounts.append(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        except OSError:
            self.close()
            raise

    def folder_of(self, handle: bytes) -> bytes | None:
        """The path of a folder by its handle; None if it is gone or not ours to open."""
        if handle not in self._folders:
            self._folders[handle] = self._resolve(handle)
            if len(self._folders) > MAX_FOLDERS:
                self._folders.popitem(last=False)
        return self._folders[handle]

    def _resolve(self, handle: bytes) -> bytes | None:
        for mount in self._mounts:
            descriptor = _libc.open_by_handle_at(mount, handle, os.O_PATH | os.O_CLOEXEC)
            if descriptor >= 0:
                try:
                    return os.readlink(f"/proc/self/fd/{descriptor}".encode())  # noqa: PTH115  # bytes
                finally:
                    os.close(descriptor)
        return None

    def forget_folders(self) -> None:
        """A folder was renamed or removed: what was known of paths may be wrong."""
        self._folders.clear()

    def close(self) -> None:
        """Hear nothing any more."""
        for descriptor in (*self._mounts, self.descriptor):
            os.close(descriptor)
        self._mounts.clear()


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(result)


class FanotifyEmitter(EventEmitter):
    """Reads one fanotify group: hints for what lies below the roots, and who did it."""

    def __init__(
        self,
        event_queue: EventQueue,
        watch: ObservedWatch,
        *,
        marks: Marks,
        writers: Writers,
        concerns: Callable[[bytes], bool],
        **options: Any,
    ) -> None:
        super().__init__(event_queue, watch, **options)
        self._marks = marks
        self._writers = writers
        self._concerns = concerns
        self._own_pid = os.getpid()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def queue_events(self, timeout: float) -> None:
        """Wait for events and queue those that concern us as one batch."""
        ready, _, _ = select.select([self._marks.descriptor, self._wake_read], [], [], timeout)
        if self._marks.descriptor not in ready:
            return
        try:
            data = os.read(self._marks.descriptor, READ_BYTES)
        except BlockingIOError:
            return
        hints = self._hints(data)
        if hints.settled or hints.overflow:
            self.queue_event(hints)

    def _hints(self, data: bytes) -> Hints:
        settled: dict[bytes, None] = {}
        processes: dict[int, Writer] = {}
        overflow = ""
        for mask, pid, handle, name in parse_events(data):
            if mask & FAN_Q_OVERFLOW:
                overflow = "the queue of fanotify was full"
            if pid == self._own_pid or not handle:
                continue
            folder = self._marks.folder_of(handle)
            if mask & FAN_ONDIR and mask & (FAN_MOVED_FROM | FAN_MOVED_TO | FAN_DELETE):
                self._marks.forget_folders()
            if folder is None:
                continue
            path = folder if name in {b"", b"."} else folder.rstrip(b"/") + b"/" + name
            if self._concerns(path):
                if pid not in processes:
                    processes[pid] = who(pid)
                self._writers.note(path, processes[pid])
                settled[path] = None
        return Hints(list(settled), [], overflow)

    def on_thread_stop(self) -> None:
        """Leave `select` at once."""
        os.write(self._wake_write, b".")

    def release(self) -> None:
        """Close what the thread used; only after it has ended."""
        os.close(self._wake_read)
        os.close(self._wake_write)


class FanotifyObserver(BaseObserver):
    """A watchdog observer of whole file systems that knows who wrote. Raises: OSError (kernel or privileges)."""

    def __init__(
        self, handler: FileSystemEventHandler, roots: Iterable[bytes], concerns: Callable[[bytes], bool]
    ) -> None:
        self._marks = Marks(root for root in roots if os.path.lexists(root))
        self._writers = Writers()
        super().__init__(FanotifyEmitter, timeout=5.0, marks=self._marks, writers=self._writers, concerns=concerns)
        self.schedule(handler, "/", recursive=False)
        self.start()

    def writer_of(self, path: bytes) -> Writer | None:
        """Who touched the path last, if that was heard."""
        return self._writers.writer_of(path)

    def close(self) -> None:
        """Stop the threads and hear nothing any more."""
        emitters = list(self.emitters)
        self.stop()
        self.join()
        for emitter in emitters:
            if isinstance(emitter, FanotifyEmitter):
                if emitter.is_alive():
                    emitter.join()
                emitter.release()
        self._marks.close()
