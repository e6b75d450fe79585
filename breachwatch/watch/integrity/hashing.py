"""Which hashes are taken of a content: SHA-256 always, BLAKE3 beside it where the rolling re-hash shall be cheaper.

SHA-256 is what package databases and threat feeds speak, so every verdict has it. BLAKE3 costs less than half of it on
large files; with it the rolling re-hash takes BLAKE3 alone and compares it with the one that the verdict took.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

from breachwatch.errors import WatchError


class Hash(Protocol):
    """A running hash, as hashlib has it."""

    def update(self, data: bytes | memoryview, /) -> object: ...

    def digest(self) -> bytes: ...


Hashers = tuple[Callable[[], Hash], ...]

SHA256: Hashers = (sha256,)


@dataclass(frozen=True, slots=True)
class Hashing:
    """Hashes of a verdict, and of the rolling re-hash."""

    verdict: Hashers = SHA256
    rolling: Hashers = SHA256


def hashing_of(rolling: str) -> Hashing:
    """By the name of the rolling hash: sha256 or blake3. Raises: WatchError (the package is not installed)."""
    if rolling == "sha256":
        return Hashing()
    try:
        blake3 = importlib.import_module("blake3").blake3
    except ImportError as error:
        raise WatchError(
            "the package blake3 is not installed", source="watch.integrity.rolling_hash",
            hint='pip install blake3, or rolling_hash = "sha256"',
        ) from error  # fmt: skip
    return Hashing(verdict=(sha256, blake3), rolling=(blake3,))
