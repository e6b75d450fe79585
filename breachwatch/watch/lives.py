"""Finding earlier lives of a log: renamed, copied, compressed, or born and rotated away while nobody watched."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from breachwatch.model import Checkpoint
from breachwatch.ports import Clock
from breachwatch.watch.archive import PackedTail, head_of, packed_head, unpacked
from breachwatch.watch.fingerprint import HEAD_BYTES, head_hash
from breachwatch.watch.framing import Framing
from breachwatch.watch.history import History, Life
from breachwatch.watch.names import Found, Listing, changes_around, neighbours
from breachwatch.watch.source import display
from breachwatch.watch.tail import FileTail

OPEN_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY

SECOND_NS = 1_000_000_000
"""Some compressors keep a file's time in whole seconds."""

TICK_NS = 10_000_000
"""Times of files are this coarse: two changes within it look like one."""

LOOKS = 8
"""At names that change under the look."""

Identity = tuple[int, int]
Tail = FileTail | PackedTail


class Lives:
    """Looks around one log. Opens what it finds; the caller owns it from then on."""

    def __init__(self, *, clock: Clock, framing: Framing, max_line_bytes: int, elsewhere: tuple[str, ...] = ()) -> None:
        self._clock = clock
        self._framing = framing
        self._max = max_line_bytes
        self._elsewhere = elsewhere

    def open(self, path: str | Path, source: str) -> FileTail:
        """A tail at byte 0. Raises: OSError."""
        descriptor = os.open(path, OPEN_FLAGS)
        tail = FileTail(descriptor, source, clock=self._clock, max_line_bytes=self._max, framing=self._framing)
        tail.name = display(os.fspath(path))
        tail.learn_head()
        return tail

    def _open_found(self, found: Found, source: str) -> FileTail:
        """The file that was found, not one that took its name meanwhile. Raises: OSError."""
        tail = self.open(found.path, source)
        if tail.identity != found.identity:
            tail.close()
            raise FileNotFoundError(errno.ENOENT, "renamed meanwhile")
        return tail

    def around(self, path: str, listing: Listing | None = None) -> list[Found]:
        """All neighbours that may be earlier lives, oldest first; `listing` where names may be a moment old."""
        return neighbours(path, self._elsewhere, listing)

    def is_beside(self, tail: FileTail, path: str) -> bool:
        """True if the file, or a compressed copy of it, still lies where rotation puts it."""
        return self._settled(path, lambda: self._lies_beside(tail, path))

    def _settled(self, path: str, look: Callable[[], bool]) -> bool:
        """Whether a look around the log finds something. False only if no name changed meanwhile.

        A rotation that renames while we read the names can hide a file that was there all the time.
        """
        for _ in range(LOOKS):
            seen = changes_around(path, self._elsewhere)
            if look():
                return True
            if seen == changes_around(path, self._elsewhere) and self._is_past(seen):
                return False
        return False

    def _is_past(self, changes: Sequence[int]) -> bool:
        return self._clock.now().timestamp() * SECOND_NS - max(changes, default=0) > TICK_NS

    def _lies_beside(self, tail: FileTail, path: str) -> bool:
        known = tail.checkpoint()
        around = self.around(path)
        return any(found.identity == tail.identity for found in around) or any(
            _begins(packed_head(found.path, HEAD_BYTES) or b"", known) for found in around if found.is_packed
        )

    def was_rotated(self, tail: FileTail, path: str) -> bool:
        """True if the file has the name of a rotated log now: what has its old name is a new life, however it begins.

        A backup of an editor (`sed -i.bak`) is none: there, the old name went to a changed copy.
        """
        return tail.links() > 0 and any(
            found.identity == tail.identity and found.is_rotated and found.path.suffix != ".bak"
            for found in self.around(path)
        )

    def continued(
        self, known: Checkpoint, path: str, *, taken: set[Identity], around: Mapping[Identity, Found]
    ) -> Tail | None:
        """Where rotation took the checkpoint's file: under another name, or as a copy.

        `around` is what a look saw a moment ago: most files are where they were, and hundreds may be asked for.
        """
        if (seen := around.get((known.device, known.inode))) is not None:
            tail = self._packed(seen, known) if seen.is_packed else self._plain(seen, known)
            if tail is not None:
                return tail
        if known.offset == 0:
            return None  # nothing of it was read: it is found as a life that nobody watched
        found: list[Tail] = []

        def look() -> bool:
            tail = self._renamed(known, path)
            tail = self._copy_of(known, path, taken=taken) if tail is None else tail
            found.extend(() if tail is None else (tail,))
            return bool(found)

        self._settled(path, look)
        return next(iter(found), None)

    def copied(self, known: Checkpoint, path: str, *, taken: set[Identity], head: bytes) -> Tail | None:
        """The copy that a cut file has beside it, while names may be moving."""
        found: list[Tail] = []

        def look() -> bool:
            tail = self._copy_of(known, path, taken=taken, head=head)
            found.extend(() if tail is None else (tail,))
            return bool(found)

        self._settled(path, look)
        return next(iter(found), None)

    def _renamed(self, known: Checkpoint, path: str) -> Tail | None:
        """The checkpoint's own file under another name."""
        for found in self.around(path):
            if found.identity == (known.device, known.inode):
                tail = self._packed(found, known) if found.is_packed else self._plain(found, known)
                if tail is not None:
                    return tail
        return None

    def _copy_of(self, known: Checkpoint, path: str, *, taken: Iterable[Identity], head: bytes = b"") -> Tail | None:
        """Another file with what was read and what followed it, plain ones first; None if there is none.

        `head` are the first bytes themselves, where they are still known: recognises a copy shorter than them.
        """
        if not known.head_len:
            return None
        known_s, known_ids = known.changed_ns // SECOND_NS, set(taken)
        others = [
            found
            for found in reversed(self.around(path))
            if found.identity not in known_ids and found.changed_ns // SECOND_NS >= known_s
        ]
        for found in others:
            tail = None if found.is_packed else self._plain(found, known, head=head, may_be_shorter=True)
            if tail is not None:
                return tail
        packed = (self._packed(found, known) for found in others if found.is_packed)
        return next((tail for tail in packed if tail is not None), None)

    def unwatched(
        self,
        path: str,
        source: str,
        history: History,
        alive: Sequence[Checkpoint],
        taken: Container[Identity],
        since_ns: int,
        listing: Listing,
    ) -> Iterator[Tail]:
        """Lives that were born and rotated away unseen, oldest first, and what late writers added to finished ones.

        They were all changed at `since_ns` or later, a time at which no life had been missed yet.
        """
        for found in self.around(path, listing):
            if not found.is_rotated or found.identity in taken or found.changed_ns // SECOND_NS < since_ns // SECOND_NS:
                continue
            tail = self._unwatched_packed(found, source, history, alive) if found.is_packed else (
                self._unwatched_plain(found, source, history, alive)
            )  # fmt: skip
            if tail is not None:
                yield tail

    def _unwatched_plain(self, found: Found, source: str, history: History, alive: Sequence[Checkpoint]) -> Tail | None:
        try:
            tail = self._open_found(found, source)
        except OSError:
            return None  # gone again: it, or its compressed copy, is found next time
        read_before = history.read_of(tail.read_at)
        size = tail.size()
        is_news = size > 0 and (read_before is None or size > read_before)
        if not is_news or any(_begins(tail.read_at(HEAD_BYTES, 0), known) for known in alive):
            tail.close()
            return None
        if read_before:
            tail.move_to(read_before)
        return tail

    def _unwatched_packed(
        self, found: Found, source: str, history: History, alive: Sequence[Checkpoint]
    ) -> Tail | None:
        def is_news(head: bytes) -> bool:
            if not head or any(_begins(head, known) for known in alive):
                return False
            return history.read_of(lambda length, offset: head[offset : offset + length]) is None

        device, inode = found.identity
        known = Checkpoint(source=source, device=device, inode=inode, changed_ns=found.changed_ns)
        return self._open_packed(found, known, is_news)

    def life_of(self, found: Found) -> Life | None:
        """How the content of a file is told from others; None if it has none, or cannot be read."""
        if found.is_packed:
            head = packed_head(found.path, HEAD_BYTES) or b""
        else:
            try:
                with found.path.open("rb") as file:
                    head = file.read(HEAD_BYTES)
            except OSError:
                return None
        return (head_hash(head), len(head), found.size) if head else None

    def _plain(
        self, found: Found, known: Checkpoint, *, head: bytes = b"", may_be_shorter: bool = False
    ) -> FileTail | None:
        try:
            tail = self._open_found(found, known.source)
        except OSError:
            return None
        if tail.resume(known):
            tail.changed = True  # written again in the commit that forgets the old row
            return tail
        first = tail.read_at(HEAD_BYTES, 0)
        is_same = _begins(first, known) or (0 < len(first) < HEAD_BYTES and head.startswith(first))
        if may_be_shorter and 0 < tail.size() < known.offset and is_same:
            tail.move_to(tail.size())  # a copy made before the last lines were read
            return tail
        tail.close()
        return None

    def _packed(self, found: Found, known: Checkpoint) -> PackedTail | None:
        device, inode = found.identity  # its own identity: the number of the file it was made of is free for others
        mine = replace(known, device=device, inode=inode, born_ns=0)
        is_unread = known.offset == 0 and known.head_len == 0 and found.identity == (known.device, known.inode)
        return self._open_packed(found, mine, lambda head: is_unread or _begins(head, known))

    def _open_packed(self, found: Found, known: Checkpoint, is_wanted: Callable[[bytes], bool]) -> PackedTail | None:
        """The archive that was found, if its content begins as wanted: rotation may give its name to another one."""
        try:
            file = found.path.open("rb")
        except OSError:
            return None
        status = os.fstat(file.fileno())
        head = head_of(file, HEAD_BYTES) if (status.st_dev, status.st_ino) == found.identity else None
        if head is None or not is_wanted(head):
            file.close()
            return None
        tail = PackedTail(
            unpacked(file), known, clock=self._clock, max_line_bytes=self._max, framing=self._framing, file=file
        )
        tail.name = display(str(found.path))
        return tail


def _begins(head: bytes, known: Checkpoint) -> bool:
    return 0 < known.head_len <= len(head) and head_hash(head[: known.head_len]) == known.head_hash
