"""Signed notes and checkpoints. Source: C2SP signed-note, tlog-checkpoint; Ed25519 signature type 0x01."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from breachwatch.audit.merkle import HASH_BYTES
from breachwatch.errors import VerificationError

ED25519 = b"\x01"
SIGNATURE_BYTES = 64
KEY_ID_BYTES = 4
MAX_NOTE_BYTES = 1_000_000
"""A note is read whole; nobody needs a larger one."""

_DECIMAL = re.compile(r"0|[1-9][0-9]{0,17}")
_SIGNATURE = re.compile("— (?P<name>[^ \n+]+) (?P<signature>[A-Za-z0-9+/=]+)")


def is_key_name(name: str) -> bool:
    """Whether a signature line can carry this name: not empty, no blanks, no `+`, no control characters."""
    return bool(name) and "+" not in name and name.isprintable() and not any(char.isspace() for char in name)


def key_id(name: str, public: bytes) -> bytes:
    """The four bytes that tie a signature line to a key."""
    return sha256(name.encode() + b"\n" + ED25519 + public).digest()[:KEY_ID_BYTES]


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key and the name it signs under."""

    name: str
    public: bytes

    @property
    def vkey(self) -> str:
        """`name+hash+key`, as other tools read it."""
        encoded = base64.b64encode(ED25519 + self.public).decode()
        return f"{self.name}+{key_id(self.name, self.public).hex()}+{encoded}"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree head: whose, how many entries, which root."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The three lines that are signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def load_verifier(vkey: str) -> Verifier:
    """Read `name+hash+key`. Raises: VerificationError."""
    parts = vkey.strip().split("+", 2)
    if len(parts) != 3:  # noqa: PLR2004  # name, hash, key
        raise VerificationError("a verifier key has the form name+hash+key")
    name, hash_hex, encoded = parts
    raw = exact_base64(encoded, "the verifier key")
    if not is_key_name(name) or raw[:1] != ED25519 or len(raw) != 1 + HASH_BYTES:
        raise VerificationError("the verifier key is not an Ed25519 key")
    if key_id(name, raw[1:]).hex() != hash_hex:
        raise VerificationError("the verifier key's hash does not fit its name and key")
    return Verifier(name, raw[1:])


def exact_base64(text: str, what: str) -> bytes:
    """Decode only the canonical spelling. Raises: VerificationError."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise VerificationError(f"{what} is not base64") from error
    if base64.b64encode(raw).decode() != text:
        raise VerificationError(f"{what} is not in canonical base64")
    return raw


def exact_decimal(text: str, what: str) -> int:
    """A number without sign or leading zero, at most 18 digits. Raises: VerificationError."""
    if not _DECIMAL.fullmatch(text):
        raise VerificationError(f"{what} is not a canonical decimal number")
    return int(text)


def open_note(note: bytes, verifier: Verifier) -> str:
    """The text of a note that this key signed. Raises: VerificationError."""
    if len(note) > MAX_NOTE_BYTES:
        raise VerificationError("the note is too large")
    try:
        whole = note.decode("utf-8")
    except UnicodeDecodeError as error:
        raise VerificationError("the note is not UTF-8") from error
    if any(ord(char) < 0x20 and char != "\n" for char in whole):  # noqa: PLR2004  # control characters
        raise VerificationError("the note holds control characters")
    text, separator, tail = whole.rpartition("\n\n")
    if not separator or not tail.endswith("\n"):
        raise VerificationError("the note has no signature block")
    text += "\n"
    verified = False
    for line in tail[:-1].split("\n"):
        found = _SIGNATURE.fullmatch(line)
        if not found:
            raise VerificationError("the note has a malformed signature line")
        raw = exact_base64(found["signature"], "a signature line")
        if found["name"] != verifier.name or raw[:KEY_ID_BYTES] != key_id(verifier.name, verifier.public):
            continue
        if verified:
            raise VerificationError("the note is signed twice by the same key")
        _check_signature(text, raw[KEY_ID_BYTES:], verifier)
        verified = True
    if not verified:
        raise VerificationError(f"the note is not signed by {verifier.name}")
    return text


def _check_signature(text: str, signature: bytes, verifier: Verifier) -> None:
    if len(signature) != SIGNATURE_BYTES:
        raise VerificationError("an Ed25519 signature has 64 bytes")
    try:
        Ed25519PublicKey.from_public_bytes(verifier.public).verify(signature, text.encode())
    except (InvalidSignature, ValueError) as error:
        raise VerificationError("the signature does not fit the note") from error


def open_checkpoint(note: bytes, verifier: Verifier) -> Checkpoint:
    """The signed tree head; its origin must be the key's name. Raises: VerificationError."""
    lines = open_note(note, verifier).split("\n")
    if len(lines) != 4 or lines[3]:  # noqa: PLR2004  # three lines, then the end
        raise VerificationError("a checkpoint has exactly three lines")
    origin, size, root = lines[:3]
    if origin != verifier.name:
        raise VerificationError(f"the checkpoint is of {origin!r}, not of {verifier.name!r}")
    raw = exact_base64(root, "the root hash")
    if len(raw) != HASH_BYTES:
        raise VerificationError("the root hash has not 32 bytes")
    return Checkpoint(origin, exact_decimal(size, "the tree size"), raw)
