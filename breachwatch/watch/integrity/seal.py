"""The baseline's seal: a tree hash over all directories, a chain of changes, a counter, under a key of the agent.

Whoever edits the database without the key is found out; whoever puts an older copy back is found out by the counter,
which also lies beside the database and in the hub's audit trail. Root on this host can read the key: only a head that
others hold (the hub, an anchor) stands against root.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable, Iterable
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from breachwatch.errors import StoreError, VerificationError
from breachwatch.model import BaselineHead, BaselineUpdate, DirectoryRow, JournalEntry
from breachwatch.ports import SealView

BUCKETS = 256
"""Directories hang below so many nodes, so that one change costs the hashes of a 256th of the tree."""

KEY_BYTES = 32


def bucket_of(path: bytes) -> int:
    """The node that a directory hangs below."""
    return sha256(path).digest()[0]


def leaf_of(row: DirectoryRow) -> bytes:
    """Hash of one directory's row. Parts are length-prefixed: no two rows have the same bytes."""
    state = sha256(b"\x00")
    for part in (row.path, row.names, row.meta, row.rest):
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.digest()


def node_of(leaves: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Hash of a node from its (path, leaf) pairs in path order."""
    return sha256(b"\x01" + b"".join(leaf for _, leaf in sorted(leaves))).digest()


def root_of(nodes: dict[int, bytes]) -> bytes:
    """Hash of the whole; a node that never had a directory counts as empty."""
    empty = node_of(())
    return sha256(b"\x02" + b"".join(nodes.get(number, empty) for number in range(BUCKETS))).digest()


def _framed(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def journal_hash(entry: JournalEntry) -> bytes:
    """Hash of one journal entry, the hash of the one before it included."""
    words = (entry.at_utc.isoformat(), entry.actor, entry.kind, entry.summary)
    return sha256(
        _framed(entry.counter.to_bytes(8, "big"), *(word.encode() for word in words), entry.root, entry.previous)
    ).digest()


def load_or_create_key(path: Path) -> bytes:
    """The agent's sealing key, 0600, made on first use. Raises: StoreError."""
    try:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            if path.stat().st_mode & 0o077:
                raise StoreError("others may read the baseline's key", source=str(path), hint="chmod 600") from None
            key = path.read_bytes()
        else:
            with os.fdopen(descriptor, "wb") as handle:
                key = os.urandom(KEY_BYTES)
                handle.write(key)
    except OSError as error:
        raise StoreError(f"the baseline's key: {error.strerror}", source=str(path)) from error
    if len(key) != KEY_BYTES:
        raise StoreError("the baseline's key is damaged", source=str(path), hint="accept the baseline anew")
    return key


class Sealer:
    """Makes and checks seals. `ports.BaselineSealer`."""

    def __init__(self, key: bytes, counter_file: Path, now: Callable[[], datetime]) -> None:
        self._key = key
        self._counter_file = counter_file
        self._now = now
        self.sealed_counter = 0
        """Counter of the newest head made here; worth keeping once its transaction is through."""

    def seal(self, view: SealView, update: BaselineUpdate) -> tuple[dict[bytes, tuple[int, bytes]], dict[int, bytes],
                                                                    JournalEntry, BaselineHead]:  # fmt: skip
        """Leaves of the update's rows, changed nodes, the journal entry and the new head, inside the transaction."""
        leaves = {row.path: (bucket_of(row.path), leaf_of(row)) for row in update.rows}
        touched = {bucket for bucket, _ in leaves.values()} | {bucket_of(path) for path in update.deleted}
        nodes = dict(view.nodes())
        changed = {}
        for bucket in touched:
            members = dict(view.leaves(bucket))
            for path in update.deleted:
                members.pop(path, None)
            members.update({path: leaf for path, (number, leaf) in leaves.items() if number == bucket})
            changed[bucket] = nodes[bucket] = node_of(members.items())
        before = view.head()
        self.sealed_counter = 1 if before is None else before.counter + 1
        entry = self._entry(before, update, leaves, root_of(nodes))
        return leaves, changed, entry, self._head(entry)

    def _entry(
        self, before: BaselineHead | None, update: BaselineUpdate, leaves: dict[bytes, tuple[int, bytes]], root: bytes
    ) -> JournalEntry:
        written = sha256(_framed(*(leaf for _, leaf in leaves.values()), *update.deleted, *update.settled)).hexdigest()
        counts = f"directories={len(update.rows)} removed={len(update.deleted)} accepted={len(update.settled)}"
        entry = JournalEntry(
            counter=1 if before is None else before.counter + 1,
            at_utc=self._now(),
            actor=update.actor,
            kind=update.kind,
            summary=f"{counts} sha256={written}",
            root=root,
            previous=bytes(32) if before is None else before.chain,
            hash=b"",
        )
        return JournalEntry(
            counter=entry.counter, at_utc=entry.at_utc, actor=entry.actor, kind=entry.kind, summary=entry.summary,
            root=entry.root, previous=entry.previous, hash=journal_hash(entry),
        )  # fmt: skip

    def _head(self, entry: JournalEntry) -> BaselineHead:
        seal = self._mac(entry.counter, entry.root, entry.hash, entry.at_utc)
        return BaselineHead(
            counter=entry.counter, root=entry.root, chain=entry.hash, at_utc=entry.at_utc, seal=seal
        )  # fmt: skip

    def _mac(self, counter: int, root: bytes, chain: bytes, at_utc: datetime) -> bytes:
        body = _framed(b"breachwatch baseline v1", counter.to_bytes(8, "big"), root, chain, at_utc.isoformat().encode())
        return hmac.digest(self._key, body, "sha256")

    def note_counter(self, counter: int) -> None:
        """Keep the counter beside the database: an older copy of the database shows. Raises: OSError."""
        mac = hmac.digest(self._key, b"counter" + counter.to_bytes(8, "big"), "sha256").hex()
        fresh = self._counter_file.with_suffix(".new")
        fresh.write_text(f"{counter} {mac}\n", encoding="ascii")
        fresh.replace(self._counter_file)

    def noted_counter(self) -> int:
        """The newest counter that was kept; 0 if none. Raises: VerificationError (edited)."""
        try:
            text, _, mac = self._counter_file.read_text(encoding="ascii").strip().partition(" ")
            counter = int(text)
        except FileNotFoundError:
            return 0
        except (OSError, ValueError) as error:
            raise VerificationError("the baseline's counter cannot be read", source=str(self._counter_file)) from error
        wanted = hmac.digest(self._key, b"counter" + counter.to_bytes(8, "big"), "sha256").hex()
        if not hmac.compare_digest(wanted, mac):
            raise VerificationError("the baseline's counter was edited", source=str(self._counter_file))
        return counter

    def verify(self, view: SealView) -> None:
        """Recompute everything from the stored bytes. Raises: VerificationError naming what does not hold."""
        head, noted = view.head(), self.noted_counter()
        if head is None:
            if noted or any(True for _ in view.all_rows()):
                raise VerificationError("the baseline was deleted or lost its seal")
            return
        if not hmac.compare_digest(head.seal, self._mac(head.counter, head.root, head.chain, head.at_utc)):
            raise VerificationError("the seal of the baseline does not hold: it was edited or is of another host")
        if head.counter < noted:
            raise VerificationError(f"an older baseline was put back: its counter is {head.counter}, {noted} was seen")
        members: dict[int, list[tuple[bytes, bytes]]] = {}
        for row, stored in view.all_rows():
            leaf = leaf_of(row)
            if leaf != stored:
                raise VerificationError(
                    "a directory of the baseline was edited", source=row.path.decode("utf-8", "backslashreplace")
                )
            members.setdefault(bucket_of(row.path), []).append((row.path, leaf))
        if root_of({bucket: node_of(pairs) for bucket, pairs in members.items()}) != head.root:
            raise VerificationError("directories were added to or taken from the baseline")
        _verify_chain(view, head)


def _verify_chain(view: SealView, head: BaselineHead) -> None:
    previous: bytes | None = None
    for entry in view.journal():
        if journal_hash(entry) != entry.hash or (previous is not None and entry.previous != previous):
            raise VerificationError(f"the journal of the baseline was edited at entry {entry.counter}")
        previous = entry.hash
    if previous != head.chain:
        raise VerificationError("the journal of the baseline was cut")
