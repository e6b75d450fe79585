"""Refusing regular expressions that a hostile line could make run for ever.

Python's engine backtracks: a repetition without bound inside another one is exponential in the length of the input.
"""

from __future__ import annotations

import re._constants as sre  # type: ignore[import-not-found]  # no stubs for the parser of re
import re._parser as parser  # type: ignore[import-not-found]
from typing import Any

from breachwatch.errors import RuleError

MANY = 64
"""A repetition that may run more often than this counts as unbounded."""

REPEATS = (sre.MAX_REPEAT, sre.MIN_REPEAT)


def refuse_costly_regex(pattern: str, flags: int) -> None:
    """Pass if no unbounded repetition with a variable body stands inside another. Raises: RuleError."""
    try:
        tree = parser.parse(pattern, flags)
    except (parser.error, RecursionError, OverflowError) as error:
        raise RuleError(f"regular expression cannot be read: {error}") from error
    if _is_costly(tree, inside=False):
        raise RuleError(
            "regular expression repeats a repetition without bound: a hostile line could stall detection",
            hint="rewrite (a+)+ as a+, or bound the inner repetition",
        )


def _is_costly(node: Any, *, inside: bool) -> bool:
    for operation, argument in node:
        if operation in REPEATS:
            _, most, body = argument
            unbounded = most is sre.MAXREPEAT or most > MANY
            if unbounded and inside:
                return True
            if _is_costly(body, inside=inside or (unbounded and not _is_single(body))):
                return True
        elif any(_is_costly(child, inside=inside) for child in _children(operation, argument)):
            return True
    return False


def _is_single(body: Any) -> bool:
    return len(body) == 1 and body[0][0] in {sre.LITERAL, sre.NOT_LITERAL, sre.IN, sre.ANY}


def _children(operation: Any, argument: Any) -> list[Any]:
    if operation is sre.SUBPATTERN:
        return [argument[-1]]
    if operation is sre.BRANCH:
        return list(argument[1])
    if operation in {sre.ASSERT, sre.ASSERT_NOT}:
        return [argument[1]]
    if operation is sre.GROUPREF_EXISTS:
        return [part for part in argument[1:] if part]
    if operation is sre.ATOMIC_GROUP:
        return [argument]
    return []
