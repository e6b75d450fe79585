"""Contacts sealed per person: erasing a person destroys a key and breaks no proof.

AES-256-GCM with a data key of each person's own, wrapped by a key-encryption key outside the database. Person ids are
HMAC-SHA256 commitments to the customer reference: without the key they name nobody (facts: unkeyed hashes are guessed).
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from breachwatch.audit.keys import load_or_create_secret
from breachwatch.errors import VerificationError
from breachwatch.model import Person
from breachwatch.ports import VaultRows

KEY_FILE = "vault.key"
KEY_BYTES = 32
NONCE_BYTES = 12
PERSON_ID_HEX = 32
"""128 bits: no two customers of one company collide."""


class Vault:
    """`ports.ContactVault` over encrypted rows."""

    def __init__(self, rows: VaultRows, key_folder: Path) -> None:
        secret = load_or_create_secret(key_folder / KEY_FILE, 2 * KEY_BYTES)
        self._rows = rows
        self._commitment_key = secret[:KEY_BYTES]
        self._wrapper = AESGCM(secret[KEY_BYTES:])

    def person_id(self, ref: str) -> str:
        """The commitment that stands for this customer everywhere outside the vault."""
        return hmac.new(self._commitment_key, ref.encode(), sha256).hexdigest()[:PERSON_ID_HEX]

    def put(self, people: Sequence[Person]) -> list[str]:
        """Seal and store people; returns their ids in order. Raises: StoreError."""
        ids = [self.person_id(person.ref) for person in people]
        self._rows.put_rows([self._seal(name, person) for name, person in zip(ids, people, strict=True)])
        return ids

    def _seal(self, person_id: str, person: Person) -> tuple[str, bytes, bytes]:
        key = os.urandom(KEY_BYTES)
        nonces = os.urandom(2 * NONCE_BYTES)
        bound = person_id.encode()
        wrapped = nonces[:NONCE_BYTES] + self._wrapper.encrypt(nonces[:NONCE_BYTES], key, bound)
        sealed = nonces[NONCE_BYTES:] + AESGCM(key).encrypt(nonces[NONCE_BYTES:], msgspec.msgpack.encode(person), bound)
        return person_id, wrapped, sealed

    def get(self, person_ids: Sequence[str]) -> Mapping[str, Person]:
        """Open the rows of these people; erased ones are missing. Raises: StoreError, VerificationError."""
        return {row[0]: self._open(*row) for row in self._rows.get_rows(person_ids)}

    def _open(self, person_id: str, wrapped: bytes, sealed: bytes) -> Person:
        bound = person_id.encode()
        try:
            key = self._wrapper.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], bound)
            plain = AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound)
        except (InvalidTag, ValueError) as error:  # ValueError: a row cut so short that not even a nonce is left
            raise VerificationError("a vault row was changed or belongs to another key", source=person_id) from error
        return msgspec.msgpack.decode(plain, type=Person)

    def erase(self, person_id: str) -> bool:
        """Destroy a person's key and contact; False if there was none. Raises: StoreError."""
        return self._rows.erase_row(person_id)
