"""What one pass over bytes tells or makes: how many lines there are, what else is in them, if they hold a word.

Compiled (`native/`) or with StringZilla at memory speed; where neither is, by what Python has, several times slower.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from typing import Any, NamedTuple

SOURCE = "a9cb157c9e10e43f05cb89ce62eb77bdd7041652d17f2df0c2ebdd64cba22714"
"""Digest of what `native/` holds (`digest_of` in hatch_build.py). A test keeps it."""

native: Any = None
"""The compiled module; None: nobody compiled it, or not from these sources: another version's binary may say other
things, and a line would be missed."""
with suppress(ImportError):
    from breachwatch.model import _native

    if _native.SOURCE == SOURCE:
        native = _native

ODD, RECORD, BACKSLASH, OTHER = 1, 2, 4, 8
"""Flags of a survey: the block may hold NUL or a byte beyond ASCII (this one is exact); a line that begins with `{`, a
blank, a control character or a byte beyond ASCII; a backslash; a line that does not begin with `{`."""

_ODD_BYTES = bytes((0, *range(0x80, 0x100)))

Survey = tuple[int, int]
"""Line feeds in a block, and flags of what else may be in it. A flag that is not set is a promise."""


class Passes(NamedTuple):
    """The passes of one library."""

    survey: Callable[[bytes], Survey]
    """What there is in a block."""
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
            lambda data: (count(data, b"\n"), _flags(data, is_odd=find_first_of(data, _ODD_BYTES) >= 0)),
            lambda data, wanted, start, stop: find(data, wanted, start, stop) >= 0,
            contains,
            lambda data: translate(data, low),
        )
    return Passes(
        lambda data: (data.count(b"\n"), _flags(data, is_odd=b"\0" in data or not data.isascii())),
        lambda data, wanted, start, stop: data.find(wanted, start, stop) >= 0,
        operator.contains,
        bytes.lower,
    )


def _flags(data: bytes, *, is_odd: bool) -> int:
    """Looking for the others would cost passes of their own: they may be there."""
    return (ODD if is_odd else 0) | (RECORD | BACKSLASH | OTHER if data else 0)


survey, holds, contains, lowered = passes("stringzilla" if find_spec("stringzilla") is not None else "")
if native is not None:
    survey = native.survey
