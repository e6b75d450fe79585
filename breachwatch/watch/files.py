"""Log files by path and glob, through rotation: a `Source`."""

from __future__ import annotations

import glob
import gzip
import os
import stat
import zlib
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from breachwatch.model import Checkpoint, Gap, RawLine
from breachwatch.ports import Clock
from breachwatch.watch.archive import lines_of
from breachwatch.watch.fingerprint import ReadAt, is_same_content
from breachwatch.watch.source import Progress, checkpoint_key, display
from breachwatch.watch.tail import FileTail

REDISCOVER_S = 1.0
"""How often names are looked up again without a hint from the kernel."""

ROTATED_GRACE_S = 5.0
"""A rotated file is read until it was quiet for so long: writers keep their old descriptor for a while."""

OPEN_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY

MIN_SHARE_BYTES = 64 * 1024
"""Every file gets at least this much of a poll, so that one huge file starves no other."""


class LogFiles:
    """All files that match some patterns. Identity is device, inode and content, never the name."""

    def __init__(
        self,
        patterns: Sequence[str],
        checkpoints: Mapping[str, Checkpoint],
        *,
        clock: Clock,
        max_line_bytes: int = 65_536,
        from_start: bool = True,
    ) -> None:
        self.name = ", ".join(patterns)
        self._patterns = list(patterns)
        self._clock = clock
        self._max = max_line_bytes
        self._from_start = from_start
        self._current: dict[str, FileTail] = {}
        self._rotated: list[FileTail] = []
        self._known = self._of_ours(checkpoints)
        self._claimed = {(known.device, known.inode) for rows in self._known.values() for known in rows}
        self._unreadable: dict[str, str] = {}
        self._forgotten: list[str] = []
        self._pending: list[Gap] = []
        self._archives: list[Iterator[RawLine | Gap]] = []
        self._next_discovery = 0.0

    def _of_ours(self, checkpoints: Mapping[str, Checkpoint]) -> dict[str, list[Checkpoint]]:
        ours: dict[str, list[Checkpoint]] = {}
        for key, known in checkpoints.items():
            if "\0" in key and any(_matches(known.source, pattern) for pattern in self._patterns):
                ours.setdefault(known.source, []).append(known)
        return ours

    # -- polling --------------------------------------------------------------------------------------------------

    def hint(self) -> None:
        """The kernel said that names changed: look before the next second."""
        self._next_discovery = 0.0

    def poll(self, budget_bytes: int) -> Iterator[RawLine | Gap]:
        """New lines of all files, older files first."""
        self._discover_when_due()
        pending, self._pending = self._pending, []
        archives, self._archives = self._archives, []
        yield from pending
        for archive in archives:
            yield from archive
        tails = [*self._rotated, *self._current.values()]
        share = max(MIN_SHARE_BYTES, budget_bytes // max(1, len(tails)))
        for tail in tails:
            yield from self._read(tail, share)
        yield from self._retire()

    def _read(self, tail: FileTail, share: int) -> Iterator[RawLine | Gap]:
        try:
            if not tail.has_more():
                return
            tail.quiet_since = None if tail.quiet_since is None else self._clock.monotonic()
            if (gap := tail.check()) is not None:
                yield gap
            yield from tail.lines(share)
        except OSError as error:
            yield self._gap(tail.source, "unreadable", f"reading failed: {error.strerror}")

    def _retire(self) -> Iterator[RawLine | Gap]:
        now_s = self._clock.monotonic()
        for tail in list(self._rotated):
            assert tail.quiet_since is not None
            if now_s - tail.quiet_since < ROTATED_GRACE_S or self._has_lines(tail):
                continue
            yield from tail.last_words()
            if tail.links() == 0 and tail.source not in self._current:
                yield self._gap(tail.source, "vanished", "the file was deleted and nothing took its name")
            self._forgotten.append(checkpoint_key(tail.checkpoint()))
            self._rotated.remove(tail)
            tail.close()

    @staticmethod
    def _has_lines(tail: FileTail) -> bool:
        return tail.has_more() and b"\n" in tail.read_at(MIN_SHARE_BYTES, tail.offset)

    def progress(self) -> Progress:
        """Checkpoints of the files that moved on."""
        tails = [*self._rotated, *self._current.values()]
        moved = [tail for tail in tails if tail.changed]
        checkpoints = [tail.checkpoint() for tail in moved]
        for tail in moved:
            tail.changed = False
        forgotten, self._forgotten = self._forgotten, []
        return Progress(checkpoints=checkpoints, forgotten=forgotten)

    def close(self) -> None:
        """Release all descriptors."""
        for tail in [*self._rotated, *self._current.values()]:
            tail.close()
        self._rotated.clear()
        self._current.clear()

    # -- names ----------------------------------------------------------------------------------------------------

    def _discover_when_due(self) -> None:
        now_s = self._clock.monotonic()
        if now_s < self._next_discovery:
            return
        self._next_discovery = now_s + REDISCOVER_S
        found = self._names()
        for source in {**found, **self._current, **self._known}:
            self._follow(source, found.get(source))

    def _names(self) -> dict[str, str]:
        """Display name to path of what matches now."""
        names: dict[str, str] = {}
        for pattern in self._patterns:
            wide = os.path.join(pattern, "*") if os.path.isdir(pattern) else pattern  # noqa: PTH112, PTH118  # patterns
            matched = glob.glob(wide, recursive=True) if glob.has_magic(wide) else [wide]  # noqa: PTH207  # any bytes
            names.update({display(path): path for path in matched if os.path.lexists(path)})
        return names

    def _follow(self, source: str, path: str | None) -> None:
        """Make the tail of one name fit the file that has the name now."""
        tail = self._current.get(source)
        status = self._status(source, path)
        if tail is not None and (status is None or (status.st_dev, status.st_ino) != (tail.device, tail.inode)):
            self._rotate(tail)
            tail = None
        if status is None or path is None:
            if path is None and tail is None:
                self._resume_gone(source)
            return
        identity = (status.st_dev, status.st_ino)
        if tail is None and not any((old.device, old.inode) == identity for old in self._all_tails()):
            self._open(source, path)

    def _all_tails(self) -> list[FileTail]:
        return [*self._rotated, *self._current.values()]

    def _status(self, source: str, path: str | None) -> os.stat_result | None:
        if path is None:
            return None
        try:
            status = os.stat(path)  # noqa: PTH116  # follows symlinks on purpose: the link's target is the log
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                self._report_unreadable(source, error.strerror or "cannot be looked up")
            return None
        if not stat.S_ISREG(status.st_mode):
            self._report_unreadable(source, "not a regular file")
            return None
        return status

    def _rotate(self, tail: FileTail) -> None:
        del self._current[tail.source]
        tail.quiet_since = self._clock.monotonic()
        self._rotated.append(tail)

    def _open(self, source: str, path: str) -> None:
        try:
            descriptor = os.open(path, OPEN_FLAGS)
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                self._report_unreadable(source, error.strerror or "cannot be opened")
            return
        self._unreadable.pop(source, None)
        tail = FileTail(descriptor, source, clock=self._clock, max_line_bytes=self._max)
        known = self._known.pop(source, [])
        self._current[source] = tail
        if not known:
            if not self._from_start:
                tail.skip_to_end()
            return
        for checkpoint in known:
            self._resume(tail, checkpoint, path)

    # -- after a restart ------------------------------------------------------------------------------------------

    def _resume(self, tail: FileTail, known: Checkpoint, path: str) -> None:
        """Continue in this file, or finish its predecessor wherever rotation took it."""
        same_inode = (tail.device, tail.inode) == (known.device, known.inode)
        if same_inode and tail.resume(known):
            return
        found = self._finish_predecessor(known, path)
        if same_inode:
            reason = "truncated" if tail.size() < known.offset else "rewritten"
            self._pending.append(self._gap(known.source, reason, "changed while the agent was down"))
            return
        if not found:
            detail = f"what followed byte {known.offset} of the file read before is in no rotated copy"
            self._pending.append(self._gap(known.source, "vanished", detail))
        self._forgotten.append(checkpoint_key(known))

    def _resume_gone(self, source: str) -> None:
        for known in self._known.pop(source, []):
            if not self._finish_predecessor(known, source):
                detail = "the file disappeared while the agent was down"
                self._pending.append(self._gap(known.source, "vanished", detail))
            self._forgotten.append(checkpoint_key(known))

    def _finish_predecessor(self, known: Checkpoint, path: str) -> bool:
        """Read what a rotated file holds beyond the checkpoint, and what was born and rotated since; False if gone."""
        siblings = _rotated_siblings(path)
        for position, sibling in enumerate(siblings):
            if not self._resume_plain(sibling, known) and not self._resume_gzip(sibling, known):
                continue
            taken = {(tail.device, tail.inode) for tail in self._all_tails()}
            for later in siblings[position + 1 :]:
                status = later.stat()
                if (status.st_dev, status.st_ino) not in taken | self._claimed:
                    self._read_whole(later, known.source)
            return True
        return False

    def _resume_plain(self, path: Path, known: Checkpoint) -> bool:
        try:
            descriptor = os.open(path, OPEN_FLAGS)
        except OSError:
            return False
        tail = FileTail(descriptor, known.source, clock=self._clock, max_line_bytes=self._max)
        if not tail.resume(known):
            tail.close()
            return False
        tail.changed = True  # its checkpoint has to be written again in the commit that forgets the old row
        tail.quiet_since = self._clock.monotonic()
        self._rotated.append(tail)
        return True

    def _resume_gzip(self, path: Path, known: Checkpoint) -> bool:
        if path.suffix != ".gz":
            return False
        try:
            with gzip.open(path) as archive:
                is_same = is_same_content(_reader(archive), known)
        except (OSError, EOFError, zlib.error):
            return False  # not the one, or damaged: then the gap says that the rest was not found
        if is_same:
            self._archives.append(self._archive(path, known.source, known.offset, known.generation))
        return is_same

    def _read_whole(self, path: Path, source: str) -> None:
        """A file that was born and rotated away while nobody watched."""
        if path.suffix == ".gz":
            self._archives.append(self._archive(path, source, 0, ""))
            return
        try:
            tail = FileTail(os.open(path, OPEN_FLAGS), source, clock=self._clock, max_line_bytes=self._max)
        except OSError as error:
            self._pending.append(self._gap(source, "unreadable", f"rotated file {display(path.name)}: {error}"))
            return
        tail.quiet_since = self._clock.monotonic()
        self._rotated.append(tail)

    def _archive(self, path: Path, source: str, offset: int, generation: str) -> Iterator[RawLine | Gap]:
        """The rest of a compressed rotated file; opened when it is read, in one poll and commit."""
        try:
            with gzip.open(path) as stream:
                stream.seek(offset)
                yield from lines_of(
                    stream, source, clock=self._clock, max_line_bytes=self._max, offset=offset, generation=generation
                )
        except (OSError, EOFError, zlib.error) as error:
            yield self._gap(source, "unreadable", f"rotated archive {display(path.name)}: {error}")

    # -- saying what cannot be seen -------------------------------------------------------------------------------

    def _report_unreadable(self, source: str, why: str) -> None:
        if self._unreadable.get(source) != why:
            self._unreadable[source] = why
            self._pending.append(self._gap(source, "unreadable", why))

    def _gap(self, source: str, reason: str, detail: str) -> Gap:
        return Gap(source=source, reason=reason, at_utc=self._clock.now(), detail=detail)


def _matches(source: str, pattern: str) -> bool:
    return fnmatchcase(source, pattern) or source.startswith(pattern.rstrip("/") + "/")


def _reader(archive: gzip.GzipFile) -> ReadAt:
    def read_at(length: int, offset: int) -> bytes:
        archive.seek(max(0, offset))
        return archive.read(length)

    return read_at


def _rotated_siblings(path: str) -> list[Path]:
    """Files beside `path` whose names begin with its name, oldest change first."""
    base = Path(path)
    stem = base.name.removesuffix(".log") if base.name.endswith(".log") else base.name
    try:
        candidates = [item for item in base.parent.iterdir() if item.name.startswith(stem) and item.name != base.name]
        return sorted((item for item in candidates if item.is_file()), key=lambda item: item.stat().st_mtime_ns)
    except OSError:
        return []
