"""Guards: all that a line must hold for a rule to match it, asked of the few lines that hold the rule's witness.

A witness is one part of what a condition requires, the rarest; a guard is the rest, as far as single literals say it.
It costs a fraction of reading the line, and dismisses most of the lines that a common witness lets through. Like a
witness it promises too little rather than too much (witness.py): of a rule that matches, the guard is true.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec

from breachwatch.detect.hits import Narrow
from breachwatch.detect.prefilter import MAX_LITERAL, beginning
from breachwatch.detect.rule import And, Condition, FieldTest, Keyword, Not, Or, Rule
from breachwatch.detect.values import Text, as_json
from breachwatch.detect.witness import (
    ODD_NUMBER,
    PRINTABLE,
    PRINTABLE_UNESCAPED,
    Extractor,
    Pattern,
    Witness,
    literal,
    text_runs,
    with_endings,
)
from breachwatch.model.passes import contains, lowered, native
from breachwatch.model.rawform import RawForm

MAX_LITERALS = 256
"""Larger sets say little that is worth asking."""

FEW = 8
"""So many literals are looked for one by one; more in one pass."""

PASS_COST, SEARCH_COST = 8, 20
"""What one pass for many literals, or the search of an expression, costs beside the look-up of one literal."""

MAX_NODES = 1_000
"""Parts of a condition that are looked at; of a longer one nothing is asked."""

FEW_SEARCHES = 16
"""So many literals, compiled code looks for one by one."""

MAX_NARROWED, MAX_DEPTH, MAX_WANTED_BYTES = 256, 50, 65_535
"""Rules that it takes together, how deep requirements may be, and how long literals."""

MAX_GUARDS = 4_096
"""Guards that are kept; hostile lines could ask for any number."""

Guard = Callable[[bytes], object]
"""Of a line in lower case (ASCII) without anything dirty: true if it holds what is required."""


class FieldTexts(msgspec.Struct, frozen=True):
    """A field of a JSON record, under one of its names, is no string, or a string that passes a test.

    Asked by compiled code only: what it needs is asked elsewhere.
    """

    names: tuple[bytes, ...]
    """The last parts of the names."""
    test: bytes
    """`=`, `<`, `>` or `*`: it is, begins with, ends with or holds the text."""
    text: bytes
    """As JSON writes it, in lower case."""
    needs: Requirement
    """What a line with such a field holds."""


class AnyOf(msgspec.Struct, frozen=True):
    """At least one of the patterns is in the line; of the `values`, one that is no name of a JSON record."""

    patterns: frozenset[Pattern]
    values: frozenset[Pattern] = frozenset()
    fields: frozenset[FieldTexts] = frozenset()


class Every(msgspec.Struct, frozen=True):
    """All of these hold."""

    parts: tuple[Requirement, ...]


class Some(msgspec.Struct, frozen=True):
    """One of these holds."""

    parts: tuple[Requirement, ...]


Requirement = AnyOf | Every | Some
"""What a line must hold."""

ALWAYS = And(())
"""Holds of every event."""

NOTHING = Every(())
NEVER = Some(())


class Guards:
    """What rules require of lines of one form, read when first asked for."""

    def __init__(self, rules: Sequence[Rule], form: RawForm, *, routed: bool) -> None:
        self._rules = rules
        self._form = form
        self._routed = routed
        self._reader = _Reader(Extractor(form, endings=False))
        self._required: dict[int, Requirement] = {}
        self._parts: dict[int, Requirement] = {}
        self._made: dict[Requirement, Guard | None] = {}

    def narrow(
        self,
        rules: tuple[int, ...],
        there: AbstractSet[Pattern],
        absent: AbstractSet[Pattern],
        seen: Sequence[bytes] = (),
    ) -> tuple[tuple[int, ...], Narrow | None]:
        """Those of the rules that lines may match of which some patterns are known, and what dismisses more of them.

        `there`: patterns that these lines hold; `absent`: literals that they do not hold; `seen`: some such lines.
        """
        folded = [(index, _telling(_folded(self._of(index), there, absent), seen)) for index in rules]
        required = [one for _, one in folded if one != NEVER]
        rules = tuple(index for index, one in folded if one != NEVER)
        if all(one == NOTHING for one in required):
            return rules, None
        programs = [None] if native is None or len(rules) > MAX_NARROWED else [program(one) for one in required]
        if all(one is not None for one in programs):
            return rules, native.Narrow(rules, tuple(programs))
        left = [(index, self._guard(one)) for index, one in zip(rules, required, strict=True)]
        asked = [guard for _, guard in left if guard is not None]
        if not asked:
            return rules, None
        if len(left) == 1:
            (guard,) = asked
            return rules, lambda line: rules if guard(lowered(line)) else ()

        def narrow(line: bytes) -> tuple[int, ...]:
            low = lowered(line)
            return tuple([index for index, one in left if one is None or one(low)])

        return rules, narrow

    def simplified(self, index: int, there: AbstractSet[Pattern], absent: AbstractSet[Pattern]) -> Condition:
        """The condition of a rule as it is for lines of which some patterns are known."""
        return self._simplified(self._rules[index].condition, there, absent)

    def _simplified(self, part: Condition, there: AbstractSet[Pattern], absent: AbstractSet[Pattern]) -> Condition:
        """Without alternatives that cannot hold there, and keywords that do."""
        if isinstance(part, Keyword):
            return ALWAYS if self._holds(part, there) else part
        if not isinstance(part, And | Or):
            return part
        kept = (
            part.parts if isinstance(part, And) else [one for one in part.parts if self._may_hold(one, there, absent)]
        )
        parts = tuple(self._simplified(one, there, absent) for one in kept)
        if isinstance(part, And):
            parts = tuple(one for one in parts if one != ALWAYS)
        elif ALWAYS in parts:
            return ALWAYS
        same = len(parts) == len(part.parts) and all(map(operator.is_, parts, part.parts))
        return part if same else type(part)(parts)

    def _holds(self, keyword: Keyword, there: AbstractSet[Pattern]) -> bool:
        """Lines that hold some patterns hold the keyword: keywords search the whole line of text as it is."""
        value = keyword.value
        if self._form.escapes_json or self._form.is_values or not isinstance(value, Text) or value.cased:
            return False
        match value.pieces:
            case ("", str() as text, "") if len(text) <= MAX_LITERAL and PRINTABLE.fullmatch(text):
                return literal(text) in there
        return False

    def _may_hold(self, part: Condition, there: AbstractSet[Pattern], absent: AbstractSet[Pattern]) -> bool:
        required = self._parts.get(id(part))  # a part of one of our rules, which live as long
        if required is None:
            required = self._parts[id(part)] = self._reader.required(part, negated=False)
        return _folded(required, there, absent) != NEVER

    def _guard(self, required: Requirement) -> Guard | None:
        """Code that asks for what is required, None for nothing."""
        if required not in self._made:
            if len(self._made) >= MAX_GUARDS:
                self._made.clear()
            writer = _Writer()
            source = writer.expression(required)
            made: Guard | None = None
            if source:
                code = compile(f"lambda b: {source}", "<guard>", "eval")
                made = eval(code, {"__builtins__": {}, "has": contains, **writer.constants})  # noqa: S307  # names of constants only
            self._made[required] = made
        return self._made[required]

    def _of(self, index: int) -> Requirement:
        found = self._required.get(index)
        if found is None:
            rule = self._rules[index]
            parts = [self._reader.required(rule.condition, negated=False)]
            if self._routed:
                parts += [_any_of(map(literal, words)) for words in self._form.words_of(rule.logsource) or () if words]
            found = self._required[index] = _every(parts)
        return found


class _Reader:
    """Reads what conditions require."""

    def __init__(self, extractor: Extractor) -> None:
        self._extractor = extractor
        self._nodes = 0

    def required(self, condition: Condition, *, negated: bool) -> Requirement:
        """What a line must hold for the condition or, negated, for its opposite."""
        self._nodes = 0
        found = self._of(condition, negated=negated)
        return found if self._nodes <= MAX_NODES else NOTHING

    def _of(self, condition: Condition, *, negated: bool) -> Requirement:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            return NOTHING
        if isinstance(condition, Not):
            return self._of(condition.part, negated=not negated)
        if isinstance(condition, And | Or):
            parts = [self._of(part, negated=negated) for part in condition.parts]
            return _every(parts) if isinstance(condition, And) is not negated else _some(parts)
        return self._leaf(condition, negated=negated)

    def _leaf(self, leaf: Condition, *, negated: bool) -> Requirement:
        options = [
            option
            for option in _strongest(self._extractor.options(leaf, negated=negated))
            if ODD_NUMBER not in option and len(option) <= MAX_LITERALS
        ]
        presence = self._extractor.presence(leaf)
        said = [option for option in options if option not in presence]
        in_values = bool(said) and self._extractor.is_in_string(leaf)
        parts: list[Requirement] = [_any_of(option, in_values=in_values) for option in said or options]
        if in_values and native is not None:
            needs = _every(parts)
            parts = [AnyOf(frozenset(), fields=frozenset({one})) for one in _field_texts(leaf, needs)] or parts
        expressions = frozenset() if negated else self._extractor.expressions(leaf)
        return _every([*parts, AnyOf(expressions)] if expressions else parts)


def _field_texts(leaf: Condition, needs: Requirement) -> list[FieldTexts]:
    """What the value of the leaf's field has to pass, if that is a string."""
    if not isinstance(leaf, FieldTest) or not isinstance(leaf.value, Text):
        return []
    names = [name.rpartition(".")[2] for name in (leaf.field, *leaf.also)]
    if not all(PRINTABLE_UNESCAPED.fullmatch(name) for name in names):
        return []
    quoted = tuple(sorted({name.lower().encode() + b'"' for name in names}))
    found = []
    for text, begins, ends in text_runs(leaf.value):
        for run in PRINTABLE.finditer(text):
            first, last = begins and run.start() == 0, ends and run.end() == len(text)
            test = b"=" if first and last else b"<" if first else b">" if last else b"*"
            found.append(FieldTexts(quoted, test, as_json(run[0].lower()).encode("ascii"), needs))
    return found


def _any_of(patterns: Iterable[Pattern], *, in_values: bool = False) -> AnyOf:
    found = frozenset(patterns)
    values = frozenset(one for one in found if in_values and _is_whole_string(one))
    return AnyOf(found - values, values)


def _is_whole_string(pattern: Pattern) -> bool:
    """A literal from quote to quote: what it looks for may be the name of another field."""
    data = pattern.data
    return not pattern.is_regex and data[:1] == data[-1:] == b'"' and len(data) > 1 and not data.endswith(b'\\"')


def _folded(required: Requirement, there: AbstractSet[Pattern], absent: AbstractSet[Pattern]) -> Requirement:
    """What is still to be asked of lines of which some patterns are known."""
    if isinstance(required, Every):
        return _every(_folded(part, there, absent) for part in required.parts)
    if isinstance(required, Some):
        return _some(_folded(part, there, absent) for part in required.parts)
    if any(_is_there(one, there) for one in required.patterns):
        return NOTHING
    endings = {value: set(with_endings(value)) for value in required.values}
    if not all(there.isdisjoint(ways) for ways in endings.values()):
        return NOTHING
    patterns = required.patterns - absent
    values = frozenset(value for value, ways in endings.items() if value not in absent and not ways <= absent)
    fields = frozenset(one for one in required.fields if _folded(one.needs, there, absent) != NEVER)
    return AnyOf(patterns, values, fields) if patterns or values or fields else NEVER


def _telling(required: Requirement, seen: Sequence[bytes]) -> Requirement:
    """Without what all the lines seen hold, and what dismisses most at least cost first: any choice is sound."""
    if not seen or not isinstance(required, Every):
        return required
    dismissed = {part: len(seen) - sum(map(_met_by(part), seen)) for part in required.parts}
    telling = [part for part in required.parts if dismissed[part]]
    return _every(sorted(telling, key=lambda part: _cost(part) / dismissed[part]))


def _cost(required: Requirement) -> int:
    """How long it takes to ask, in look-ups of one literal."""
    if isinstance(required, Every | Some):
        return sum(map(_cost, required.parts))
    literals = sum(not one.is_regex for one in required.patterns)
    expressions = len(required.patterns) - literals
    return min(literals, PASS_COST) + SEARCH_COST * expressions + 2 * len(required.values) + 2 * len(required.fields)


def _met_by(required: Requirement) -> Callable[[bytes], bool]:
    """Whether a line in lower case holds what is required."""
    code = None if native is None else program(required)
    if code is None:
        return lambda line: _is_met(required, line)
    narrow = native.Narrow((0,), (code,))
    return lambda line: bool(narrow(line))


def _is_met(required: Requirement, line: bytes) -> bool:
    if isinstance(required, Every):
        return all(_is_met(part, line) for part in required.parts)
    if isinstance(required, Some):
        return any(_is_met(part, line) for part in required.parts)
    if required.fields:
        return True  # too many for compiled code: nothing is known
    return any(
        re.search(one.data.lower(), line) is not None if one.is_regex else one.data in line for one in required.patterns
    ) or any(re.search(_value(one.data), line) for one in required.values)


def _is_there(pattern: Pattern, there: AbstractSet[Pattern]) -> bool:
    """Lines that hold all of `there` hold the pattern."""
    return pattern in there or any(_holds(one, pattern) for one in there)


def _every(parts: Iterable[Requirement]) -> Requirement:
    flat: dict[Requirement, None] = {}
    for part in parts:
        if part == NEVER:
            return NEVER
        flat.update(dict.fromkeys(part.parts if isinstance(part, Every) else (part,)))
    return next(iter(flat)) if len(flat) == 1 else Every(tuple(flat))


def _some(parts: Iterable[Requirement]) -> Requirement:
    """One of the parts; those that are sets of patterns become one set."""
    patterns: set[Pattern] = set()
    values: set[Pattern] = set()
    fields: set[FieldTexts] = set()
    others: dict[Requirement, None] = {}
    for part in parts:
        if part == NOTHING:
            return NOTHING
        for one in part.parts if isinstance(part, Some) else (part,):
            if isinstance(one, AnyOf):
                patterns |= one.patterns
                values |= one.values
                fields |= one.fields
            else:
                others[one] = None
    if len(patterns) + len(values) + len(fields) > MAX_LITERALS:
        return NOTHING
    if patterns or values or fields:
        others = {AnyOf(frozenset(patterns), frozenset(values), frozenset(fields)): None, **others}
    return next(iter(others)) if len(others) == 1 else Some(tuple(others))


def program(required: Requirement, depth: int = 1) -> bytes | None:
    """What native/narrow.c runs; None: it has no code for that, or Python's is faster."""
    if depth > MAX_DEPTH:
        return None
    if isinstance(required, AnyOf):
        literals = (*required.patterns, *required.values)
        texts = (*(one.data for one in literals), *(one.text for one in required.fields))
        if (
            len(literals) > FEW_SEARCHES
            or any(one.is_regex for one in literals)
            or any(len(one) > MAX_WANTED_BYTES for one in texts)
        ):
            return None
        parts: list[bytes | None] = [
            kind + _sized(one.data)
            for kind, found in ((b"L", required.patterns), (b"V", required.values))
            for one in sorted(found)
        ]
        by_names: dict[tuple[bytes, ...], list[bytes]] = {}
        for field in sorted(required.fields, key=lambda one: (one.names, one.test, one.text)):
            by_names.setdefault(field.names, []).append(field.test + _sized(field.text))
        parts += [
            b"F" + _counted(len(names)) + b"".join(map(_sized, names)) + _counted(len(tests)) + b"".join(tests)
            for names, tests in by_names.items()
        ]
        kind = b"A"
    else:
        parts = [program(part, depth + 1) for part in required.parts]
        kind = b"E" if isinstance(required, Every) else b"S"
    known = [part for part in parts if part is not None]
    return kind + _counted(len(parts)) + b"".join(known) if len(known) == len(parts) else None


def _sized(text: bytes) -> bytes:
    return _counted(len(text)) + text


def _counted(number: int) -> bytes:
    return number.to_bytes(2, "little")


class _Writer:
    """Writes requirements as expressions; empty: nothing to ask."""

    def __init__(self) -> None:
        self.constants: dict[str, Any] = {}
        self._names: dict[tuple[bytes, ...], str] = {}

    def expression(self, required: Requirement) -> str:
        """True if the line `b` holds what is required."""
        if isinstance(required, Every):
            parts = [self.expression(part) for part in required.parts]
            return _joined(" and ", [part for part in parts if part])
        if isinstance(required, Some):
            return _joined(" or ", sorted((self.expression(part) for part in required.parts), key=len))
        return self._any_of(required)

    def _any_of(self, required: AnyOf) -> str:
        literals = sorted(one.data for one in required.patterns if not one.is_regex)
        expressions = [self._search(one.data.lower()) for one in sorted(required.patterns) if one.is_regex]
        if len(literals) > FEW:
            asked = [self._pass(tuple(literals))]
        else:
            asked = [f"has(b, {self.constant(one)})" for one in literals]
        values = [self._value(one.data) for one in sorted(required.values)]
        needs = [self.expression(one.needs) for one in required.fields]
        return "" if "" in needs else _joined(" or ", [*asked, *values, *expressions, *sorted(set(needs), key=len)])

    def _pass(self, literals: tuple[bytes, ...]) -> str:
        """All the literals in one pass."""
        import ahocorasick_rs

        if literals not in self._names:
            automaton = ahocorasick_rs.BytesAhoCorasick(sorted(set(map(beginning, literals))))
            self._names[literals] = self.constant(automaton.find_matches_as_indexes)
        return f"{self._names[literals]}(b)"

    def _value(self, data: bytes) -> str:
        """A string that is no name; most are followed by a comma."""
        followed = f"has(b, {self.constant(data + b',')}) or {self._search(_value(data))}"
        return f"(has(b, {self.constant(data)}) and ({followed}))"

    def _search(self, expression: bytes) -> str:
        return f"{self.constant(re.compile(expression).search)}(b)"

    def constant(self, value: object) -> str:
        """A name for a value."""
        name = f"c{len(self.constants)}"
        self.constants[name] = value
        return name


def _value(data: bytes) -> bytes:
    """Behind the quote that ends a value of JSON stands no colon, as it does behind a name."""
    return re.escape(data) + rb"\s*[^\s:]"


def _joined(word: str, parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"({word.join(parts)})" if parts else ""


def _strongest(options: Sequence[Witness]) -> list[Witness]:
    """The options without those that another one implies."""
    return [option for option in options if not any(_implies(other, option) for other in options if other != option)]


def _implies(strong: Witness, weak: Witness) -> bool:
    """Every line that holds one of `strong` holds one of `weak`."""
    return all(any(_holds(one, two) for two in weak) for one in strong)


def _holds(strong: Pattern, weak: Pattern) -> bool:
    return strong == weak or (not (strong.is_regex or weak.is_regex) and weak.data in strong.data)
