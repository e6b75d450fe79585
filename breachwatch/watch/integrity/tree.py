"""Directories as rows: listing one, packing one, and the rows that changed since the last commit."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from breachwatch.model import DirectoryRow
from breachwatch.watch.integrity.entry import META, Entry, pack_stat
from breachwatch.watch.integrity.seal import leaf_of

SELF = b"."
"""Name under which a root keeps its own entry; every other directory's entry lies in its parent's row."""

MAX_WAITING, LEAST_WEIGHT, MOST_WEIGHT = 50_000, 50, 2_000
"""Entries of changed directories that wait for a commit: about 15 MB. A small directory counts as fifty entries, a huge
one as two thousand: each change of it must not be a commit of its own."""

PAGE_ROWS = 64
"""Rows read ahead by a sweep."""


class Roots(Protocol):
    """Who knows the roots at this moment."""

    @property
    def root_set(self) -> frozenset[bytes]: ...


class RowStore(Protocol):
    """Where the rows lie."""

    def directory_row(self, path: bytes) -> DirectoryRow | None: ...

    def directory_rows(self, *, under: bytes, after: bytes | None, limit: int) -> Sequence[DirectoryRow]:
        """Rows of `under` and of what lies below it, in byte order of their paths."""
        ...


class Listing:
    """One directory as it is now: names in order, and the metadata of each."""

    __slots__ = ("metas", "names")

    def __init__(self, names: list[str], metas: list[bytes]) -> None:
        self.names = names
        self.metas = metas

    def equals(self, row: DirectoryRow) -> bool:
        """True if not one name or bit of metadata differs: the answer for nearly every directory of a sweep."""
        return row.meta == b"".join(self.metas) and row.names == os.fsencode("\0".join(self.names))


def list_open(descriptor: int, *, is_root: bool, wanted: Callable[[str], bool] | None) -> Listing:
    """List an open directory. Raises: OSError (the directory itself cannot be listed)."""
    names = os.listdir(descriptor)
    names.sort()
    if wanted is not None:
        names = [name for name in names if wanted(name)]
    try:
        metas = [pack_stat(os.stat(name, dir_fd=descriptor, follow_symlinks=False)) for name in names]
    except OSError:
        names, metas = _one_by_one(descriptor, names)
    if is_root:
        names.insert(0, ".")
        metas.insert(0, pack_stat(os.fstat(descriptor)))
    return Listing(names, metas)


def _one_by_one(descriptor: int, names: list[str]) -> tuple[list[str], list[bytes]]:
    """Entries that went away meanwhile are left out."""
    left, metas = [], []
    for name in names:
        try:
            metas.append(pack_stat(os.stat(name, dir_fd=descriptor, follow_symlinks=False)))
        except FileNotFoundError:
            continue
        except OSError:
            metas.append(bytes(META.size))
        left.append(name)
    return left, metas


def pack_row(path: bytes, entries: dict[bytes, Entry]) -> DirectoryRow:
    """One row; the own entry of a root comes first, the others as a listing sorts them."""
    names = sorted(entries, key=lambda name: (name != SELF, os.fsdecode(name)))
    found = [entries[name] for name in names]
    return DirectoryRow(
        path=path,
        names=b"\0".join(names),
        meta=b"".join([entry.meta for entry in found]),
        rest=b"".join([len(entry.rest).to_bytes(4, "little") + entry.rest for entry in found]),
    )


def unpack_row(row: DirectoryRow) -> dict[bytes, Entry]:
    """The entries of a row by name. Raises: ValueError (a damaged row)."""
    if not row.names:
        return {}
    names, width = row.names.split(b"\0"), META.size
    if len(row.meta) != len(names) * width:
        raise ValueError("a baseline row whose parts do not fit together")
    entries, at = {}, 0
    for index, name in enumerate(names):
        size = int.from_bytes(row.rest[at : at + 4], "little")
        at += 4
        rest = row.rest[at : at + size]
        if len(rest) != size or size < 2 or len(rest) < 2 + rest[1]:  # noqa: PLR2004  # state and digest length
            raise ValueError("a baseline row that was cut")
        entries[name] = Entry(row.meta[index * width : (index + 1) * width], rest)
        at += size
    return entries


def split(path: bytes, roots: frozenset[bytes]) -> tuple[bytes, bytes]:
    """(directory row, name) where a path's entry lies."""
    if path in roots:
        return path, SELF
    folder, _, name = path.rpartition(b"/")
    return folder or b"/", name


def join(folder: bytes, name: bytes) -> bytes:
    """The path of one entry of a directory."""
    return folder if name == SELF else folder.rstrip(b"/") + b"/" + name


def is_below(path: bytes, root: bytes) -> bool:
    """True for the root itself and everything below it."""
    return path == root or path.startswith(root.rstrip(b"/") + b"/")


class Baseline:
    """The stored rows with what changed since the last commit laid over them."""

    def __init__(self, store: RowStore, scope: Roots) -> None:
        self._store = store
        self._scope = scope
        self._open: dict[bytes, dict[bytes, Entry] | None] = {}
        self._dirty: set[bytes] = set()
        self._waiting = 0
        self.damaged: list[bytes] = []

    def entries(self, folder: bytes) -> dict[bytes, Entry] | None:
        """What is known of a directory's entries; None if it is not known."""
        if folder not in self._open:
            row = self._store.directory_row(folder)
            self._open[folder] = None if row is None else self.unpack(self._sound(row))
        return self._open[folder]

    def _sound(self, row: DirectoryRow) -> DirectoryRow:
        """The row; if it is not as it was sealed, that is remembered and told."""
        if leaf_of(row) != row.leaf:
            self.damaged.append(row.path)
        return row

    def unpack(self, row: DirectoryRow) -> dict[bytes, Entry]:
        """As `unpack_row`; a damaged row counts as empty and is remembered."""
        try:
            return unpack_row(row)
        except ValueError:
            self.damaged.append(row.path)
            return {}

    def entry(self, path: bytes) -> Entry | None:
        """What is known of one path."""
        folder, name = split(path, self._scope.root_set)
        entries = self.entries(folder)
        return None if entries is None else entries.get(name)

    def rows(self, under: bytes) -> Iterator[DirectoryRow]:
        """Stored rows of a subtree, read page by page: another transaction may come in between."""
        after: bytes | None = None
        while page := self._store.directory_rows(under=under, after=after, limit=PAGE_ROWS):
            yield from map(self._sound, page)
            after = page[-1].path

    def put(self, path: bytes, entry: Entry | None) -> None:
        """Know a path as it is now; None: it is gone."""
        folder, name = split(path, self._scope.root_set)
        entries = self.entries(folder)
        if entry is not None:
            if entries is None:
                entries = self._open[folder] = {}
            entries[name] = entry
        elif entries is None or entries.pop(name, None) is None:
            return
        self._changes(folder)

    def put_folder(self, folder: bytes, entries: dict[bytes, Entry] | None) -> None:
        """Know a whole directory as it is now; None: it is gone."""
        self._open[folder] = entries
        self._changes(folder)

    def _changes(self, folder: bytes) -> None:
        if folder not in self._dirty:
            self._dirty.add(folder)
            self._waiting += min(max(LEAST_WEIGHT, len(self._open.get(folder) or ())), MOST_WEIGHT)

    def pending_below(self, folder: bytes) -> list[bytes]:
        """Directories that were learnt since the last commit."""
        return [path for path in self._dirty if self._open.get(path) is not None and is_below(path, folder)]

    def take(self) -> tuple[tuple[DirectoryRow, ...], tuple[bytes, ...]]:
        """Rows that changed since the last call, and directories that are gone."""
        changed = [(path, self._open[path]) for path in sorted(self._dirty)]
        self._open.clear()
        self._dirty.clear()
        self._waiting = 0
        rows = tuple(pack_row(path, entries) for path, entries in changed if entries is not None)
        return rows, tuple(path for path, entries in changed if entries is None)

    def forget_unchanged(self) -> None:
        """Read again what is not about to be stored: somebody else may have accepted something meanwhile."""
        self._open = {path: entries for path, entries in self._open.items() if path in self._dirty}

    @property
    def is_full(self) -> bool:
        """True when as much waits for a commit as memory should hold."""
        return self._waiting >= MAX_WAITING
