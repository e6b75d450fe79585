"""Appending to the trail: check the stored head, append, re-read and re-hash the bytes as stored, only then sign."""

from __future__ import annotations

from collections.abc import Sequence

from breachwatch.audit.entry import encode
from breachwatch.audit.keys import Signer
from breachwatch.audit.merkle import EMPTY_ROOT, leaf_hash
from breachwatch.audit.note import Checkpoint, open_checkpoint
from breachwatch.audit.tiles import TreeReader, append_hashes
from breachwatch.errors import AuditError, VerificationError
from breachwatch.model import Entry
from breachwatch.ports import AuditTiles


class TransparencyLog:
    """`ports.Auditor`: an RFC 6962 log that signs every new head. The caller holds the writer's lock of `tiles`."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer
        self._verifier = signer.verifier

    def append(self, tiles: AuditTiles, entries: Sequence[Entry]) -> None:
        """Add entries and sign the new head. Raises: AuditError (and nothing of the transaction may commit)."""
        if not entries:
            return
        size = self._checked_size(tiles)
        encoded = [encode(entry) for entry in entries]
        tiles.put_entries(size, encoded)
        # The signature has to be over what the disk will give back, not over what we meant to write
        # (Yeti 2022: one flipped bit between hashing and storing made a log unrecoverable)
        stored = list(tiles.entries(size, size + len(encoded)))
        if stored != encoded:
            raise AuditError(f"entries {size}..{size + len(encoded) - 1} read back differently from what was written")
        new_size = append_hashes(tiles, size, [leaf_hash(data) for data in stored])
        root = TreeReader(tiles, new_size).root()
        tiles.put_checkpoint(new_size, self._signer.sign(Checkpoint(self._signer.name, new_size, root)))

    def _checked_size(self, tiles: AuditTiles) -> int:
        """The size that the last signed head, the entries and the tiles agree on. Raises: AuditError."""
        size, note = tiles.size(), tiles.checkpoint()
        if note is None:
            if size:
                raise AuditError(
                    f"the audit trail has {size} entries but no signed head", hint="breachwatch audit verify"
                )
            return 0
        try:
            head = open_checkpoint(note, self._verifier)
        except VerificationError as error:
            raise AuditError(f"the signed head does not hold: {error}", hint="breachwatch audit verify") from error
        root = TreeReader(tiles, size).root() if size else EMPTY_ROOT
        if head.size != size or head.root != root:
            raise AuditError(
                f"the signed head is of {head.size} entries, the trail holds {size} or its tiles were changed",
                hint="breachwatch audit verify; nothing more is appended until this is understood",
            )
        return size
