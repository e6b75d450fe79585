"""Which characters are equal when case does not count: for literals that hold no ASCII at all."""

from __future__ import annotations

from functools import cache

from breachwatch.detect.values import ALSO_FOLDED, folded

FOLDS_INTO_ASCII = ("\u212a", "\u0130", "\u0131", "\u017f")
"""Kelvin sign, I with dot, i without, long s: for `folded` or `re.IGNORECASE` they equal ASCII letters."""

LAST_CASED = 0x1F000
"""No character above has upper and lower case (Unicode 15)."""


@cache
def _spelled_by() -> dict[str, frozenset[str]]:
    """For each character that a folded text may hold: the characters that fold to something with it."""
    known: dict[str, set[str]] = {}
    for code in range(0x80, LAST_CASED):
        char = chr(code)
        if char.lower() == char and char not in ALSO_FOLDED:
            continue
        for part in folded(char):
            if part != char:
                known.setdefault(part, set()).add(char)
    return {part: frozenset(chars) for part, chars in known.items()}


def spellings(char: str) -> list[bytes]:
    """UTF-8 of every character that may stand behind one character of a folded text."""
    return sorted(item.encode("utf-8", "surrogatepass") for item in {char, *_spelled_by().get(char, ())})
