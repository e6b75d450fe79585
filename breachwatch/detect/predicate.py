"""Rules as Python code over a view of a few fields.

A candidate line mostly does not match, and its verdict needs two or three fields: only these are decoded (partial.py),
and the rule's condition is one generated expression over them. It says what the reference would say; what it cannot
decide (a nested value, a rule about the time) it leaves to the reference.

Only positions of constants enter the code, never text from a rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, assert_never

from breachwatch.detect.rule import (
    OWN_PREFIXES,
    And,
    Condition,
    Exists,
    FieldReference,
    FieldTest,
    IsNull,
    Keyword,
    Not,
    Or,
    Scalar,
    Text,
    TimePart,
)
from breachwatch.detect.values import (
    ANY,
    MAX_QUICK,
    MAX_VALUE,
    ONE,
    Test,
    all_texts,
    comparison,
    folded,
)
from breachwatch.model import FieldValue
from breachwatch.model.passes import native

MAX_NODES = 4_000
"""Conditions with more parts are left to the reference."""

Names = tuple[str, ...]
"""A field and the names it may go by: the first that is there counts."""


WHOLE = -1
"""Number of the field that stands for all texts of an event, folded, with NUL between them."""


class View(dict[int, Any]):
    """What generated code reads: folded texts by field number (None: missing or null), filled when first asked for."""

    def raw(self, field: int) -> Any:
        """The single value of a field, None if it is missing or null. Raises: Undecided."""
        raise NotImplementedError

    def there(self, field: int) -> bool:
        """The field is there, even as null. Raises: Undecided."""
        raise NotImplementedError

    def some(self, field: int, test: Test) -> bool:
        """One of the values of a field passes. Raises: Undecided."""
        raise NotImplementedError

    def folds(self, field: int) -> Sequence[str]:
        """The values of a field as folded texts. Raises: Undecided."""
        raise NotImplementedError

    def is_null(self, field: int) -> bool:
        """All values of a field are null, or it is missing. Raises: Undecided."""
        raise NotImplementedError

    def texts(self) -> list[str]:
        """Every text of the event that keywords search. Raises: Undecided."""
        raise NotImplementedError


def plain_texts(line: bytes) -> str | None:
    """What keywords search in the JSON record of a line, folded, NUL between; None: the line has to be decoded."""
    if native is None:
        return None
    found: str | None = native.plain_texts(line, OWN_PREFIXES, MAX_VALUE)
    return found


def record_texts(record: Mapping[str, FieldValue]) -> list[str]:
    """What keywords search in a record, as the reference does; nearly every value is short text or a small number."""
    if native is not None and type(record) is dict:
        found: list[str] = native.record_texts(record, OWN_PREFIXES, MAX_VALUE, all_texts)
        return found
    texts: list[str] = []
    for name, value in record.items():
        if not name.startswith(OWN_PREFIXES):
            if type(value) is str and len(value) <= MAX_VALUE:
                texts.append(value)
            elif type(value) is int and -MAX_QUICK < value < MAX_QUICK:
                texts.append(str(value))
            else:
                texts.extend(all_texts(value))
    return texts


class Undecided(Exception):  # noqa: N818  # no error: the reference decides
    """A view cannot say."""


Predicate = Callable[[View], bool]
"""True if the condition holds. Raises: Undecided."""


class Generator:
    """Code for rules that share numbered fields."""

    def __init__(self) -> None:
        self.fields: dict[Names, int] = {}
        """Every field that some rule reads, by its number."""

    def predicate(self, condition: Condition, *, lists: bool = False) -> tuple[Predicate, frozenset[int]] | None:
        """The condition as a function, and the fields it reads; None if it has to be left to the reference.

        `lists`: it takes fields with several values too, and is slower.
        """
        writer = _ListWriter(self.fields) if lists else _Writer(self.fields)
        try:
            source = writer.expression(condition)
            code = compile(f"lambda d: {source}", "<rule>", "eval")
        except (_Opaque, RecursionError, MemoryError, SyntaxError):
            return None
        made: Predicate = eval(code, {"__builtins__": {"any": any, "map": map}, **writer.constants})  # noqa: S307  # our own code; see above
        return made, frozenset(writer.used)


class _Opaque(Exception):  # noqa: N818  # ends the generation of one rule
    """No code for this condition."""


class _Writer:
    def __init__(self, fields: dict[Names, int]) -> None:
        self.constants: dict[str, object] = {}
        self.used: set[int] = set()
        self._fields = fields
        self._nodes = 0

    def expression(self, condition: Condition) -> str:  # noqa: PLR0911  # one branch per kind
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise _Opaque
        if isinstance(condition, And):
            return "(" + (" and ".join(map(self.expression, self._cheap_first(condition.parts))) or "1") + ")"
        if isinstance(condition, Or):
            return "(" + (" or ".join(self._alternatives(condition.parts)) or "0") + ")"
        if isinstance(condition, Not):
            return f"(not {self.expression(condition.part)})"
        if isinstance(condition, FieldTest):
            return self._field_test(condition)
        if isinstance(condition, IsNull):
            return self._null_test(condition)
        if isinstance(condition, Exists):
            return f"({'' if condition.wanted else 'not '}d.there({self._field(condition)}))"
        if isinstance(condition, Keyword):
            return self._keyword(condition)
        if isinstance(condition, FieldReference | TimePart):
            raise _Opaque
        assert_never(condition)

    def _cheap_first(self, parts: Sequence[Condition]) -> list[Condition]:
        """Keywords read the whole event: they come last. The order changes no answer."""
        return sorted(parts, key=has_keywords)

    def _alternatives(self, parts: Sequence[Condition]) -> list[str]:
        """The parts, those of one kind about one field together: a field is looked up once for many texts."""
        groups: dict[tuple[int, str], list[str]] = {}
        others: list[Condition] = []
        for part in parts:
            kind = _plain_test(part)
            if kind is None or not isinstance(part, FieldTest):
                others.append(part)
            else:
                groups.setdefault((self._field(part), kind[0]), []).append(kind[1])
        grouped = [self._one_of(field, kind, texts) for (field, kind), texts in groups.items()]
        return [*grouped, *map(self.expression, sorted(others, key=has_keywords))]

    def _one_of(self, field: int, kind: str, texts: Sequence[str]) -> str:
        """One of several texts, tested alike."""
        if kind == "equals":
            return f"(d[{field}] in {self._constant(frozenset(texts))})"
        if kind == "contains":
            found = " or ".join(f"{self._constant(text)} in v" for text in texts)
            return f"((v := d[{field}]) is not None and ({found}))"
        return f"((d[{field}] or '').{kind}({self._constant(tuple(texts))}))"

    def _null_test(self, leaf: IsNull) -> str:
        return f"(d.raw({self._field(leaf)}) is None)"

    def _field_test(self, leaf: FieldTest) -> str:
        field, value = self._field(leaf), leaf.value
        if isinstance(value, Text) and not value.cased:
            return self._text(field, value)
        if isinstance(value, Scalar) and not value.boolean and not any(char.isalpha() for char in value.text):
            return f"(d[{field}] == {self._constant(value.text)})"
        return f"((v := d.raw({field})) is not None and {self._constant(leaf.test)}(v))"

    def _keyword(self, keyword: Keyword) -> str:
        """All texts at once are searched first, then each, if that says more."""
        value = keyword.value
        if not isinstance(value, Text):
            return f"any(map({self._constant(keyword.test)}, d.texts()))"
        found = [f"{self._constant(folded(piece))} in d[{WHOLE}]" for piece in value.pieces if piece]
        if _word(keyword) is None:
            found.append(f"any(map({self._constant(keyword.test)}, d.texts()))")
        return "(" + " and ".join(found) + ")"

    def _text(self, field: int, value: Text) -> str:  # noqa: PLR0911  # one return per shape
        pieces = [piece if piece is ONE else folded(piece) for piece in value.pieces]
        texts = [piece for piece in pieces if piece]
        shape = tuple("?" if piece is ONE else "*" if piece == ANY else "x" for piece in pieces)
        if shape == ():
            return f"(d[{field}] == '')"
        if shape == ("x",):
            return f"(d[{field}] == {self._constant(texts[0])})"
        if shape == ("*",):
            return f"(d[{field}] is not None)"
        if shape == ("*", "x", "*"):
            return f"({self._constant(texts[0])} in (d[{field}] or ''))"
        if shape == ("x", "*"):
            return f"((d[{field}] or '').startswith({self._constant(texts[0])}))"
        if shape == ("*", "x"):
            return f"((d[{field}] or '').endswith({self._constant(texts[0])}))"
        return f"(d[{field}] is not None and {self._constant(comparison(pieces))}(d[{field}]))"

    def _field(self, leaf: FieldTest | IsNull | Exists) -> int:
        number = self._fields.setdefault((leaf.field, *leaf.also), len(self._fields))
        self.used.add(number)
        return number

    def _constant(self, value: object) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = value
        return name


class _ListWriter(_Writer):
    """Writes code for fields that may have several values: one of them has to pass."""

    def _one_of(self, field: int, kind: str, texts: Sequence[str]) -> str:
        if kind == "equals":
            return f"(not {self._constant(frozenset(texts))}.isdisjoint(d.folds({field})))"
        if kind == "contains":
            passes = " or ".join(f"{self._constant(text)} in v" for text in texts)
        else:
            passes = f"v.{kind}({self._constant(tuple(texts))})"
        return f"any(({passes}) for v in d.folds({field}))"

    def _field_test(self, leaf: FieldTest) -> str:
        field, kind = self._field(leaf), _plain_test(leaf)
        if kind is not None:
            return self._one_of(field, kind[0], kind[1:])
        return f"d.some({field}, {self._constant(leaf.test)})"

    def _null_test(self, leaf: IsNull) -> str:
        return f"d.is_null({self._field(leaf)})"


def _word(keyword: Keyword) -> str | None:
    """The folded text that a keyword looks for, where that is all it does."""
    value = keyword.value
    if not isinstance(value, Text) or value.cased or value.pieces != (ANY, *value.pieces[1:2], ANY):
        return None
    piece = value.pieces[1]
    return folded(piece) if piece and "\0" not in piece else None


def words_of(condition: Condition) -> frozenset[str] | None:
    """All that a condition looks for, folded, where it asks for nothing but words in whole events."""
    if isinstance(condition, And | Or):
        words: frozenset[str] = frozenset()
        for part in condition.parts:
            found = words_of(part)
            if found is None:
                return None
            words |= found
        return words
    if isinstance(condition, Not):
        return words_of(condition.part)
    word = _word(condition) if isinstance(condition, Keyword) else None
    return None if word is None else frozenset((word,))


def _plain_test(part: Condition) -> tuple[str, str] | None:
    """`equals`, `contains`, `startswith` or `endswith` and the text, for the tests that are just that."""
    if not isinstance(part, FieldTest) or not isinstance(part.value, Text) or part.value.cased:
        return None
    match part.value.pieces:
        case (str() as text,) if text:
            return "equals", folded(text)
        case ("", str() as text, "") if text:
            return "contains", folded(text)
        case ("", str() as text) if text:
            return "endswith", folded(text)
        case (str() as text, "") if text:
            return "startswith", folded(text)
    return None


def has_keywords(condition: Condition) -> bool:
    """True if the condition searches whole events."""
    if isinstance(condition, And | Or):
        return any(map(has_keywords, condition.parts))
    if isinstance(condition, Not):
        return has_keywords(condition.part)
    return isinstance(condition, Keyword)
