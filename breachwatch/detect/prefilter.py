"""One pass over raw bytes for many patterns: Hyperscan where its wheel is installed, else Aho-Corasick.

A scanner notes every place where a pattern ends, whatever the backend; which backend runs is chosen at run time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

from breachwatch.detect.hits import Hits
from breachwatch.detect.witness import Pattern
from breachwatch.errors import RuleError
from breachwatch.model.passes import contains

MAX_LITERAL = 256
"""Longer literals are searched by their beginning: Hyperscan refuses very long ones, Aho-Corasick takes minutes."""

_HASHED = re.compile(rb"(?s).{0,64}?[^0-9a-f][0-9a-f]{6}(?=[0-9a-f]{10})")
"""The beginning of a literal that holds a hash. Hyperscan looks for the last eight bytes first: if all of these are hex
digits, every hash of a log nearly holds one of thousands. Six digits behind something else stand nowhere by chance."""

TOO_SHORT = ((250, 1), (5_000, 2))
"""Sets of fewer literals, and the length up to which one has Hyperscan look at every byte instead of at every other.
Source: Hyperscan 5.4, findDesiredStride in fdr_engine_description.cpp. In larger sets it always does."""

ANYTHING = ~0
"""The flags of a block of which nothing is known."""


class Scanner(Protocol):
    """A compiled set of patterns."""

    def scan(self, data: bytes, hits: Hits, flags: int = ANYTHING) -> None:
        """Note where which pattern ends, in any order. `flags`: of a survey of the same bytes."""
        ...

    def saved(self) -> list[bytes]:
        """What `scanner` takes instead of compiling again; empty: compiling costs no more than reading."""
        ...


class StaleError(RuleError):
    """A saved scanner is of another machine or version, or damaged."""


def beginning(data: bytes) -> bytes:
    """What is searched for a literal: it stands wherever the literal does."""
    hashed = _HASHED.match(data)
    return hashed[0] if hashed else data[:MAX_LITERAL]


def backend() -> str:
    """Name of the scanner that this installation has: hyperscan, ahocorasick_rs, or empty."""
    for name in ("hyperscan", "ahocorasick_rs"):
        if find_spec(name) is not None:
            return name
    return ""


def counting_backend() -> str:
    """Name of the scanner that is made fastest, for a single pass over little."""
    return "ahocorasick_rs" if find_spec("ahocorasick_rs") is not None else backend()


def version(name: str) -> str:
    """The backend with its version: what another one saved is of no use to it."""
    return f"{name} {getattr(import_module(name), '__version__', '')}"


def scanner(patterns: Sequence[Pattern], name: str | None = None, saved: Sequence[bytes] = ()) -> Scanner:
    """Compile patterns for a backend (by default the best that is installed), or take over what it `saved` of them.

    Raises: ImportError, StaleError.
    """
    return BACKENDS[backend() if name is None else name](patterns, saved)


class HyperscanScanner:
    """The literals in one automaton, each regular expression in its own: together they would run much slower.

    Literals so short that the automaton could not step over bytes for them are in one of their own.
    Scans run without the interpreter lock.
    """

    def __init__(self, patterns: Sequence[Pattern], saved: Sequence[bytes] = ()) -> None:
        expressions = [[number] for number, pattern in enumerate(patterns) if pattern.is_regex]
        groups = [group for group in (*_by_stride(patterns), *expressions) if group]
        if saved and len(saved) != len(groups):
            raise StaleError("a saved scanner is incomplete", hint="it is compiled again")
        self._databases = list(map(_restored, saved)) if saved else [_compiled(patterns, group) for group in groups]
        self._of = [patterns[group[0]] for group in groups]

    def scan(self, data: bytes, hits: Hits, flags: int = ANYTHING) -> None:
        """Note where which pattern ends, in any order."""
        for database, pattern in zip(self._databases, self._of, strict=True):
            if may_stand(pattern, data, flags):
                database.scan(data, match_event_handler=hits.note)

    def saved(self) -> list[bytes]:
        """The compiled automata, bound to the kind of processor and the version of the library."""
        import hyperscan

        return [bytes(hyperscan.dumpb(database)) for database in self._databases]


def may_stand(pattern: Pattern, data: bytes, flags: int) -> bool:
    """False if an expression is certainly not in there."""
    if pattern.flag and not pattern.flag & flags:
        return False
    return not pattern.needs or any(contains(data, one) for one in pattern.needs)


def _by_stride(patterns: Sequence[Pattern]) -> tuple[list[int], list[int]]:
    """The literals of a set, and those of them that would keep its automaton from looking at every other byte only."""
    literals = [number for number, pattern in enumerate(patterns) if not pattern.is_regex]
    too_short = next((length for most, length in TOO_SHORT if len(literals) < most), 0)
    short = [number for number in literals if len(patterns[number].data) <= too_short]
    return [number for number in literals if len(patterns[number].data) > too_short], short


def _compiled(patterns: Sequence[Pattern], numbers: Sequence[int]) -> Any:
    """A database of patterns that are all literals or all expressions."""
    import hyperscan

    is_regex = patterns[numbers[0]].is_regex
    flags = hyperscan.HS_FLAG_CASELESS | (hyperscan.HS_FLAG_MULTILINE if is_regex else 0)
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    database.compile(
        expressions=[patterns[number].data if is_regex else beginning(patterns[number].data) for number in numbers],
        ids=list(numbers),
        elements=len(numbers),
        flags=[flags] * len(numbers),
        literal=not is_regex,
    )
    return database


def _restored(saved: bytes) -> Any:
    """The database that was saved. Raises: StaleError."""
    import hyperscan

    try:
        database = hyperscan.loadb(saved, hyperscan.HS_MODE_BLOCK)
        database.scratch = hyperscan.Scratch(database)
    except hyperscan.error as error:
        raise StaleError("a saved scanner cannot be used here", hint="it is compiled again") from error
    return database


class AhoCorasickScanner:
    """Literals by Aho-Corasick over lower-cased bytes; the few regular expressions one by one."""

    def __init__(self, patterns: Sequence[Pattern], _saved: Sequence[bytes] = ()) -> None:
        import ahocorasick_rs

        self._literals = [number for number, pattern in enumerate(patterns) if not pattern.is_regex]
        self._regexes = [
            (number, pattern, re.compile(b"(?m)" + pattern.data.lower()).finditer)
            for number, pattern in enumerate(patterns)
            if pattern.is_regex
        ]
        self._find: Callable[..., list[tuple[int, int, int]]] | None = None
        if self._literals:
            automaton = ahocorasick_rs.BytesAhoCorasick(
                [beginning(patterns[number].data) for number in self._literals],
                matchkind=ahocorasick_rs.MatchKind.Standard,
            )
            self._find = automaton.find_matches_as_indexes

    def scan(self, data: bytes, hits: Hits, flags: int = ANYTHING) -> None:
        """Note where which pattern ends, in any order."""
        low, add = data.lower(), hits.add
        if self._find is not None:
            literals = self._literals
            for number, _start, end in self._find(low, overlapping=True):
                add(end, literals[number])
        for number, pattern, finditer in self._regexes:
            if may_stand(pattern, data, flags):
                for match in finditer(low):
                    add(match.end(), number)

    def saved(self) -> list[bytes]:
        """Nothing: it is compiled as fast as read."""
        return []


BACKENDS: dict[str, Callable[[Sequence[Pattern], Sequence[bytes]], Scanner]] = {
    "hyperscan": HyperscanScanner,
    "ahocorasick_rs": AhoCorasickScanner,
}
"""Every scanner by the name of its library."""
