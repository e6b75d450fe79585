"""A stretch of a regular expression, as an expression over the raw bytes of a line.

Every text that the original matches holds, as written in the line, a match of the stretch. It has no repeat without a
bound, so that it takes no more time on hostile lines than on others; it is asked of few lines only (guard.py).
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from breachwatch.detect.values import NUMERIC

sre: Any = re._constants  # noqa: SLF001  # the parser that decides what the pattern means
parser: Any = re._parser  # noqa: SLF001

MAX_ELEMENTS = 24
"""Characters that a stretch is about."""

MAX_OPTIONAL = 3
"""Characters of a stretch that may be missing: each doubles what there is to try."""

LEAST_BITS = 12.0
"""A stretch that says less is not worth asking for."""

ASCII = frozenset(map(chr, range(0x80)))
_CATEGORIES = {
    sre.CATEGORY_DIGIT: frozenset("0123456789"),
    sre.CATEGORY_SPACE: frozenset(" \t\n\r\f\v\x1c\x1d\x1e\x1f"),
    sre.CATEGORY_WORD: frozenset(char for char in ASCII if char.isalnum() or char == "_"),
}
"""Their ASCII characters; each has others too."""


@dataclass(frozen=True, slots=True)
class Element:
    """One character of a match."""

    chars: frozenset[str]
    """Those of ASCII it may be."""
    others: bool = False
    """It may be another one too."""
    optional: bool = False

    @property
    def bits(self) -> float:
        """How much it says."""
        return 0.0 if self.optional or self.others else math.log2(128 / max(1, len(self.chars)))


Run = list[Element]


def stretch(pattern: str, flags: int, *, escapes_json: bool) -> bytes | None:
    """The stretch that says most, to be searched in a line in lower case; None if there is none.

    `escapes_json`: the text stands in a JSON string, or as a bare number or word.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = parser.parse(pattern, flags)
        reader = _Reader()
        reader.read(tree)
    except (re.error, RecursionError, OverflowError):
        return None
    reader.end()
    runs = [_trimmed(run) for run in reader.runs]
    runs = [run for run in runs if _bits(run) >= LEAST_BITS and not (escapes_json and _may_be_number(run))]
    if not runs:
        return None
    return b"".join(_written(element, escapes_json=escapes_json) for element in max(runs, key=_bits))


@dataclass(slots=True)
class _Reader:
    """Reads an expression from left to right; whatever is not simple ends a run."""

    runs: list[Run] = field(default_factory=list)
    _run: Run = field(default_factory=list)

    def end(self) -> None:
        """What comes next is not joined to what came before."""
        if self._run:
            self.runs.append(self._run)
            self._run = []

    def read(self, items: Iterable[tuple[Any, Any]]) -> None:
        """Follow a sequence."""
        for operation, argument in items:
            element = _element(operation, argument)
            if element is not None:
                self._add(element)
            elif operation is sre.SUBPATTERN:
                self.read(argument[3])
            elif operation is sre.ATOMIC_GROUP:
                self.read(argument)
            elif operation in {sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT}:
                self._repeat(*argument)
            elif operation not in {sre.AT, sre.ASSERT, sre.ASSERT_NOT}:  # these say nothing about characters between
                self.end()

    def _repeat(self, least: int, most: Any, items: Any) -> None:
        for _ in range(min(least, MAX_ELEMENTS)):
            self.read(items)
        element = _element(*items[0]) if len(items) == 1 else None
        few = most is not sre.MAXREPEAT and most - least <= MAX_OPTIONAL and least <= MAX_ELEMENTS
        if element is None or not few:
            if most != least or least > MAX_ELEMENTS:
                self.end()
            return
        for _ in range(most - least):
            self._add(Element(element.chars, element.others, optional=True))

    def _add(self, element: Element) -> None:
        optional = sum(one.optional for one in self._run) + element.optional
        if len(self._run) >= MAX_ELEMENTS or optional > MAX_OPTIONAL:
            self.end()
        self._run.append(element)


def _element(operation: Any, argument: Any) -> Element | None:
    """A node that matches exactly one character, if it is simple."""
    if operation is sre.LITERAL:
        return Element(frozenset(chr(argument))) if argument < 0x80 else None  # noqa: PLR2004  # ASCII
    if operation is sre.IN:
        return _class(argument)
    if operation is sre.SUBPATTERN and len(argument[3]) == 1:
        return _element(*argument[3][0])
    if operation is sre.BRANCH:
        branches = [_element(*branch[0]) if len(branch) == 1 else None for branch in argument[1]]
        found = [branch for branch in branches if branch is not None]
        if len(found) != len(branches):
            return None
        chars = frozenset[str]().union(*(one.chars for one in found))
        return Element(chars, others=any(one.others for one in found))
    return None


def _class(items: Iterable[tuple[Any, Any]]) -> Element | None:
    chars: set[str] = set()
    others = False
    for operation, argument in items:
        if operation is sre.LITERAL and argument < 0x80:  # noqa: PLR2004  # ASCII
            chars.add(chr(argument))
        elif operation is sre.RANGE and argument[1] < 0x80:  # noqa: PLR2004  # ASCII
            chars.update(map(chr, range(argument[0], argument[1] + 1)))
        elif operation is sre.CATEGORY and argument in _CATEGORIES:
            chars |= _CATEGORIES[argument]
            others = True
        else:
            return None
    return Element(frozenset(chars), others)


def _trimmed(run: Run) -> Run:
    """Without what may be missing at its ends."""
    start, stop = 0, len(run)
    while start < stop and run[start].optional:
        start += 1
    while start < stop and run[stop - 1].optional:
        stop -= 1
    return run[start:stop]


def _bits(run: Run) -> float:
    return sum(element.bits for element in run)


def _may_be_number(run: Run) -> bool:
    """The text may come from a number, which may be written in another way."""
    return all(element.optional or element.others or element.chars & NUMERIC for element in run)


def _written(element: Element, *, escapes_json: bool) -> bytes:
    """How the line may write the character, in lower case."""
    plain = {char.lower() for char in element.chars}
    ways: list[bytes] = []
    if escapes_json:
        if '"' in plain:
            ways.append(rb"\\\"")
        if "\\" in plain:
            ways.append(rb"\\\\")
        if any(char < " " for char in plain):
            ways.append(rb"\\(?:[bfnrt]|u00[01][0-9a-f])")
        plain = {char for char in plain if char >= " " and char not in '"\\'}
    if plain:
        spelled = b"".join(b"\\x%02x" % ord(char) for char in sorted(plain))
        ways.insert(0, spelled if len(plain) == 1 else b"[" + spelled + b"]")
    if element.others:
        ways.append(rb"[\x80-\xff]{2,4}")
    if len(ways) == 1 and not element.optional:
        return ways[0]
    return b"(?:" + b"|".join(ways) + b")" + (b"?" if element.optional else b"")
