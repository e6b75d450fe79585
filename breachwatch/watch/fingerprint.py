"""Recognising a file again: inode numbers are reused, so content has to agree too (facts: watchers 4.2)."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b

from breachwatch.model import Checkpoint

HEAD_BYTES = 512
"""The head fingerprint covers at most this much, and its length is stored: small files are never blocked."""

TAIL_BYTES = 64
"""So many bytes right before the offset have to be the same."""

GENERATION_BYTES = 4_096
"""The first line names a file's life; longer ones are cut here."""

ReadAt = Callable[[int, int], bytes]
"""(length, offset) -> bytes, fewer at the end of the file."""


def head_hash(head: bytes) -> str:
    """Fingerprint of the first bytes."""
    return blake2b(head[:HEAD_BYTES], digest_size=16).hexdigest()


def generation_of(first_line: bytes) -> str:
    """Name of a file's present life; a copy of the file has the same one."""
    return blake2b(first_line[:GENERATION_BYTES].removesuffix(b"\r"), digest_size=8).hexdigest()


def is_same_content(read_at: ReadAt, known: Checkpoint) -> bool:
    """True if the head and the bytes before the offset are what they were."""
    head = read_at(known.head_len, 0) if known.head_len else b""
    if len(head) != known.head_len or (known.head_len and head_hash(head) != known.head_hash):
        return False
    tail = read_at(len(known.tail), known.offset - len(known.tail)) if known.tail else b""
    return tail == known.tail
