"""When a playbook applies: a small, typed subset of CEL. Bounded, checked when loaded, total when evaluated.

    incident.severity in ["high", "critical"] && !("scan.http_probe" in incident.rules)
    size(incident.entities["source.ip"]) > 3 || incident.count >= 1000

Operators `== != < <= > >= in && || !`, parentheses, lists, `size()`, texts in single or double quotes, whole numbers,
`true`, `false`. Names: NAMES below. As in CEL there is no conversion between types. One addition: severities compare
by rank (`incident.severity >= "high"`), never by alphabet. Texts otherwise only know `==`, `!=` and `in`.

Source: Common Expression Language specification, https://github.com/google/cel-spec (grammar, types).
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from breachwatch.errors import PlaybookError
from breachwatch.model import Incident, IncidentState, Level

MAX_CHARS = 2_000
"""A condition longer than this belongs into a rule."""

MAX_DEPTH = 24
"""Nested parentheses: the parser calls itself."""

MAX_ITEMS = 200
"""Elements of one list."""


class _Type(StrEnum):
    BOOL = "bool"
    NUMBER = "number"
    TEXT = "text"
    SEVERITY = "severity"
    STATE = "state"
    TEXTS = "list of texts"
    NUMBERS = "list of numbers"
    NAMED_TEXTS = "map of lists"


_Value = bool | int | str | tuple[str, ...] | tuple[int, ...]
_Get = Callable[[Incident], _Value]

NAMES: dict[str, tuple[_Type, _Get]] = {
    "incident.severity": (_Type.SEVERITY, lambda incident: str(incident.severity)),
    "incident.state": (_Type.STATE, lambda incident: str(incident.state)),
    "incident.count": (_Type.NUMBER, lambda incident: incident.count),
    "incident.rules": (_Type.TEXTS, lambda incident: incident.rules),
    "incident.entities": (_Type.NAMED_TEXTS, lambda _: ()),
}
"""What can be asked. `incident.entities["source.ip"]` is a list of texts, empty where nothing is known."""

ENTITIES = ("source.ip", "user.name", "host.name", "file.path")

_CLOSED_SETS: dict[_Type, tuple[str, ...]] = {
    _Type.SEVERITY: tuple(str(level) for level in Level),
    _Type.STATE: tuple(str(state) for state in IncidentState),
}

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<number>[0-9]{1,15}\b)
      | (?P<text>"[^"\\\n]*"|'[^'\\\n]*')
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)
      | (?P<sign>&&|\|\||==|!=|<=|>=|[<>!()\[\],])
    )""",
    re.VERBOSE,
)

_EQUALITY: dict[str, Callable[[object, object], bool]] = {"==": operator.eq, "!=": operator.ne}
_ORDER: dict[str, Callable[[int, int], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True, slots=True)
class Expression:
    """A checked condition."""

    text: str
    _get: _Get

    def holds(self, incident: Incident) -> bool:
        """Whether the condition holds. Never raises."""
        return self._get(incident) is True


@dataclass(frozen=True, slots=True)
class _Term:
    type: _Type
    get: _Get
    literals: tuple[str, ...] = ()
    """What was written in the source, where it was: checked against closed sets, collected by lists."""


@lru_cache(maxsize=256)
def compile_expression(text: str) -> Expression:
    """Check and prepare a condition. Raises: PlaybookError (what, at which column, and what is allowed)."""
    if len(text) > MAX_CHARS:
        raise PlaybookError(f"the expression has more than {MAX_CHARS} characters")
    term = _Parser(text).whole()
    return Expression(text, term.get)


class _Parser:
    """Recursive descent; every production gives a typed term."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._position = 0
        self._depth = 0

    def whole(self) -> _Term:
        term = self._either()
        if self._kind() != "end":
            raise self._error(f"unexpected {self._word()!r}", "operators are == != < <= > >= in && || !")
        return self._must_be(term, _Type.BOOL, "the whole expression")

    def _either(self) -> _Term:
        self._deeper()
        terms = [self._both()]
        while self._accept("||"):
            terms.append(self._both())
        self._depth -= 1
        return self._joined(terms, "||", any)

    def _both(self) -> _Term:
        terms = [self._negation()]
        while self._accept("&&"):
            terms.append(self._negation())
        return self._joined(terms, "&&", all)

    def _joined(self, terms: list[_Term], sign: str, how: Callable[[Iterator[bool]], bool]) -> _Term:
        if len(terms) == 1:
            return terms[0]
        parts = [self._must_be(term, _Type.BOOL, f"a side of {sign}").get for term in terms]
        return _Term(_Type.BOOL, lambda incident: how(part(incident) is True for part in parts))

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._error(f"brackets nested more than {MAX_DEPTH} deep", "split the condition")

    def _negation(self) -> _Term:
        negated = 0
        while self._accept("!"):
            negated += 1
        term = self._relation()
        if not negated:
            return term
        inner = self._must_be(term, _Type.BOOL, "what follows !").get
        return _Term(_Type.BOOL, (lambda incident: not inner(incident)) if negated % 2 else inner)

    def _relation(self) -> _Term:
        left = self._primary()
        sign = self._word()
        if self._kind() == "sign" and (sign in _EQUALITY or sign in _ORDER):
            self._position += 1
            return self._compared(left, sign, self._primary())
        if self._kind() == "name" and sign == "in":
            self._position += 1
            return self._contained(left, self._primary())
        return left

    def _compared(self, left: _Term, sign: str, right: _Term) -> _Term:
        kind = self._common(left, right, sign)
        first, second = left.get, right.get
        if sign in _EQUALITY:
            same = _EQUALITY[sign]
            return _Term(_Type.BOOL, lambda incident: same(first(incident), second(incident)))
        if kind not in {_Type.NUMBER, _Type.SEVERITY}:
            raise self._error(f"{sign} does not order {kind}", "numbers and severities have an order")
        order = _ORDER[sign]
        return _Term(_Type.BOOL, lambda incident: order(_rank(first(incident)), _rank(second(incident))))

    def _common(self, left: _Term, right: _Term, sign: str) -> _Type:
        for one, other in ((left, right), (right, left)):
            if one.type in _CLOSED_SETS and other.type is _Type.TEXT and other.literals:
                self._check_members(one.type, other.literals)
                return one.type
        if left.type is not right.type or left.type is _Type.NAMED_TEXTS:
            raise self._error(f"{sign} between {left.type} and {right.type}", "both sides must be of one type")
        return left.type

    def _contained(self, left: _Term, right: _Term) -> _Term:
        if left.type in _CLOSED_SETS and right.type is _Type.TEXTS and right.literals:
            self._check_members(left.type, right.literals)
        elif (left.type, right.type) not in {(_Type.TEXT, _Type.TEXTS), (_Type.NUMBER, _Type.NUMBERS)}:
            raise self._error(
                f"{left.type} in {right.type}", 'for example "203.0.113.7" in incident.entities["source.ip"]'
            )
        item, items = left.get, right.get

        def is_in(incident: Incident) -> bool:
            found = items(incident)
            return isinstance(found, tuple) and item(incident) in found

        return _Term(_Type.BOOL, is_in)

    def _check_members(self, kind: _Type, literals: tuple[str, ...]) -> None:
        for literal in literals:
            if literal not in _CLOSED_SETS[kind]:
                raise self._error(f"{literal!r} is no {kind}", "allowed: " + ", ".join(_CLOSED_SETS[kind]))

    def _primary(self) -> _Term:
        kind, word = self._kind(), self._word()
        if self._accept("("):
            term = self._either()
            self._expect(")")
            return term
        if self._accept("["):
            return self._list()
        if kind in {"number", "text", "name"}:
            self._position += 1
            if kind == "name":
                return self._named(word)
            return _text(word[1:-1]) if kind == "text" else _number(int(word))
        raise self._error(f"a value is missing before {word!r}" if word else "the expression ends too early",
                          "write a name, a text in quotes, a number or a list")  # fmt: skip

    def _list(self) -> _Term:
        self._deeper()
        items: list[_Term] = []
        while not self._accept("]"):
            if items:
                self._expect(",")
            item = self._primary()
            if item.type not in {_Type.TEXT, _Type.NUMBER} or not item.literals:
                raise self._error("lists hold written texts or numbers", 'for example ["high", "critical"]')
            items.append(item)
            if len(items) > MAX_ITEMS:
                raise self._error(f"more than {MAX_ITEMS} elements", "use a rule instead")
        self._depth -= 1
        if len({item.type for item in items}) != 1:
            raise self._error("a list is empty or mixes types", 'for example ["high", "critical"]')
        literals = tuple(literal for item in items for literal in item.literals)
        if items[0].type is _Type.TEXT:
            return _Term(_Type.TEXTS, lambda _: literals, literals)
        numbers = tuple(int(literal) for literal in literals)
        return _Term(_Type.NUMBERS, lambda _: numbers, literals)

    def _named(self, name: str) -> _Term:
        if name in {"true", "false"}:
            value = name == "true"
            return _Term(_Type.BOOL, lambda _: value)
        if name == "size":
            return self._size()
        if name not in NAMES:
            raise self._error(f"unknown name {name!r}", "known: " + ", ".join(NAMES) + ", size(...)", back=1)
        kind, get = NAMES[name]
        return self._entity() if kind is _Type.NAMED_TEXTS else _Term(kind, get)

    def _entity(self) -> _Term:
        self._expect("[")
        word = self._word()
        entity = word[1:-1]
        if self._kind() != "text" or entity not in ENTITIES:
            raise self._error(f"no such entity: {word}", "one of " + ", ".join(f'"{name}"' for name in ENTITIES))
        self._position += 1
        self._expect("]")
        return _Term(_Type.TEXTS, lambda incident: incident.entities.get(entity, ()))

    def _size(self) -> _Term:
        self._expect("(")
        inner = self._either()
        self._expect(")")
        if inner.type not in {_Type.TEXTS, _Type.NUMBERS}:
            raise self._error(f"size() of {inner.type}", "size() counts the elements of a list")
        items = inner.get

        def size(incident: Incident) -> int:
            found = items(incident)
            return len(found) if isinstance(found, tuple) else 0

        return _Term(_Type.NUMBER, size)

    def _must_be(self, term: _Term, kind: _Type, what: str) -> _Term:
        if term.type is not kind:
            raise self._error(f"{what} is a {term.type}, not a {kind}", "compare it with something")
        return term

    def _kind(self) -> str:
        return self._tokens[self._position][0]

    def _word(self) -> str:
        return self._tokens[self._position][1]

    def _accept(self, sign: str) -> bool:
        if self._kind() == "sign" and self._word() == sign:
            self._position += 1
            return True
        return False

    def _expect(self, sign: str) -> None:
        if not self._accept(sign):
            raise self._error(f"{sign!r} expected, found {self._word() or 'the end'!r}", "check the brackets")

    def _error(self, what: str, hint: str, *, back: int = 0) -> PlaybookError:
        column = self._tokens[max(self._position - back, 0)][2] + 1
        return PlaybookError(f"column {column} of the expression: {what}", hint=hint)


def _tokens(text: str) -> list[tuple[str, str, int]]:
    """(kind, word, offset), closed by an `end`."""
    found: list[tuple[str, str, int]] = []
    position = 0
    while text[position:].strip():
        token = _TOKEN.match(text, position)
        if token is None or token.lastgroup is None:
            bad = text[position:].lstrip()[:1]
            raise PlaybookError(
                f"column {position + 1} of the expression: {bad!r} cannot stand here",
                hint="texts are in quotes and hold no backslash; numbers are whole",
            )
        found.append((token.lastgroup, token[token.lastgroup], token.start(token.lastgroup)))
        position = token.end()
    found.append(("end", "", len(text)))
    return found


def _text(value: str) -> _Term:
    return _Term(_Type.TEXT, lambda _: value, (value,))


def _number(value: int) -> _Term:
    return _Term(_Type.NUMBER, lambda _: value, (str(value),))


def _rank(value: _Value) -> int:
    """Numbers as they are, severities by rank."""
    return value if isinstance(value, int) else Level(str(value)).rank
