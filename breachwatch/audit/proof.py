"""Receipts: one entry's proof in one text file. Source: c2sp.org/tlog-proof@v1."""

from __future__ import annotations

import base64

from breachwatch.audit.merkle import leaf_hash, verify_inclusion
from breachwatch.audit.note import Checkpoint, Verifier, exact_base64, exact_decimal, open_checkpoint
from breachwatch.audit.tiles import TreeReader
from breachwatch.errors import AuditError, VerificationError
from breachwatch.ports import StoredTrail

HEADER = "c2sp.org/tlog-proof@v1"
MAX_PATH = 63
"""No tree of less than 2**63 entries has a longer path."""


def build_receipt(tiles: StoredTrail, index: int, verifier: Verifier) -> str:
    """The receipt of one entry against the latest signed head. Raises: AuditError, VerificationError."""
    note = tiles.checkpoint()
    if note is None:
        raise AuditError("the audit trail is empty")
    head = open_checkpoint(note, verifier)
    if not 0 <= index < head.size:
        raise AuditError(f"the audit trail has no entry {index}; it has {head.size}")
    path = TreeReader(tiles, head.size).inclusion(index)
    stored = list(tiles.entries(index, index + 1))
    if not stored:
        raise VerificationError(f"entry {index} is missing")
    # a receipt from damaged tiles would fail in the hands of whoever got it
    verify_inclusion(index=index, size=head.size, leaf=leaf_hash(stored[0]), proof=path, root=head.root)
    lines = [HEADER, f"index {index}", *(base64.b64encode(hashed).decode() for hashed in path), "", note.decode()]
    return "\n".join(lines)


def verify_receipt(receipt: str, entry: bytes, verifier: Verifier) -> tuple[int, Checkpoint]:
    """Pass if these entry bytes are in the log that this key signs; gives index and head. Raises: VerificationError."""
    head_part, separator, note = receipt.partition("\n\n")
    lines = head_part.split("\n")
    if not separator or lines[0] != HEADER or len(lines) < 2:  # noqa: PLR2004  # header and index
        raise VerificationError("this is not a tlog-proof")
    word, _, number = lines[1].partition(" ")
    if word != "index":
        raise VerificationError("the receipt names no index")
    index = exact_decimal(number, "the index")
    if len(lines) - 2 > MAX_PATH:
        raise VerificationError("the receipt's path is too long")
    path = [exact_base64(line, "a hash of the path") for line in lines[2:]]
    head = open_checkpoint(note.encode("utf-8", "surrogatepass"), verifier)
    verify_inclusion(index=index, size=head.size, leaf=leaf_hash(entry), proof=path, root=head.root)
    return index, head
