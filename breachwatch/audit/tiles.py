"""A Merkle tree in tiles of 256 hashes. Source: C2SP tlog-tiles (tile height 8).

Level 0 tiles hold leaf hashes; a tile of level n+1 holds the roots of full tiles of level n.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

from breachwatch.audit.merkle import EMPTY_ROOT, HASH_BYTES, largest_power_below, node_hash
from breachwatch.errors import AuditError
from breachwatch.ports import Tiles, WritableTiles

WIDTH = 256
"""Hashes per full tile."""


def levels(size: int) -> Iterator[tuple[int, int]]:
    """(level, number of hashes on it) for a tree of `size`, from the leaves up."""
    level, count = 0, size
    while count > 0:
        yield level, count
        level, count = level + 1, count // WIDTH


def perfect_root(hashes: Sequence[bytes]) -> bytes:
    """Root of a power-of-two number of hashes."""
    row = list(hashes)
    while len(row) > 1:
        row = [node_hash(row[i], row[i + 1]) for i in range(0, len(row), 2)]
    return row[0]


def append_hashes(tiles: WritableTiles, size: int, leaves: Sequence[bytes]) -> int:
    """Add leaf hashes to a tree of `size`, rewriting only the rightmost tiles; returns the new size."""
    new, count, level = list(leaves), size, 0
    while new:
        finished: list[bytes] = []
        tile_index, filled = divmod(count, WIDTH)
        row = _split(_required(tiles, level, tile_index, filled)) if filled else []
        for start in _chunks(len(new), WIDTH - filled):
            row.extend(new[start[0] : start[1]])
            tiles.put_tile(level, tile_index, b"".join(row))
            if len(row) == WIDTH:
                finished.append(perfect_root(row))
                tile_index += 1
                row = []
        count, level, new = count // WIDTH, level + 1, finished
    return size + len(leaves)


def _chunks(total: int, first: int) -> Iterator[tuple[int, int]]:
    start, length = 0, first
    while start < total:
        end = min(total, start + length)
        yield start, end
        start, length = end, WIDTH


def _split(joined: bytes) -> list[bytes]:
    return [joined[i : i + HASH_BYTES] for i in range(0, len(joined), HASH_BYTES)]


def _required(tiles: Tiles, level: int, index: int, width: int) -> bytes:
    stored = tiles.tile(level, index)
    if stored is None or len(stored) < width * HASH_BYTES:
        raise AuditError(f"tile {level}/{index} of the audit trail is missing or short")
    return stored[: width * HASH_BYTES]


class TreeReader:
    """Hashes of a stored tree of one size; tiles are read once."""

    def __init__(self, tiles: Tiles, size: int) -> None:
        self._size = size
        self._tiles = tiles
        self._tile = lru_cache(maxsize=512)(self._read)

    def _read(self, level: int, index: int) -> bytes:
        count = self._size >> (8 * level)
        return _required(self._tiles, level, index, min(WIDTH, count - index * WIDTH))

    def subtree(self, start: int, end: int) -> bytes:
        """Root of the entries start..end-1 (as RFC 6962 cuts trees)."""
        length = end - start
        if length == 0:
            return EMPTY_ROOT
        if length & (length - 1) == 0 and start % length == 0:
            return self._aligned(start, length)
        split = largest_power_below(length)
        return node_hash(self.subtree(start, start + split), self.subtree(start + split, end))

    def _aligned(self, start: int, length: int) -> bytes:
        level = (length.bit_length() - 1) // 8
        unit = WIDTH**level
        while level and start // unit + length // unit > self._size // unit:
            level, unit = level - 1, unit // WIDTH
        first, count = start // unit, length // unit
        tile_index, offset = divmod(first, WIDTH)
        hashes = self._tile(level, tile_index)
        wanted = hashes[offset * HASH_BYTES : (offset + count) * HASH_BYTES]
        if len(wanted) != count * HASH_BYTES:
            raise AuditError(f"tile {level}/{tile_index} of the audit trail is short")
        return perfect_root(_split(wanted))

    def root(self) -> bytes:
        """Root of the whole tree."""
        return self.subtree(0, self._size)

    def inclusion(self, index: int) -> list[bytes]:
        """Audit path of one entry. Source: RFC 6962 section 2.1.1."""
        return self._path(index, 0, self._size)

    def _path(self, index: int, start: int, end: int) -> list[bytes]:
        if end - start <= 1:
            return []
        split = start + largest_power_below(end - start)
        if index < split:
            return [*self._path(index, start, split), self.subtree(split, end)]
        return [*self._path(index, split, end), self.subtree(start, split)]

    def consistency(self, old_size: int) -> list[bytes]:
        """Proof that the first `old_size` entries are the beginning. Source: RFC 6962 section 2.1.2."""
        if old_size == self._size:
            return []
        return self._consistency(old_size, 0, self._size, whole=True)

    def _consistency(self, old_size: int, start: int, end: int, *, whole: bool) -> list[bytes]:
        if old_size == end - start:
            return [] if whole else [self.subtree(start, end)]
        split = largest_power_below(end - start)
        if old_size <= split:
            left = self._consistency(old_size, start, start + split, whole=whole)
            return [*left, self.subtree(start + split, end)]
        right = self._consistency(old_size - split, start + split, end, whole=False)
        return [*right, self.subtree(start, start + split)]
