"""Recomputing a whole trail from its stored entry bytes. Nothing stored is believed."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from breachwatch.audit.entry import decode
from breachwatch.audit.merkle import EMPTY_ROOT, leaf_hash, verify_consistency
from breachwatch.audit.note import Checkpoint, Verifier, open_checkpoint
from breachwatch.audit.tiles import TreeReader, append_hashes, levels
from breachwatch.errors import VerificationError
from breachwatch.ports import StoredTrail, Tiles

BATCH = 4_096
"""Entries held in memory at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What a trail that holds says of itself."""

    origin: str
    size: int
    root: str
    """Base64, as in the checkpoint."""
    first_at: datetime | None
    last_at: datetime | None
    types: Mapping[str, int]


class MemoryTiles:
    """Only tiles, rebuilt while verifying."""

    def __init__(self) -> None:
        self.tiles: dict[tuple[int, int], bytes] = {}

    def tile(self, level: int, index: int) -> bytes | None:
        """One tile."""
        return self.tiles.get((level, index))

    def put_tile(self, level: int, index: int, hashes: bytes) -> None:
        """Keep one tile."""
        self.tiles[level, index] = hashes


def verify_log(tiles: StoredTrail, verifier: Verifier, *, known: bytes | None = None) -> VerifyReport:
    """Pass if entries, tiles and signed head agree, and grew out of the `known` checkpoint if one is given.

    Raises: VerificationError that names what does not hold.
    """
    size = tiles.size()
    note = tiles.checkpoint()
    if note is None:
        raise VerificationError("there is no signed head: the trail is empty or its checkpoints were removed")
    head = open_checkpoint(note, verifier)
    if head.size != size:
        raise VerificationError(f"the signed head is of {head.size} entries, but {size} are stored")
    rebuilt, report = _recompute(tiles, size, head)
    for level, count in levels(size):
        for index in range((count + 255) // 256):
            if tiles.tile(level, index) != rebuilt.tile(level, index):
                raise VerificationError(f"tile {level}/{index} is not what its entries give")
    if known is not None:
        check_growth(open_checkpoint(known, verifier), head, rebuilt)
    return report


def _recompute(tiles: StoredTrail, size: int, head: Checkpoint) -> tuple[MemoryTiles, VerifyReport]:
    rebuilt = MemoryTiles()
    types: Counter[str] = Counter()
    first_at = last_at = None
    done = 0
    while done < size:
        batch = list(tiles.entries(done, min(size, done + BATCH)))
        if not batch:
            raise VerificationError(f"entry {done} is missing")
        for offset, data in enumerate(batch):
            entry = decode(data, done + offset)
            types[entry.type] += 1
            first_at, last_at = first_at or entry.at_utc, entry.at_utc
        done = append_hashes(rebuilt, done, [leaf_hash(data) for data in batch])
    root = TreeReader(rebuilt, size).root() if size else EMPTY_ROOT
    if root != head.root:
        raise VerificationError(
            "the entries do not give the signed root: an entry was changed, removed, added or moved"
        )
    report = VerifyReport(
        origin=head.origin,
        size=size,
        root=base64.b64encode(root).decode(),
        first_at=first_at,
        last_at=last_at,
        types=dict(types),
    )
    return rebuilt, report


def check_growth(known: Checkpoint, head: Checkpoint, tiles: Tiles) -> None:
    """Pass if the head grew out of a checkpoint that others hold. Raises: VerificationError."""
    if known.size > head.size:
        raise VerificationError(
            f"others hold a head of {known.size} entries, this trail has {head.size}: it was rolled back or cut"
        )
    if known.size == 0:
        return
    proof = TreeReader(tiles, head.size).consistency(known.size)
    verify_consistency(old_size=known.size, new_size=head.size, old_root=known.root, new_root=head.root, proof=proof)
