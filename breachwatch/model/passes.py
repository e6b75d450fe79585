"""What one pass over bytes tells or makes: how many lines there are, if anything odd is in them, if they hold a word.

With StringZilla at memory speed; where its wheel is missing, by what Python has, several times slower.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from importlib.util import find_spec
from typing import NamedTuple

ODD = bytes((0, *range(0x80, 0x100)))
"""NUL, and every byte beyond ASCII."""


class Passes(NamedTuple):
    """The passes of one library."""

    lines_in: Callable[[bytes], int]
    """Line feeds in a block."""
    is_odd: Callable[[bytes], bool]
    """True if a block holds any byte of `ODD`."""
    holds: Callable[[bytes, bytes, int, int], bool]
    """True if the part of a block between two offsets holds some bytes."""
    contains: Callable[[bytes, bytes], bool]
    """True if the first holds the second, which is not empty."""
    lowered: Callable[[bytes], bytes]
    """The same in lower case, as far as it is ASCII."""


def passes(library: str) -> Passes:
    """The passes of a library: `stringzilla`, or empty for Python's own. Raises: ImportError."""
    if library == "stringzilla":
        from stringzilla import contains, count, find, find_first_of, translate

        low = bytes(range(256)).lower()

        return Passes(
            lambda data: count(data, b"\n"),
            lambda data: find_first_of(data, ODD) >= 0,
            lambda data, wanted, start, stop: find(data, wanted, start, stop) >= 0,
            contains,
            lambda data: translate(data, low),
        )
    return Passes(
        lambda data: data.count(b"\n"),
        lambda data: b"\0" in data or not data.isascii(),
        lambda data, wanted, start, stop: data.find(wanted, start, stop) >= 0,
        operator.contains,
        bytes.lower,
    )


lines_in, is_odd, holds, contains, lowered = passes("stringzilla" if find_spec("stringzilla") is not None else "")
