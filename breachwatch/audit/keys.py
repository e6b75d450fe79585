"""The signing key of the audit trail: made once, readable by its owner only, used nowhere else."""

from __future__ import annotations

import base64
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from breachwatch.audit.note import Checkpoint, Verifier, is_key_name, key_id, load_verifier
from breachwatch.errors import AuditError, VerificationError

KEY_FILE = "audit-signing.key"
VKEY_FILE = "audit.vkey"
SEED_BYTES = 32


@dataclass(frozen=True, slots=True, repr=False)
class Signer:
    """Signs tree heads under one name."""

    name: str
    private: Ed25519PrivateKey

    def __repr__(self) -> str:
        return f"Signer({self.name!r})"

    @property
    def verifier(self) -> Verifier:
        """The public half."""
        return Verifier(self.name, self.private.public_key().public_bytes_raw())

    def sign(self, checkpoint: Checkpoint) -> bytes:
        """The checkpoint as a signed note."""
        text = checkpoint.text()
        signature = key_id(self.name, self.verifier.public) + self.private.sign(text.encode())
        return f"{text}\n— {self.name} {base64.b64encode(signature).decode()}\n".encode()


def load_or_create_signer(folder: Path, origin: str) -> Signer:
    """The key in `folder`, made on first use (0600), with its public half beside it (0644). Raises: AuditError.

    The public half is written once: a trail goes on under the name and key it began with, or not at all.
    """
    if not is_key_name(origin):
        raise AuditError(
            f"{origin!r} cannot be the name of an audit trail", hint="set audit.origin: no blanks, no plus sign"
        )
    seed = load_or_create_secret(folder / KEY_FILE, SEED_BYTES)
    signer = Signer(origin, Ed25519PrivateKey.from_private_bytes(seed))
    public = folder / VKEY_FILE
    if not public.exists():
        write_new(public, signer.verifier.vkey.encode() + b"\n", 0o644)
    _require_same(signer.verifier, public)
    return signer


def _require_same(verifier: Verifier, public: Path) -> None:
    try:
        begun = load_verifier(public.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, VerificationError) as error:
        raise AuditError(f"the public key cannot be read: {error}", source=str(public)) from error
    if begun.public != verifier.public:
        raise AuditError(
            "the signing key is not the one this trail began with",
            source=str(public),
            hint=f"restore {KEY_FILE} from the backup of the keys",
        )
    if begun.name != verifier.name:
        raise AuditError(
            f"this trail began under the name {begun.name!r}, not {verifier.name!r}",
            source=str(public),
            hint=f'set audit.origin = "{begun.name}"',
        )


def write_new(path: Path, content: bytes, mode: int) -> None:
    """Create a file, whole or not at all, durable on return; one that is there stays. Raises: AuditError."""
    fresh = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    try:
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            with suppress(FileExistsError):  # another process was faster: its key counts
                os.link(fresh, path)
        finally:
            fresh.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        raise AuditError(f"cannot create the key: {error.strerror}", source=str(path)) from error


def _sync_folder(folder: Path) -> None:
    """A key that a power cut takes back would leave a signed trail that nobody can go on with."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _no_link_no_wait(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def read_secret(path: Path, length: int) -> bytes:
    """Read a key file that nobody else could have read. Raises: AuditError."""
    try:
        file = open(path, "rb", opener=_no_link_no_wait)  # noqa: SIM115  # Path.open takes no opener
    except OSError as error:
        raise AuditError(f"cannot read the key: {error.strerror}", source=str(path)) from error
    with file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise AuditError("the key is not a file", source=str(path))
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise AuditError("others can read this key", source=str(path), hint="chmod 600, and consider it stolen")
        if status.st_uid != os.geteuid():
            raise AuditError(f"this key belongs to uid {status.st_uid}", source=str(path), hint="run as its owner")
        secret = file.read(length + 1)
    if len(secret) != length:
        raise AuditError("the key file is damaged", source=str(path), hint="restore it from the backup of the keys")
    return secret


def load_or_create_secret(path: Path, length: int) -> bytes:
    """`length` random bytes that stay the same from the first use on. Raises: AuditError."""
    if not path.exists():
        write_new(path, os.urandom(length), 0o600)
    return read_secret(path, length)
