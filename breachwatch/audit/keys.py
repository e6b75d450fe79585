"""The signing key of the audit trail: made once, readable by its owner only, used nowhere else."""

from __future__ import annotations

import base64
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from breachwatch.audit.note import Checkpoint, Verifier, key_id
from breachwatch.errors import AuditError

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
    """The key in `folder`, made on first use (0600), with its public half beside it (0644). Raises: AuditError."""
    seed = load_or_create_secret(folder / KEY_FILE, SEED_BYTES)
    signer = Signer(origin, Ed25519PrivateKey.from_private_bytes(seed))
    public = folder / VKEY_FILE
    text = signer.verifier.vkey + "\n"
    if not public.exists() or public.read_text(encoding="utf-8") != text:
        public.write_text(text, encoding="utf-8")
        public.chmod(0o644)
    return signer


def write_secret(path: Path, secret: bytes) -> None:
    """Create a file that only its owner reads, whole or not at all. Raises: AuditError."""
    fresh = path.with_suffix(f".{os.getpid()}.new")
    try:
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(secret)
            file.flush()
            os.fsync(file.fileno())
        os.link(fresh, path)
    except FileExistsError:
        pass  # another process was faster: its key counts
    except OSError as error:
        raise AuditError(f"cannot create the key: {error.strerror}", source=str(path)) from error
    finally:
        fresh.unlink(missing_ok=True)


def read_secret(path: Path, length: int) -> bytes:
    """Read a key file that nobody else could have read. Raises: AuditError."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise AuditError(f"cannot read the key: {error.strerror}", source=str(path)) from error
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(file.fileno())
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
        write_secret(path, os.urandom(length))
    return read_secret(path, length)
