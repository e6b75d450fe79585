"""Reading fields, and tests on single values. One place decides how text is compared.

Case: both sides by `folded` unless `cased`. So the Kelvin sign (U+212A) equals k and the long s (U+017F) equals s,
as in Python's `re.IGNORECASE` and as in programs that change the case of what an attacker sends. Numbers and their
decimal text are equal, `true`/`false` equal the booleans.
"""

from __future__ import annotations

import ipaddress
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import assert_never

import msgspec

from breachwatch.detect.safety import searcher
from breachwatch.model import Event, FieldValue

Test = Callable[[FieldValue], bool]
"""True if one present, single value satisfies an item."""

Piece = str | None
"""Part of a pattern: literal text, `*` as the empty string marker below, `?` as None."""

ANY = ""
"""Stands for `*` in a list of pieces."""

ONE = None
"""Stands for `?` in a list of pieces."""

COMPARE: dict[str, Callable[[float, float], bool]] = {
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
    "eq": operator.eq,
    "neq": operator.ne,
}
"""Sigma's words for comparisons."""


class Text(msgspec.Struct, frozen=True, tag=True, array_like=True, gc=False):
    """Text with wildcards, compared with the whole value."""

    pieces: tuple[Piece, ...]
    cased: bool = False


class Scalar(msgspec.Struct, frozen=True, tag=True, array_like=True, gc=False):
    """A number or a boolean, as `as_text` writes it."""

    text: str
    boolean: bool = False


class Regex(msgspec.Struct, frozen=True, tag=True, array_like=True, gc=False):
    """A regular expression that is searched for."""

    pattern: str
    flags: int = 0


class Number(msgspec.Struct, frozen=True, tag=True, array_like=True, gc=False):
    """A comparison of numbers."""

    op: str
    limit: float


class Network(msgspec.Struct, frozen=True, tag=True, array_like=True, gc=False):
    """Addresses inside a network."""

    cidr: str


Value = Text | Scalar | Regex | Number | Network


def test_of(value: Value) -> Test:
    """The test that decides; there is no other. Raises: re.error, ValueError."""
    if isinstance(value, Text):
        return text_test(value.pieces, cased=value.cased)
    if isinstance(value, Scalar):
        return scalar_test(value.text, boolean=value.boolean)
    if isinstance(value, Regex):
        return regex_test(value.pattern, value.flags)
    if isinstance(value, Number):
        compare, limit = COMPARE[value.op], value.limit
        return number_test(lambda number: compare(number, limit))
    if isinstance(value, Network):
        return cidr_test(value.cidr)
    assert_never(value)


NUMERIC = frozenset("0123456789.+-eE")
"""What numbers are written with."""

MAX_VALUE = 65_536
"""Longer texts are compared by their first so many characters."""

MAX_QUICK = 10**18
"""Whole numbers below this have one text, whatever reads them."""

MAX_DEPTH = 64
"""Deeper nesting of JSON is not entered."""


def raw_values(event: Event, name: str) -> Iterator[FieldValue]:
    """Values of a field, lists taken apart; nothing for a missing field. A flat name comes before nested ones."""
    fields = event.fields
    if name in fields:
        yield from members(fields[name], 0)
    elif name == "@timestamp":
        yield event.at_utc.isoformat()
    elif "." in name:
        yield from _nested(fields, name.split("."), 0)


def has_field(event: Event, name: str) -> bool:
    """True if the field is there, even as null or an empty list."""
    if name in event.fields or name == "@timestamp":
        return True
    return "." in name and _nested_exists(event.fields, name.split("."), 0)


def values_of(event: Event, name: str, also: tuple[str, ...]) -> Iterator[FieldValue]:
    """Values of a field under its own name or, where that is missing, under the first other one that is there."""
    if also and not has_field(event, name):
        for other in also:
            if has_field(event, other):
                return raw_values(event, other)
    return raw_values(event, name)


def is_there(event: Event, name: str, also: tuple[str, ...]) -> bool:
    """True if the field is there under any of its names, even as null."""
    return has_field(event, name) or any(has_field(event, other) for other in also)


def members(value: FieldValue, depth: int = 0) -> Iterator[FieldValue]:
    """The values of a list, its lists taken apart; of anything else itself."""
    if isinstance(value, list | tuple):
        if depth < MAX_DEPTH:
            for item in value:
                yield from members(item, depth + 1)
    else:
        yield value


def _nested(value: FieldValue, path: list[str], depth: int) -> Iterator[FieldValue]:
    if not path:
        yield from members(value, depth)
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
    if isinstance(value, str):
        yield value if len(value) <= MAX_VALUE else value[:MAX_VALUE]
    elif isinstance(value, Mapping):
        if depth < MAX_DEPTH:
            for item in value.values():
                yield from all_texts(item, depth + 1)
    elif isinstance(value, list | tuple):
        if depth < MAX_DEPTH:
            for item in value:
                if type(item) is str and len(item) <= MAX_VALUE:
                    yield item
                else:
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


def as_json(text: str) -> str:
    """Printable text as JSON writes it inside a string."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


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


ALSO_FOLDED = {"\u017f": "s", "\u03c2": "\u03c3"}
"""What lower case alone leaves apart: the long s, and the sigma at the end of a word (which depends on the text around
it, so that a part of a word would not be found in the word)."""

_ALSO_FOLDED = str.maketrans(ALSO_FOLDED)


def folded(text: str) -> str:
    """Text as it is compared when case does not count."""
    low = text.lower()
    return low if low.isascii() else low.translate(_ALSO_FOLDED)


def text_test(pieces: tuple[Piece, ...], *, cased: bool) -> Callable[[FieldValue], bool]:
    """A test for text with wildcards; `*` crosses line breaks."""
    literal = [piece if cased or piece is None else folded(piece) for piece in pieces]
    compare = comparison(literal)

    def test(value: FieldValue) -> bool:
        text = as_text(value)
        return text is not None and compare(text if cased else folded(text))

    return test


def comparison(pieces: list[Piece]) -> Callable[[str], bool]:  # noqa: PLR0911  # one return per shape
    """Compares a folded text (a cased one: as it is) with a pattern."""
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
    if None not in pieces:
        return _in_order(pieces)
    return lambda text: _glob(pieces, text)


def _in_order(pieces: list[Piece]) -> Callable[[str], bool]:
    """Literals with `*` between them: each is taken where it comes first, which leaves most to the others."""
    texts = [""]
    for piece in pieces:
        if piece == ANY:
            texts.append("")
        else:
            texts[-1] += piece or ""
    if len(texts) == 1:
        return lambda text: text == texts[0]
    first, *middle, last = texts
    least = len(first) + len(last)
    wanted = [text for text in middle if text]

    def compare(text: str) -> bool:
        if len(text) < least or not text.startswith(first) or not text.endswith(last):
            return False
        position, end = len(first), len(text) - len(last)
        for part in wanted:
            position = text.find(part, position, end)
            if position < 0:
                return False
            position += len(part)
        return True

    return compare


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


def scalar_test(wanted: str, *, boolean: bool) -> Test:
    """A test for a number or boolean, however the event writes it."""
    if boolean:
        return lambda value: (as_text(value) or "").lower() == wanted
    return lambda value: as_text(value) == wanted


def regex_test(pattern: str, flags: int) -> Test:
    """A test that searches a regular expression, in bounded time. Raises: re.error, RuleError."""
    search = searcher(pattern, flags)

    def test(value: FieldValue) -> bool:
        text = as_text(value)
        return text is not None and search(text)

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
