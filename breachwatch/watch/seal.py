"""Remembering what was read, so that a change of it shows: a hash tree over a log's consumed bytes, bounded in size.

Head and tail fingerprints say that a file is the same; they do not say that nobody changed a line in its middle. Every
64 KiB that were read become a leaf; whole groups of leaves are folded, so that a log of any size is held in some
hundred hashes. Reading the file again, a little at a time, finds which part is not what it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Self

LEAF_BYTES = 64 * 1024
"""Read and compared at a time; the part that is said to have changed is a multiple of it."""

DIGEST_BYTES = 16

MAX_NODES = 128
"""Hashes kept of the largest size: a checkpoint stays under three kilobytes."""

ReadAt = Callable[[int, int], bytes]


@dataclass(slots=True)
class _Node:
    level: int
    """Covers 2 ** level leaves."""
    digest: bytes

    @property
    def leaves(self) -> int:
        return int(1 << self.level)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """A part of the file that is not what was read."""

    begin: int
    end: int


def _begin() -> blake2b:
    return blake2b(digest_size=DIGEST_BYTES)


def _leaf(data: bytes | memoryview) -> bytes:
    return blake2b(data, digest_size=DIGEST_BYTES).digest()


def _fold(left: bytes, right: bytes) -> bytes:
    return blake2b(left + right, digest_size=DIGEST_BYTES, person=b"node").digest()


@dataclass(slots=True)
class Seals:
    """What was read from byte `base` on, in order; nodes never grow in level from left to right."""

    base: int = 0
    _nodes: list[_Node] = field(default_factory=list)
    _largest: int = 0
    """Level at which nodes are not folded further yet."""
    _rest: blake2b = field(default_factory=_begin)
    """Hash of the last leaf, which is not full yet: not its bytes, for thousands of logs are watched."""
    _rest_bytes: int = 0
    _leaves: int = 0

    @property
    def end(self) -> int:
        """Everything before this byte is sealed."""
        return self.base + self._leaves * LEAF_BYTES + self._rest_bytes

    def feed(self, data: bytes | memoryview) -> None:
        """The next bytes that were read."""
        view = memoryview(data)
        while view:
            part = view[: LEAF_BYTES - self._rest_bytes]
            self._rest.update(part)
            self._rest_bytes += len(part)
            if self._rest_bytes == LEAF_BYTES:
                self._add(self._rest.digest())
                self._rest, self._rest_bytes = _begin(), 0
            view = view[len(part) :]

    def _add(self, digest: bytes) -> None:
        self._leaves += 1
        nodes = self._nodes
        nodes.append(_Node(0, digest))
        self._fold_last()
        if len(nodes) > MAX_NODES and nodes[MAX_NODES].level == self._largest:
            self._largest += 1
            folded = [
                _Node(self._largest, _fold(left.digest, right.digest))
                for left, right in zip(nodes[:MAX_NODES:2], nodes[1:MAX_NODES:2], strict=True)
            ]
            self._nodes = folded + nodes[MAX_NODES:]

    def _fold_last(self) -> None:
        nodes = self._nodes
        while len(nodes) > 1 and nodes[-1].level == nodes[-2].level < self._largest:
            right = nodes.pop()
            nodes[-1] = _Node(right.level + 1, _fold(nodes[-1].digest, right.digest))

    # -- on disk --------------------------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """For a checkpoint: base, level, nodes, and the hash and length of the unfinished leaf."""
        head = self.base.to_bytes(8, "big") + bytes([self._largest]) + self._rest_bytes.to_bytes(4, "big")
        return head + self._rest.digest() + b"".join(bytes([node.level]) + node.digest for node in self._nodes)

    @classmethod
    def of_whole_leaves(cls, stored: bytes) -> tuple[Self, int, bytes]:
        """Back from a checkpoint, without the unfinished leaf: its length and hash."""
        base, largest = int.from_bytes(stored[:8], "big"), stored[8]
        length, digest = int.from_bytes(stored[9:13], "big"), stored[13 : 13 + DIGEST_BYTES]
        size = 1 + DIGEST_BYTES
        rows = stored[13 + DIGEST_BYTES :]
        seals = cls(base=base, _largest=largest)
        seals._nodes = [_Node(rows[at], rows[at + 1 : at + size]) for at in range(0, len(rows), size)]
        seals._leaves = sum(node.leaves for node in seals._nodes)
        return seals, length, digest

    @classmethod
    def from_bytes(cls, stored: bytes, read_at: ReadAt) -> tuple[Self, Changed | None]:
        """Back from a checkpoint; the unfinished leaf is read again, and said to be changed if it is."""
        seals, length, digest = cls.of_whole_leaves(stored)
        begin = seals.end
        rest = read_at(length, begin) if length else b""
        changed = None if _leaf(rest) == digest else Changed(begin=begin, end=begin + length)
        if len(rest) < length:
            return cls(base=begin + length), changed
        seals.feed(rest)
        return seals, changed

    # -- looking again --------------------------------------------------------------------------------------------

    def node_at(self, leaf: int) -> tuple[int, int] | None:
        """(first leaf, leaves) of the node that covers this leaf; None beyond the last one."""
        first = 0
        for node in self._nodes:
            if leaf < first + node.leaves:
                return first, node.leaves
            first += node.leaves
        return None

    def compare(self, first: int, digest: bytes) -> bool:
        """True if the node that starts at this leaf has that hash; else it has it from now on: told once."""
        position = 0
        for node in self._nodes:
            if position == first:
                is_same, node.digest = node.digest == digest, digest
                return is_same
            position += node.leaves
        return True

    def check_rest(self, read_at: ReadAt) -> Changed | None:
        """Look at the leaf that is not full yet."""
        begin = self.base + self._leaves * LEAF_BYTES
        now = read_at(self._rest_bytes, begin) if self._rest_bytes else b""
        fresh = _begin()
        fresh.update(now)
        if len(now) != self._rest_bytes or fresh.digest() == self._rest.digest():
            return None
        self._rest = fresh
        return Changed(begin=begin, end=begin + len(now))


@dataclass(slots=True)
class SecondLook:
    """One pass over everything that is sealed, in steps of one leaf."""

    seals: Seals
    read_at: ReadAt
    _first: int = 0
    """First leaf of the node at hand."""
    _stack: list[_Node] = field(default_factory=list)
    """Hashes of that node's leaves so far, folded as far as they go."""
    done: bool = False

    @property
    def leaf(self) -> int:
        """The leaf that is read next."""
        return self._first + sum(node.leaves for node in self._stack)

    def step(self) -> Changed | None:
        """Look at one leaf; `done` after the last one, or when the file became shorter."""
        seals = self.seals
        taken = sum(node.leaves for node in self._stack)
        node = seals.node_at(self._first)
        if node is None:
            self.done = True
            return seals.check_rest(self.read_at)
        if node[0] != self._first:  # it was folded into a larger one meanwhile
            self._first, self._stack, taken = node[0], [], 0
        data = self.read_at(LEAF_BYTES, seals.base + (self._first + taken) * LEAF_BYTES)
        if len(data) < LEAF_BYTES:
            self.done = True
            return None
        self._push(_leaf(data))
        if taken + 1 < node[1]:
            return None
        begin, self._first = self._first, self._first + node[1]
        digest, self._stack = self._stack[0].digest, []
        if seals.compare(begin, digest):
            return None
        return Changed(begin=seals.base + begin * LEAF_BYTES, end=seals.base + self._first * LEAF_BYTES)

    def _push(self, digest: bytes) -> None:
        self._stack.append(_Node(0, digest))
        while len(self._stack) > 1 and self._stack[-1].level == self._stack[-2].level:
            right = self._stack.pop()
            self._stack[-1] = _Node(right.level + 1, _fold(self._stack[-1].digest, right.digest))


class StreamLook:
    """The same pass over what comes once and from its beginning: the content of an archive."""

    def __init__(self, stored: bytes) -> None:
        self.changed: list[Changed] = []
        """What of it is not what was read."""
        self._seals, self._rest_bytes, self._rest = Seals.of_whole_leaves(stored)
        self._unsealed = self._seals.base
        self._held = bytearray()
        self._look = SecondLook(self._seals, lambda length, _: bytes(self._held[:length]))

    def feed(self, data: bytes) -> None:
        """The next bytes of the content."""
        skipped = min(self._unsealed, len(data))
        self._unsealed -= skipped
        self._held += data[skipped:]
        while len(self._held) >= LEAF_BYTES and self._look.leaf < self._leaves:
            changed = self._look.step()
            self.changed += [changed] if changed else []
            del self._held[:LEAF_BYTES]

    def finish(self) -> None:
        """No more comes: look at the leaf that was not full, if all of it is there."""
        rest = bytes(self._held[: self._rest_bytes])
        if self._look.leaf == self._leaves and len(rest) == self._rest_bytes and _leaf(rest) != self._rest:
            self.changed.append(Changed(begin=self._seals.end, end=self._seals.end + len(rest)))

    @property
    def _leaves(self) -> int:
        return (self._seals.end - self._seals.base) // LEAF_BYTES
