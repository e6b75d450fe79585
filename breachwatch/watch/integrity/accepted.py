"""What the operator accepted, for paths that are no longer so; and the texts that differences are shown against."""

from __future__ import annotations

from typing import Protocol

import msgspec

from breachwatch.model import Deviation, FileChange, FileRecord

ALIKE = ("type", "mode", "uid", "gid", "size", "sha256", "link_target", "flags", "xattrs", "state")
"""What a file must be again to count as accepted; times, links and inode do not come back and do not matter."""

_record = msgspec.msgpack.Decoder(FileRecord)


class AcceptedStore(Protocol):
    """Where deviations and texts lie."""

    def deviation(self, path: bytes) -> Deviation | None: ...

    def content(self, path: bytes) -> bytes | None:
        """Compressed text that was stored for showing differences."""
        ...


class Accepted:
    """Stored deviations and texts with what changed since the last commit laid over them."""

    def __init__(self, store: AcceptedStore) -> None:
        self._store = store
        self._deviations: dict[bytes, Deviation | None] = {}
        self._contents: dict[bytes, bytes] = {}

    def before(self, change: FileChange) -> FileRecord | None:
        """What the path was when somebody last accepted it."""
        known = self._deviations.get(change.path, self._store.deviation(change.path))
        return change.before if known is None else unpack_accepted(known)

    def deviates(self, change: FileChange) -> None:
        """Remember what was accepted, until it is so again or somebody accepts what is now."""
        path, accepted = change.path, self.before(change)
        if alike(accepted, change.after):
            self._deviations[path] = None
            return
        self._deviations[path] = Deviation(
            path=path, before=pack_accepted(accepted), seen_at=change.seen_at, explained_by=change.explained_by
        )

    def accept(self, path: bytes) -> None:
        """What is there now is as it should be."""
        self._deviations[path] = None

    def is_as_accepted(self, path: bytes) -> bool:
        """True if no deviation is open for the path."""
        if path in self._deviations:
            return self._deviations[path] is None
        return self._store.deviation(path) is None

    def content(self, path: bytes) -> bytes | None:
        """Stored text of a file."""
        return self._contents[path] if path in self._contents else self._store.content(path)

    def put_content(self, path: bytes, compressed: bytes) -> None:
        """Store text of a file."""
        self._contents[path] = compressed

    def take(self) -> tuple[tuple[Deviation, ...], tuple[bytes, ...], tuple[tuple[bytes, bytes], ...]]:
        """(deviations, paths that are as accepted, texts) since the last call."""
        deviations = tuple(item for item in self._deviations.values() if item is not None)
        settled = tuple(path for path, item in self._deviations.items() if item is None)
        contents = tuple(self._contents.items())
        self._deviations.clear()
        self._contents.clear()
        return deviations, settled, contents


def pack_accepted(record: FileRecord | None) -> bytes:
    """What a deviation keeps; empty if there was nothing."""
    return b"" if record is None else msgspec.msgpack.encode(record)


def unpack_accepted(deviation: Deviation) -> FileRecord | None:
    """The record that a deviation keeps. Raises: msgspec.DecodeError (damaged)."""
    return _record.decode(deviation.before) if deviation.before else None


def alike(accepted: FileRecord | None, now: FileRecord | None) -> bool:
    """True if what was accepted is there again."""
    if accepted is None or now is None:
        return accepted is now
    return all(getattr(accepted, name) == getattr(now, name) for name in ALIKE)
