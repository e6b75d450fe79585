"""Literals that every match of a regular expression holds: what a prefilter may look for instead of the expression."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from typing import Any

sre: Any = re._constants  # noqa: SLF001  # the parser that decides what the pattern means
parser: Any = re._parser  # noqa: SLF001

MAX_ALTERNATIVES = 24
"""Texts that one set may hold: classes and branches multiply."""

MAX_CLASS = 6
"""Characters of a class that are spelled out."""

Texts = frozenset[str]


def required_literals(pattern: str, flags: int, *, controls: bool = False) -> list[Texts]:
    """Sets of printable ASCII texts; every match holds at least one text of each set. Letters in whatever case.

    `controls`: the texts may hold control characters too.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = parser.parse(pattern, flags)
    except (re.error, RecursionError, OverflowError):
        return []
    try:
        return [found for found in _sequence(tree, 0x00 if controls else 0x20) if found and all(found)]
    except RecursionError:
        return []


def _exact(items: Iterable[tuple[Any, Any]], least: int) -> list[str] | None:  # one branch per kind of node
    """All texts the items can match, if these are few and plain."""
    texts = [""]
    for operation, argument in items:
        found: list[str] | None = None
        if operation is sre.LITERAL:
            found = [chr(argument)] if _is_plain(argument, least) else None
        elif operation is sre.IN:
            if len(argument) <= MAX_CLASS and all(
                op is sre.LITERAL and _is_plain(code, least) for op, code in argument
            ):
                found = [chr(code) for _, code in argument]
        elif operation is sre.SUBPATTERN:
            found = _exact(argument[3], least)
        elif operation is sre.ATOMIC_GROUP:
            found = _exact(argument, least)
        elif operation is sre.BRANCH:
            branches = [_exact(branch, least) for branch in argument[1]]
            found = None if None in branches else [text for branch in branches for text in branch or ()]
        if found is None or len(texts) * len(found) > MAX_ALTERNATIVES:
            return None
        texts = [text + more for text in texts for more in found]
    return texts


def _is_plain(code: int, least: int) -> bool:
    return least <= code < 0x7F  # noqa: PLR2004  # printable ASCII, or all of ASCII


def _sequence(items: Iterable[tuple[Any, Any]], least: int) -> list[Texts]:
    """The sets of a sequence: runs of exact parts, and whatever the other parts require."""
    found: list[Texts] = []
    run = [""]

    def end() -> None:
        nonlocal run
        if all(run):
            found.append(frozenset(run))
        run = [""]

    for item in items:
        texts = _exact([item], least)
        if texts is not None:
            if len(run) * len(texts) > MAX_ALTERNATIVES:
                end()
            run = [text + more for text in run for more in texts]
            continue
        end()
        found.extend(_inside(*item, least))
    end()
    return found


def _inside(operation: Any, argument: Any, least: int) -> list[Texts]:
    if operation is sre.SUBPATTERN:
        return _sequence(argument[3], least)
    if operation is sre.ATOMIC_GROUP:
        return _sequence(argument, least)
    if operation in {sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT}:
        return _sequence(argument[2], least) if argument[0] >= 1 else []
    if operation is sre.BRANCH:
        branches = [_sequence(branch, least) for branch in argument[1]]
        if not all(branches):
            return []
        longest = [max(branch, key=lambda texts: min(map(len, texts))) for branch in branches]
        return [frozenset[str]().union(*longest)]
    return []
