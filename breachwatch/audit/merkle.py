"""The Merkle tree of RFC 6962 as small pure functions.

Source: RFC 6962 section 2.1 (hashes, audit path, consistency), RFC 9162 section 2.1 (verification algorithms).
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from breachwatch.errors import VerificationError

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """Hash of one entry: SHA-256(0x00 || data)."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of two subtrees: SHA-256(0x01 || left || right)."""
    return sha256(b"\x01" + left + right).digest()


def root_hash(leaves: Sequence[bytes]) -> bytes:
    """Root over leaf hashes, by the definition: slow and obviously right."""
    if not leaves:
        return EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    split = largest_power_below(len(leaves))
    return node_hash(root_hash(leaves[:split]), root_hash(leaves[split:]))


def largest_power_below(number: int) -> int:
    """The largest power of two smaller than `number` (> 1)."""
    return 1 << ((number - 1).bit_length() - 1)


def verify_inclusion(*, index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes) -> None:
    """Pass if the leaf hash stands at `index` in the tree of this size and root. Raises: VerificationError."""
    _require_hashes(leaf, root, *proof)
    if not 0 <= index < size:
        raise VerificationError(f"index {index} is outside a tree of {size} entries")
    position, last, computed = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise VerificationError("the inclusion proof is longer than the tree is high")
        if position & 1 or position == last:
            computed = node_hash(sibling, computed)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            computed = node_hash(computed, sibling)
        position >>= 1
        last >>= 1
    if last != 0:
        raise VerificationError("the inclusion proof is shorter than the tree is high")
    if computed != root:
        raise VerificationError("the entry is not in the tree: the computed root differs from the signed one")


def verify_consistency(  # noqa: C901, PLR0912  # the algorithm of RFC 9162 2.1.4.2, kept in one piece to be compared
    *, old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Pass if the old tree is the beginning of the new one. Raises: VerificationError (also for an empty old tree)."""
    if not 0 < old_size <= new_size:
        raise VerificationError(f"no consistency can be shown from size {old_size} to size {new_size}")
    if old_size == new_size:
        if proof or old_root != new_root:
            raise VerificationError("two different trees of one size")
        return
    _require_hashes(old_root, new_root, *proof)
    path = list(proof)
    if old_size & (old_size - 1) == 0:
        path.insert(0, old_root)
    if not path:
        raise VerificationError("the consistency proof is empty")
    position, last = old_size - 1, new_size - 1
    while position & 1:
        position >>= 1
        last >>= 1
    old_computed = new_computed = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise VerificationError("the consistency proof is too long")
        if position & 1 or position == last:
            old_computed = node_hash(sibling, old_computed)
            new_computed = node_hash(sibling, new_computed)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            new_computed = node_hash(new_computed, sibling)
        position >>= 1
        last >>= 1
    if last != 0:
        raise VerificationError("the consistency proof is too short")
    if old_computed != old_root:
        raise VerificationError("the old tree is not the beginning of the new one: history was changed")
    if new_computed != new_root:
        raise VerificationError("the consistency proof does not lead to the new root")


def _require_hashes(*hashes: bytes) -> None:
    for value in hashes:
        if len(value) != HASH_BYTES:
            raise VerificationError(f"a SHA-256 hash has 32 bytes, not {len(value)}")
