"""Reading fields, and tests on single values. One place decides how text is compared.

Case: both sides by `str.lower()` unless `cased`. So the Kelvin sign (U+212A) equals k, as Unicode lower-cases it; the
long s (U+017F) does not equal s. Numbers and their decimal text are equal, `true`/`false` equal the booleans.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime

from breachwatch.model import Event, FieldValue

MAX_VALUE = 65_536
"""Longer texts are compared by their first so many characters."""

MAX_REGEX_INPUT = 16_384
"""Regular expressions see at most so much of a value: bounds what a hostile line can cost."""

MAX_DEPTH = 64
"""Deeper nesting of JSON is not entered."""


def raw_values(event: Event, name: str) -> Iterator[FieldValue]:
    """Values of a field, lists taken apart; nothing for a missing field. A flat name comes before nested ones."""
    fields = event.fields
    if name in fields:
        yield from _members(fields[name], 0)
    elif name == "@timestamp":
        yield event.at_utc.isoformat()
    elif "." in name:
        yield from _nested(fields, name.split("."), 0)


def has_field(event: Event, name: str) -> bool:
    """True if the field is there, even as null or an empty list."""
    if name in event.fields or name == "@timestamp":
        return True
    return "." in name and _nested_exists(event.fields, name.split("."), 0)


def _members(value: FieldValue, depth: int) -> Iterator[FieldValue]:
    if isinstance(value, list | tuple):
        if depth < MAX_DEPTH:
            for item in value:
                yield from _members(item, depth + 1)
    else:
        yield value


def _nested(value: FieldValue, path: list[str], depth: int) -> Iterator[FieldValue]:
    if not path:
        yield from _members(value, depth)
    elif isinstance(value, Mapping):
        for length in range(1, len(path) + 1):
            key = ".".join(path[:length])
            if key in value and depth < MAX_DEPTH:
                yield from _nested(value[key], path[length:], depth + 1)
    elif isinstance(value, list | tuple) and depth < MAX_DEPTH:
        for item in value:
            yield from _nested(item, path, depth + 1)


def _nested_exists(value: FieldValue, path: list[str], depth: int) -> bool:
    if not path:
        return True
    if depth >= MAX_DEPTH:
        return False
    if isinstance(value, Mapping):
        keys = [(".".join(path[:length]), path[length:]) for length in range(1, len(path) + 1)]
        return any(key in value and _nested_exists(value[key], rest, depth + 1) for key, rest in keys)
    if isinstance(value, list | tuple):
        return any(_nested_exists(item, path, depth + 1) for item in value)
    return False


def all_texts(value: FieldValue, depth: int = 0) -> Iterator[str]:
    """Every single value below, as text: what keywords search in structured input."""
    if isinstance(value, Mapping):
        if depth < MAX_DEPTH:
            for item in value.values():
                yield from all_texts(item, depth + 1)
    elif isinstance(value, list | tuple):
        if depth < MAX_DEPTH:
            for item in value:
                yield from all_texts(item, depth + 1)
    elif (text := as_text(value)) is not None:
        yield text


def as_text(value: FieldValue) -> str | None:
    """A single value as text; None for null and for nested values."""
    if isinstance(value, str):
        return value if len(value) <= MAX_VALUE else value[:MAX_VALUE]
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if abs(value) < 10**300 else None
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)  # noqa: PLR2004  # exact
    return None


def as_number(value: FieldValue) -> float | None:
    """A single value as a finite number, or None."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        number = float(value) if abs(value) < 1e300 else math.inf  # noqa: PLR2004  # beyond any use
    elif isinstance(value, str) and len(value) <= 64:  # noqa: PLR2004  # no number is longer
        try:
            number = float(value)
        except ValueError:
            return None
    else:
        return None
    return number if math.isfinite(number) else None


def as_time(value: FieldValue) -> datetime | None:
    """A time field: RFC 3339 text, or seconds or milliseconds since 1970."""
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return None
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    number = as_number(value)
    if number is None:
        return None
    try:
        return datetime.fromtimestamp(number / 1000 if abs(number) > 1e11 else number, UTC)  # noqa: PLR2004  # ms
    except (OverflowError, OSError, ValueError):
        return None


Piece = str | None
"""Part of a pattern: literal text, `*` as the empty string marker below, `?` as None."""

ANY = ""
"""Stands for `*` in a list of pieces."""

ONE = None
"""Stands for `?` in a list of pieces."""


def text_test(pieces: tuple[Piece, ...], *, cased: bool) -> Callable[[FieldValue], bool]:
    """A test for text with wildcards; `*` crosses line breaks."""
    literal = [piece if cased or piece is None else piece.lower() for piece in pieces]
    compare = _comparison(literal)

    def test(value: FieldValue) -> bool:
        text = as_text(value)
        return text is not None and compare(text if cased else text.lower())

    return test


def _comparison(pieces: list[Piece]) -> Callable[[str], bool]:  # noqa: PLR0911  # one return per shape
    shape = tuple("?" if piece is ONE else "*" if piece == ANY else "x" for piece in pieces)
    texts = [piece for piece in pieces if piece]
    if shape == ():
        return lambda text: text == ""
    if shape == ("x",):
        (wanted,) = texts
        return lambda text: text == wanted
    if shape == ("*",):
        return lambda text: True  # noqa: ARG005  # any value at all
    if shape == ("*", "x", "*"):
        (wanted,) = texts
        return lambda text: wanted in text
    if shape == ("x", "*"):
        (wanted,) = texts
        return lambda text: text.startswith(wanted)
    if shape == ("*", "x"):
        (wanted,) = texts
        return lambda text: text.endswith(wanted)
    return lambda text: _glob(pieces, text)


def _glob(pieces: list[Piece], text: str) -> bool:
    """Wildcard match in time proportional to pattern times text: no backtracking beyond the last `*`."""
    units: list[str | None] = []
    for piece in pieces:
        units.extend([piece] if piece is ONE or piece == ANY else list(piece or ""))
    unit, position, star, mark = 0, 0, -1, 0
    while position < len(text):
        if unit < len(units) and (units[unit] is ONE or (units[unit] and units[unit] == text[position])):
            unit, position = unit + 1, position + 1
        elif unit < len(units) and units[unit] == ANY:
            star, mark, unit = unit, position, unit + 1
        elif star >= 0:
            unit, mark = star + 1, mark + 1
            position = mark
        else:
            return False
    return all(rest == ANY for rest in units[unit:])


def keyword_test(pieces: tuple[Piece, ...], *, cased: bool) -> Callable[[FieldValue], bool]:
    """A test that finds the text anywhere."""
    return text_test((ANY, *pieces, ANY), cased=cased) if pieces else lambda value: as_text(value) == ""


def regex_test(pattern: str, flags: int) -> Callable[[FieldValue], bool]:
    """A test that searches a regular expression. Raises: re.error."""
    compiled = re.compile(pattern, flags)

    def test(value: FieldValue) -> bool:
        text = as_text(value)
        return text is not None and compiled.search(text[:MAX_REGEX_INPUT]) is not None

    return test


def cidr_test(network_text: str) -> Callable[[FieldValue], bool]:
    """A test for addresses inside a network; IPv4 addresses written as IPv6 count as IPv4."""
    network = ipaddress.ip_network(network_text, strict=False)

    def test(value: FieldValue) -> bool:
        if not isinstance(value, str):
            return False
        try:
            address = ipaddress.ip_address(value.strip())
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any(item is not None and item.version == network.version and item in network
                   for item in (address, mapped))  # fmt: skip

    return test


def number_test(compare: Callable[[float], bool]) -> Callable[[FieldValue], bool]:
    """A test for numbers and their decimal text."""

    def test(value: FieldValue) -> bool:
        number = as_number(value)
        return number is not None and compare(number)

    return test
