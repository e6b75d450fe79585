"""The systemd journal by cursor. Source: journalctl(1) `-o json`, `--cursor`; systemd.journal-fields(7).

Read through a child: what reads files that an intruder may have prepared can crash there and be started again, it is
always of the version that wrote them, and it costs less than what comes after it (benchmarks/journal.py).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence

import msgspec

from breachwatch.model import Checkpoint, Gap, RawLine
from breachwatch.ports import Clock
from breachwatch.watch.source import Progress

SOURCE = "journal"
READ_BYTES = 256 * 1024
MAX_RECORD_BYTES = 4 << 20
"""A record larger than this is set aside with a gap: memory stays bounded."""

BACK_OFF_S = (1.0, 5.0, 30.0, 60.0)
"""Waits before `journalctl` is started again after it ended."""

LOOK_AGAIN_S = 10.0
"""After this long a silence behind a record the journal is read again from that record on, once.

A reader can see an entry while it is being linked: it then lacks fields, or where journalctl follows one boot or some
units, it waits unseen until the next one is written. Source: systemd's journal-file.c, which counts an entry in the
header (`journal_file_link_entry`) before it links its data.
"""


class _Cursor(msgspec.Struct):
    cursor: str = msgspec.field(default="", name="__CURSOR")


_cursor_decoder = msgspec.json.Decoder(_Cursor)


class Journal:
    """Records of the journal from a cursor on, read from a `journalctl --follow` child without blocking."""

    name = SOURCE

    def __init__(
        self,
        checkpoint: Checkpoint | None,
        *,
        clock: Clock,
        units: Sequence[str] = (),
        command: Sequence[str] = ("journalctl",),
        on_open: Callable[[int], None] = lambda _descriptor: None,
    ) -> None:
        self._cursor = checkpoint.cursor if checkpoint else ""
        self._stored = self._cursor
        self._clock = clock
        self._units = units
        self._command = command
        self._on_open = on_open
        self._child: subprocess.Popen[bytes] | None = None
        self._buffer = b""
        self._expected = ""
        """The cursor that the child begins with: the record that was read last, if it is still there."""
        self._is_skipping = False
        """In the middle of a record that is too large."""
        self._length_bytes = 0
        """Of the record that was read last; 0 if another process read it."""
        self._look_again_at: float | None = None
        self._start_at = 0.0
        self._failures = 0

    def poll(self, budget_bytes: int) -> Iterator[RawLine | Gap]:
        """New records; starts the child if none runs and its back-off is over."""
        if self._child is None:
            if self._clock.monotonic() < self._start_at:
                return
            gap = self._start()
            if gap is not None:
                yield gap
                return
        left = budget_bytes
        while left > 0:
            chunk = self._read()
            if chunk is None:
                if self._look_again_at is not None and self._clock.monotonic() >= self._look_again_at:
                    self._stop()  # the next poll starts it again
                return
            if not chunk:
                yield self._ended()
                return
            left -= len(chunk)
            yield from self._records(chunk)
        assert self._child is not None
        assert self._child.stdout is not None
        self._on_open(self._child.stdout.fileno())  # there may be more: wake again

    def _start(self) -> Gap | None:
        options = ["--output=json", "--follow", "--no-pager", "--quiet", "--all", "--lines=all"]
        # alone, --follow reads the current boot only: what was written before a reboot would be lost
        options += ["--merge", f"--cursor={self._cursor}"] if self._cursor else []
        self._look_again_at = None
        self._expected = self._cursor
        self._is_skipping = False
        options += [f"--unit={unit}" for unit in self._units]
        self._buffer = b""
        try:
            self._child = subprocess.Popen(
                [*self._command, *options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        except OSError as error:
            return self._failed(f"journalctl cannot be started: {error.strerror}")
        assert self._child.stdout is not None
        os.set_blocking(self._child.stdout.fileno(), False)
        self._on_open(self._child.stdout.fileno())
        return None

    def _read(self) -> bytes | None:
        """Bytes, b"" at the end of the child, None when there is nothing now."""
        assert self._child is not None
        assert self._child.stdout is not None
        try:
            return os.read(self._child.stdout.fileno(), READ_BYTES)
        except BlockingIOError:
            return None

    def _ended(self) -> Gap:
        self._stop()
        return self._failed("journalctl ended; it is started again from the last cursor")

    def _failed(self, why: str) -> Gap:
        self._start_at = self._clock.monotonic() + BACK_OFF_S[min(self._failures, len(BACK_OFF_S) - 1)]
        self._failures += 1
        return self._gap("unreadable", why)

    def _records(self, chunk: bytes) -> Iterator[RawLine | Gap]:
        *records, self._buffer = (self._buffer + chunk).split(b"\n")
        if records and self._is_skipping:
            del records[0]
            self._is_skipping = False
        for record in records:
            if record:
                yield from self._record(record)
        if self._is_skipping:
            self._buffer = b""
        elif len(self._buffer) > MAX_RECORD_BYTES:
            self._buffer, self._is_skipping = b"", True
            yield self._gap("line_cut", f"a record larger than {MAX_RECORD_BYTES} bytes was set aside")

    def _record(self, record: bytes) -> Iterator[RawLine | Gap]:
        cursor = _cursor_of(record)
        if not cursor:
            yield self._gap("unreadable", "a record without a cursor was set aside", len(record))
            return
        expected, self._expected = self._expected, ""
        self._failures = 0
        if expected and cursor == expected:
            if not 0 < self._length_bytes < len(record):
                return  # read before, as it is
        elif expected:
            yield self._gap("vanished", "the record that was read last is gone, and so may be what followed it")
        self._cursor = cursor
        self._length_bytes = len(record)
        self._look_again_at = self._clock.monotonic() + LOOK_AGAIN_S
        yield RawLine(source=SOURCE, data=record, length_bytes=len(record), cursor=cursor)

    def _gap(self, reason: str, detail: str, lost_bytes: int | None = None) -> Gap:
        return Gap(source=SOURCE, reason=reason, at_utc=self._clock.now(), lost_bytes=lost_bytes, detail=detail)

    def progress(self) -> Progress:
        """The cursor of the last record yielded."""
        if self._cursor == self._stored:
            return Progress()
        self._stored = self._cursor
        return Progress(checkpoints=[Checkpoint(source=SOURCE, cursor=self._cursor)])

    def close(self) -> None:
        """End the child."""
        self._stop()

    def _stop(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        with contextlib.suppress(ProcessLookupError):
            child.kill()  # one that was stopped would not end otherwise, and it holds nothing
        assert child.stdout is not None
        child.stdout.close()
        child.wait()


def _cursor_of(record: bytes) -> str:
    try:
        return _cursor_decoder.decode(record).cursor
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError):
        return ""
