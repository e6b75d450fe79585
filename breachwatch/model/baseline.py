"""The baseline of file integrity as it is stored: one packed row per directory, sealed and chained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

KEPT_JOURNAL = 100_000
"""Older entries of the journal are dropped: the head covers the newest, and each covers the one before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryRow:
    """What is known of one directory's entries. Packed: a million files are ten thousand rows of 130 B a file."""

    path: bytes
    names: bytes
    """Entry names in order, separated by NUL; a watched root has an entry `.` of its own."""
    meta: bytes
    """48 bytes of metadata for each name."""
    rest: bytes
    """State, digest and rarely set attributes for each name, length-prefixed."""
    leaf: bytes = b""
    """Hash of all this as it was stored; empty in a row that is about to be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """A path that is no longer as the operator accepted it: what it was, until someone accepts what it is."""

    path: bytes
    before: bytes
    """Packed entry as accepted; empty if there was none."""
    seen_at: datetime
    explained_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineHead:
    """The sealed summary of a whole baseline. `counter` only grows: an older copy is recognised by it."""

    counter: int
    root: bytes
    """Hash over all directories."""
    chain: bytes
    """Hash of the newest journal entry, which holds the hash of the one before it."""
    at_utc: datetime
    signature: bytes
    """Ed25519, by the agent's key, over all the above."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """One change of the baseline: by whom, of what kind, of what extent."""

    counter: int
    at_utc: datetime
    actor: str
    kind: str
    """init, learn, update, accept."""
    summary: str
    """How many directories and a hash of what was written; no path, which may be an attacker's words."""
    root: bytes
    previous: bytes
    hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineUpdate:
    """What one commit changes."""

    rows: tuple[DirectoryRow, ...] = ()
    deleted: tuple[bytes, ...] = ()
    """Directories that are gone."""
    deviations: tuple[Deviation, ...] = ()
    settled: tuple[bytes, ...] = ()
    """Paths that are as accepted again."""
    contents: tuple[tuple[bytes, bytes], ...] = ()
    """(path, compressed text with secrets masked) of files whose differences are shown."""
    actor: str = "agent"
    kind: str = "update"
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedLeaf:
    """One thing that the baseline keeps, as the tree over all of them sees it."""

    kind: int
    """0 a directory, 1 a deviation, 2 a stored text."""
    path: bytes
    bucket: int
    """The node it hangs below."""
    hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """What has to be stored with an update so that nobody edits it unseen."""

    leaves: tuple[SealedLeaf, ...]
    gone: tuple[tuple[int, bytes], ...]
    """(kind, path) of leaves that are no more."""
    nodes: Mapping[int, bytes]
    entry: JournalEntry | None = None
    head: BaselineHead | None = None
    """None: what was stored did not hold, so it is not signed again."""
