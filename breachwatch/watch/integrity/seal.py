"""The baseline's seal: a tree hash over all that is stored, a chain of changes, a counter, signed by the agent's key.

A row's hash is checked when it is read, a node's when something below it is written, the signed root at every write,
and all of it at start: whoever edits the database without the key is found out. Whoever puts an older copy back is
found out by the counter, which also lies beside the database and in the hub's audit trail. Root on this host can read
the key: only a head that others hold (the hub, an anchor) stands against root.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from breachwatch.errors import StoreError, VerificationError
from breachwatch.model import (
    KEPT_JOURNAL,
    BaselineHead,
    BaselineUpdate,
    Deviation,
    DirectoryRow,
    JournalEntry,
    Seal,
    SealedLeaf,
)
from breachwatch.ports import SealView

BUCKETS = 4096
"""Directories hang below so many nodes, so that one change costs the hashes of a 4096th of the tree."""

SEED_BYTES = 32

DIRECTORY, DEVIATION, CONTENT = range(3)
"""What a leaf stands for; part of its key and of its hash."""


Key = tuple[int, bytes]
"""(kind, path) of a leaf."""


def bucket_of(folder: bytes) -> int:
    """The node that a directory and what is kept of its entries hang below."""
    return int.from_bytes(sha256(folder).digest()[:2], "big") % BUCKETS


def _framed(*parts: bytes) -> bytes:
    """Length-prefixed: no two lists of parts have the same bytes."""
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def _hash(kind: int, *parts: bytes) -> bytes:
    return sha256(bytes((kind,)) + _framed(*parts)).digest()


def leaf_of(row: DirectoryRow) -> bytes:
    """Hash of one directory's row."""
    return _hash(DIRECTORY, row.path, row.names, row.meta, row.rest)


def directory_leaf(row: DirectoryRow) -> SealedLeaf:
    """A directory in the tree."""
    return SealedLeaf(kind=DIRECTORY, path=row.path, bucket=bucket_of(row.path), hash=leaf_of(row))


def deviation_leaf(item: Deviation) -> SealedLeaf:
    """An open deviation in the tree: nobody takes one away unseen."""
    body = (item.path, item.before, item.seen_at.isoformat().encode(), item.explained_by.encode())
    return SealedLeaf(
        kind=DEVIATION, path=item.path, bucket=_bucket_of_entry(item.path), hash=_hash(DEVIATION, *body)
    )  # fmt: skip


def content_leaf(path: bytes, body: bytes) -> SealedLeaf:
    """A stored text in the tree."""
    return SealedLeaf(kind=CONTENT, path=path, bucket=_bucket_of_entry(path), hash=_hash(CONTENT, path, body))


def _bucket_of_entry(path: bytes) -> int:
    return bucket_of(path.rpartition(b"/")[0] or b"/")


def node_of(leaves: Iterable[tuple[Key, bytes]]) -> bytes:
    """Hash of a node from its (key, hash) pairs in key order."""
    return sha256(b"\x10" + b"".join(leaf for _, leaf in sorted(leaves))).digest()


EMPTY_NODE = node_of(())


def root_of(nodes: dict[int, bytes]) -> bytes:
    """Hash of the whole; a node that never had a leaf counts as empty."""
    return sha256(b"\x20" + b"".join(nodes.get(number, EMPTY_NODE) for number in range(BUCKETS))).digest()


def journal_hash(entry: JournalEntry) -> bytes:
    """Hash of one journal entry, the hash of the one before it included."""
    words = (entry.at_utc.isoformat(), entry.actor, entry.kind, entry.summary)
    body = _framed(entry.counter.to_bytes(8, "big"), *(word.encode() for word in words), entry.root, entry.previous)
    return sha256(b"\x30" + body).digest()


def load_or_create_key(path: Path) -> Ed25519PrivateKey:
    """The agent's signing key, 0600, made on first use, its public half beside it. Raises: StoreError."""
    try:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            if path.stat().st_mode & 0o077:
                raise StoreError("others may read the baseline's key", source=str(path), hint="chmod 600") from None
            seed = path.read_bytes()
        else:
            with os.fdopen(descriptor, "wb") as handle:
                seed = os.urandom(SEED_BYTES)
                handle.write(seed)
        if len(seed) != SEED_BYTES:
            hint = "remove it, then `breachwatch integrity init --force`"
            raise StoreError("the baseline's key is damaged", source=str(path), hint=hint)
        key = Ed25519PrivateKey.from_private_bytes(seed)
        path.with_suffix(".pub").write_text(key.public_key().public_bytes_raw().hex() + "\n", encoding="ascii")
    except OSError as error:
        raise StoreError(f"the baseline's key: {error.strerror}", source=str(path)) from error
    return key


class Sealer:
    """Makes and checks seals. `ports.BaselineSealer`."""

    def __init__(self, key: Ed25519PrivateKey, counter_file: Path, now: Callable[[], datetime]) -> None:
        self._key = key
        self._counter_file = counter_file
        self._now = now
        self.sealed_counter = 0
        """Counter of the newest head that was seen or made here; worth keeping once its transaction is through."""
        self.starts_after = 0
        """The counter under which a baseline that begins anew goes on."""
        self.broken = ""
        """Why nothing is signed any more: what does not hold must not be made to hold by signing it again."""

    @property
    def public(self) -> str:
        """The public half, hex."""
        return self._key.public_key().public_bytes_raw().hex()

    # -- signing --------------------------------------------------------------------------------------------------

    def seal(self, view: SealView, update: BaselineUpdate) -> Seal:
        """Leaves of the update, changed nodes, the journal entry and the new head, inside the transaction.

        Without entry and head if what is stored does not hold: `broken` then says why.
        """
        leaves = list(_leaves_of(update))
        gone = {
            **{(DIRECTORY, path): bucket_of(path) for path in update.deleted},
            **{(DEVIATION, path): _bucket_of_entry(path) for path in update.settled},
        }
        nodes, head = dict(view.nodes()), view.head()
        self._check_head(head, nodes)
        changed: dict[int, bytes] = {}
        for bucket in {leaf.bucket for leaf in leaves} | set(gone.values()):
            members = dict(view.leaves(bucket))
            if node_of(members.items()) != nodes.get(bucket, EMPTY_NODE):
                self.broken = self.broken or "a part of the baseline was edited while the agent ran"
            for key in gone:
                members.pop(key, None)
            members.update({(leaf.kind, leaf.path): leaf.hash for leaf in leaves if leaf.bucket == bucket})
            changed[bucket] = nodes[bucket] = node_of(members.items())
        if self.broken:
            return Seal(leaves=tuple(leaves), gone=tuple(gone), nodes=changed)
        entry = self._entry(head, update, leaves, root_of(nodes))
        self.sealed_counter = entry.counter
        return Seal(
            leaves=tuple(leaves), gone=tuple(gone), nodes=changed, entry=entry, head=self._signed(entry)
        )  # fmt: skip

    def _check_head(self, head: BaselineHead | None, nodes: dict[int, bytes]) -> None:
        if self.broken:
            return
        if head is None:
            if self.sealed_counter or nodes:
                self.broken = "the baseline lost its seal"
            return
        try:
            self._check_signature(head)
        except VerificationError as error:
            self.broken = str(error)
        if head.counter < self.sealed_counter:
            self.broken = f"an older baseline was put back: counter {head.counter}, {self.sealed_counter} was seen"
        elif root_of(nodes) != head.root:
            self.broken = "the baseline was edited while the agent ran"

    def _entry(
        self, before: BaselineHead | None, update: BaselineUpdate, leaves: list[SealedLeaf], root: bytes
    ) -> JournalEntry:
        written = sha256(_framed(*(leaf.hash for leaf in leaves), *update.deleted, *update.settled)).hexdigest()
        counts = f"directories={len(update.rows)} removed={len(update.deleted)} accepted={len(update.settled)}"
        entry = JournalEntry(
            counter=(self.starts_after if before is None else before.counter) + 1,
            at_utc=self._now(),
            actor=update.actor,
            kind=update.kind,
            summary=f"{counts} sha256={written}" + (f" reason: {update.reason}" if update.reason else ""),
            root=root,
            previous=bytes(32) if before is None else before.chain,
            hash=b"",
        )
        return replace(entry, hash=journal_hash(entry))

    def _signed(self, entry: JournalEntry) -> BaselineHead:
        head = BaselineHead(
            counter=entry.counter, root=entry.root, chain=entry.hash, at_utc=entry.at_utc, signature=b""
        )  # fmt: skip
        return replace(head, signature=self._key.sign(signed_text(head)))

    def _check_signature(self, head: BaselineHead) -> None:
        try:
            self._key.public_key().verify(head.signature, signed_text(head))
        except InvalidSignature as error:
            raise VerificationError(
                "the signature of the baseline does not hold: it was edited or is of another host"
            ) from error

    # -- the counter beside the database --------------------------------------------------------------------------

    def note_counter(self, counter: int) -> None:
        """Keep the counter beside the database: an older copy of the database shows. Raises: OSError."""
        fresh = self._counter_file.with_suffix(f".{os.getpid()}.new")
        fresh.write_text(f"{counter} {self._key.sign(_counter_text(counter)).hex()}\n", encoding="ascii")
        fresh.replace(self._counter_file)

    def noted_counter(self) -> int:
        """The newest counter that was kept; 0 if none. Raises: VerificationError (edited)."""
        try:
            text, _, signature = self._counter_file.read_text(encoding="ascii").strip().partition(" ")
            counter = int(text)
            self._key.public_key().verify(bytes.fromhex(signature), _counter_text(counter))
        except FileNotFoundError:
            return 0
        except (OSError, ValueError, OverflowError) as error:
            raise VerificationError("the baseline's counter cannot be read", source=str(self._counter_file)) from error
        except InvalidSignature as error:
            raise VerificationError("the baseline's counter was edited", source=str(self._counter_file)) from error
        return counter

    # -- checking -------------------------------------------------------------------------------------------------

    def verify(self, view: SealView) -> None:
        """Recompute everything from the stored bytes. Raises: VerificationError naming what does not hold."""
        head, noted = view.head(), self.noted_counter()
        if head is None:
            if noted or any(True for _ in view.all_rows()):
                raise VerificationError("the baseline was deleted or lost its seal")
            return
        self._check_signature(head)
        if head.counter < noted:
            raise VerificationError(f"an older baseline was put back: its counter is {head.counter}, {noted} was seen")
        members: dict[int, list[tuple[Key, bytes]]] = {}
        for leaf in _recomputed(view):
            members.setdefault(leaf.bucket, []).append(((leaf.kind, leaf.path), leaf.hash))
        nodes = {bucket: node_of(pairs) for bucket, pairs in members.items()}
        if root_of(nodes) != head.root:
            raise VerificationError("what the baseline knows was edited", source=_first_edited(view))
        _verify_chain(view, head)
        self.sealed_counter = max(self.sealed_counter, head.counter)


def _leaves_of(update: BaselineUpdate) -> Iterator[SealedLeaf]:
    yield from map(directory_leaf, update.rows)
    yield from map(deviation_leaf, update.deviations)
    for path, body in update.contents:
        yield content_leaf(path, body)


def _recomputed(view: SealView) -> Iterator[SealedLeaf]:
    yield from map(directory_leaf, view.all_rows())
    yield from map(deviation_leaf, view.deviations())
    for path, body in view.contents():
        yield content_leaf(path, body)


def _first_edited(view: SealView) -> str | None:
    """The path whose hash is no longer the stored one; none if a row came or went."""
    stored: dict[int, dict[Key, bytes]] = {}
    for leaf in _recomputed(view):
        if leaf.bucket not in stored:
            stored[leaf.bucket] = dict(view.leaves(leaf.bucket))
        if stored[leaf.bucket].get((leaf.kind, leaf.path)) != leaf.hash:
            return leaf.path.decode("utf-8", "backslashreplace")
    return None


def signed_text(head: BaselineHead) -> bytes:
    """What a head's signature covers."""
    at = head.at_utc.isoformat().encode()
    return _framed(b"breachwatch baseline v1", head.counter.to_bytes(8, "big"), head.root, head.chain, at)


def _counter_text(counter: int) -> bytes:
    return b"breachwatch baseline counter v1" + counter.to_bytes(8, "big")


def _verify_chain(view: SealView, head: BaselineHead) -> None:
    previous: bytes | None = None
    for entry in view.journal():
        is_cut = entry.previous != bytes(32) and head.counter - entry.counter + 1 < KEPT_JOURNAL
        if previous is None and is_cut:
            raise VerificationError("the journal of the baseline was cut at its beginning")
        if journal_hash(entry) != entry.hash or (previous is not None and entry.previous != previous):
            raise VerificationError(f"the journal of the baseline was edited at entry {entry.counter}")
        previous = entry.hash
    if previous != head.chain:
        raise VerificationError("the journal of the baseline was cut")
