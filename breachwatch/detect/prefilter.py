"""One pass over raw bytes for many patterns: Hyperscan where its wheel is installed, else Aho-Corasick.

A scanner reports every place where a pattern ends, whatever the backend; which backend runs is chosen at run time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, Protocol

from breachwatch.detect.witness import Pattern

Hits = list[tuple[int, int]]
"""(offset behind the last byte of a hit, number of the pattern), in any order."""


class Scanner(Protocol):
    """A compiled set of patterns."""

    def hits(self, data: bytes) -> Hits:
        """Where which pattern ends."""
        ...


def backend() -> str:
    """Name of the scanner that this installation has: hyperscan, ahocorasick_rs, or empty."""
    for name in ("hyperscan", "ahocorasick_rs"):
        if find_spec(name) is not None:
            return name
    return ""


def scanner(patterns: Sequence[Pattern], name: str | None = None) -> Scanner:
    """Compile patterns for a backend (by default the best that is installed). Raises: ImportError."""
    return BACKENDS[backend() if name is None else name](patterns)


class HyperscanScanner:
    """Literals and regular expressions in one automaton; runs without the interpreter lock."""

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        import hyperscan

        flags = hyperscan.HS_FLAG_CASELESS | hyperscan.HS_FLAG_MULTILINE
        self._database: Any = None
        self._hits: Hits = []
        if not patterns:
            return
        self._database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
        self._database.compile(
            expressions=[pattern.data if pattern.is_regex else quoted(pattern.data) for pattern in patterns],
            ids=list(range(len(patterns))),
            elements=len(patterns),
            flags=[flags] * len(patterns),
        )
        note = self._hits.append

        def seen(number: int, _start: int, end: int, _flags: int, _context: object) -> None:
            note((end, number))

        self._seen = seen

    def hits(self, data: bytes) -> Hits:
        """Where which pattern ends."""
        self._hits.clear()
        if self._database is not None:
            self._database.scan(data, match_event_handler=self._seen)
        return self._hits


class AhoCorasickScanner:
    """Literals by Aho-Corasick over lower-cased bytes; the few regular expressions one by one."""

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        import ahocorasick_rs

        self._literals = [number for number, pattern in enumerate(patterns) if not pattern.is_regex]
        self._regexes = [
            (number, re.compile(b"(?m)" + pattern.data.lower()).finditer)
            for number, pattern in enumerate(patterns)
            if pattern.is_regex
        ]
        self._find: Callable[..., list[tuple[int, int, int]]] | None = None
        if self._literals:
            automaton = ahocorasick_rs.BytesAhoCorasick(
                [patterns[number].data for number in self._literals],
                matchkind=ahocorasick_rs.MatchKind.Standard,
            )
            self._find = automaton.find_matches_as_indexes

    def hits(self, data: bytes) -> Hits:
        """Where which pattern ends."""
        low = data.lower()
        found: Hits = []
        if self._find is not None:
            literals = self._literals
            found.extend((end, literals[number]) for number, _start, end in self._find(low, overlapping=True))
        for number, finditer in self._regexes:
            found.extend((match.end(), number) for match in finditer(low))
        return found


def quoted(data: bytes) -> bytes:
    """Bytes as a regular expression that both libraries read the same way."""
    return b"".join(b"%c" % octet if chr(octet).isalnum() and octet < 0x80 else b"\\x%02x" % octet for octet in data)  # noqa: PLR2004


BACKENDS: dict[str, Callable[[Sequence[Pattern]], Scanner]] = {
    "hyperscan": HyperscanScanner,
    "ahocorasick_rs": AhoCorasickScanner,
}
"""Every scanner by the name of its library."""
