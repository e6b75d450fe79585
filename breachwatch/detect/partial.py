"""Lines judged before they are parsed: JSON by few fields, access lines by few parts, other text by its words."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import astuple

from breachwatch.detect.hits import Hit
from breachwatch.detect.plan import Plan
from breachwatch.detect.predicate import (
    WHOLE,
    Generator,
    Names,
    Predicate,
    Undecided,
    View,
    has_keywords,
    plain_texts,
    record_texts,
    words_of,
)
from breachwatch.detect.rule import OWN_PREFIXES, Condition, Rule
from breachwatch.detect.values import MAX_VALUE, as_text, folded
from breachwatch.detect.verdicts import Memory, Verdicts
from breachwatch.model import FieldValue
from breachwatch.model.passes import native
from breachwatch.model.rawform import Parts, RawForm, Usual

MAX_PROGRAMS = 4_096
"""Combinations of rules with code of their own; an attacker could make any number."""

MAX_WORDS, MAX_KNOWN = 32, 256
"""Words that are looked for together, and combinations of them that are remembered."""

WORTH_IT, WORTH_IT_JSON = 8, 64
"""So often a combination is left to the judge of events before it gets code; the second of JSON, where making it takes
longer."""

OFTEN, SELDOM, REST = 64, 16, 1_024
"""Of so many lines: where the answer is known of so few, no more are asked about for a while."""

HOT, HOT_PARTS = 1_024, 32
"""So often lines have the same hits before the combination gets code for just these: the second of access lines, whose
code then often reads fewer parts, so that it finds the same ones oftener."""

MAX_OPEN = 60
"""Brackets that open in a line. Records that are nested too deeply are none: a line with more may be one of these."""

MISSING: Any = object()
"""Stands for a field that is not there."""

_TELLING = frozenset((str, int, type(None), type(MISSING)))
"""Values of these types are the same if they are equal; true is equal to 1, and is another text."""

Getter = Callable[[Any], Any]
"""The value of a field of a partial record, or MISSING. Raises: Undecided, where the field may stand nested."""

_TEXTS = -2
"""Where a view keeps all texts of the line."""

_decode_all = msgspec.json.Decoder().decode


class _Fields(View):
    """A record of which only some fields were decoded."""

    __slots__ = ("getters", "line", "record")

    def __init__(self, record: Any, getters: Mapping[int, Getter], line: bytes) -> None:
        self.record = record
        self.getters = getters
        self.line = line

    def __missing__(self, field: int) -> str | None:
        if field == WHOLE:
            found = plain_texts(self.line)
            if found is None:
                found = folded("\0".join(self.texts()))
            self[field] = found
            return found
        value = self.getters[field](self.record)
        text: str | None
        if type(value) is str and len(value) <= MAX_VALUE:
            text = value.lower()
            if not text.isascii():
                text = folded(value)
        elif value is None or value is MISSING:
            text = None
        elif (text := as_text(value)) is None:
            raise Undecided
        else:
            text = folded(text)
        self[field] = text
        return text

    def raw(self, field: int) -> Any:
        """The single value of a field, None if it is missing or null. Raises: Undecided."""
        value = self.getters[field](self.record)
        if value is MISSING:
            return None
        if isinstance(value, list | dict):
            raise Undecided
        return value

    def there(self, field: int) -> bool:
        """The field is there, even as null. Raises: Undecided."""
        return self.getters[field](self.record) is not MISSING

    def texts(self) -> list[str]:
        """Every text of the event that keywords search. Raises: Undecided."""
        texts: list[str] | None = self.get(_TEXTS)
        if texts is None:
            try:
                record: Mapping[str, FieldValue] = _decode_all(self.line)
            except (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError):
                raise Undecided from None
            texts = self[_TEXTS] = record_texts(record)
        return texts


class _Line(View):
    """A line of text, whose fields nobody has read."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __missing__(self, field: int) -> str | None:
        if field != WHOLE:
            raise Undecided
        whole: str = folded(self._text)
        self[field] = whole
        return whole

    def texts(self) -> list[str]:
        """What keywords search."""
        return [self._text]


class LineProgram:
    """The code of one combination of rules that search for nothing but keywords, over a line of text."""

    remembered = None

    def __init__(self, parts: Sequence[tuple[int, Predicate]]) -> None:
        self._parts = parts

    def matching(self, line: bytes) -> tuple[int, ...]:
        """Those of the rules whose condition the line satisfies, which is not dirty."""
        view = _Line(line.decode().rstrip("\r\n"))
        return _satisfied(self._parts, view)


class _Parts(_Line):
    """A line of the usual shape, of whose fields only those that are asked for are read."""

    __slots__ = ("_getters", "_parts")

    def __init__(self, text: str, parts: Parts, getters: Mapping[int, Getter]) -> None:
        super().__init__(text)
        self._parts = parts
        self._getters = getters

    def __missing__(self, field: int) -> str | None:
        if field == WHOLE:
            return super().__missing__(field)
        value = self._getters[field](self._parts)
        if type(value) is not str or len(value) > MAX_VALUE:
            value = as_text(value)
        if value is None:
            self[field] = None
            return None
        text: str = value.lower()
        if not text.isascii():
            text = folded(value)
        self[field] = text
        return text

    def raw(self, field: int) -> Any:
        """The value of a field, None if it is missing."""
        return self._getters[field](self._parts)

    def there(self, field: int) -> bool:
        """The field is there."""
        return self.raw(field) is not None


class PartsProgram:
    """The code of one combination of rules over lines of the usual shape."""

    def __init__(
        self,
        parts: Sequence[tuple[int, Predicate]],
        fields: Mapping[int, Names],
        usual: Usual,
        verdicts: Verdicts | None,
    ) -> None:
        """`verdicts`: where they are kept; None: they depend on more than the fields."""
        self._parts = parts
        self._split = usual.parts
        read = {
            number: [usual.fields[name] for name in names if name in usual.fields] for number, names in fields.items()
        }
        needed = sorted({part for found in read.values() for of, _ in found for part in of})
        self._wanted = sum(1 << part for part in needed)
        self._getters = {number: _first([_placed(needed, *one) for one in found]) for number, found in read.items()}
        self._memory = None if verdicts is None else Memory(verdicts)
        if self._memory is not None and native is not None and usual.parts is native.access_parts:
            self._memory.remembered = native.Remembered(self._wanted, self._memory.known)

    @property
    def remembered(self) -> Any:
        """What compiled code can look into; None: there is none, or nothing is remembered."""
        return None if self._memory is None else self._memory.remembered

    def matching(self, line: bytes) -> tuple[int, ...] | None:
        """Those of the rules whose condition the line satisfies, which is not dirty; None: it has another shape."""
        text = line.decode().rstrip("\r\n")
        parts = self._split(text, self._wanted)
        if parts is None:
            return None
        memory = self._memory
        if memory is None:
            return self._found(text, parts)
        memory.asked += 1
        verdict = memory.known.get(parts)
        if verdict is None:
            verdict = self._found(text, parts)
            if not memory.keep(parts, verdict):
                self._memory = None
        return verdict

    def _found(self, text: str, parts: Parts) -> tuple[int, ...]:
        view = _Parts(text, parts, self._getters)
        return _satisfied(self._parts, view)


def _placed(needed: Sequence[int], of: tuple[int, ...], value: Callable[..., FieldValue]) -> Getter:
    """What makes a value from some parts, over the parts that are there."""
    if len(of) == 1:
        place = needed.index(of[0])
        return lambda parts: value(parts[place])
    places = [needed.index(part) for part in of]
    return lambda parts: value(*[parts[place] for place in places])


def _first(getters: Sequence[Getter]) -> Getter:
    """The first value that is there, else None."""
    if len(getters) == 1:
        return getters[0]
    return lambda parts: next((value for get in getters if (value := get(parts)) is not None), None)


class Program:
    """The code of one combination of rules over a JSON line."""

    remembered: Any = None

    def __init__(
        self,
        parts: Sequence[tuple[int, Predicate]],
        fields: Mapping[int, Names],
        verdicts: Verdicts,
        whole: Container[int] = (),
    ) -> None:
        """`whole`: those of the rules that search whole records."""
        self._parts = parts
        self._plain = [part for part in parts if part[0] not in whole]
        self._whole = [part for part in parts if part[0] in whole]
        self._memory = Memory(verdicts) if self._plain else None
        self._is_text = not fields and not self._plain
        """Nothing but keywords."""
        attributes: dict[str, str] = {}
        all_roots = sorted({root for names in fields.values() for name in names for root in _roots(name)})
        for name in (*(name for names in fields.values() for name in names), *all_roots):
            attributes.setdefault(name, f"f{len(attributes)}")
        roots = tuple(attributes[root] for root in all_roots)
        self._getters = {
            number: _getter(tuple(attributes[name] for name in names), roots if any(map(_roots, names)) else ())
            for number, names in fields.items()
        }
        record = msgspec.defstruct(
            "Record",
            [(attribute, Any, MISSING) for attribute in attributes.values()],
            rename={attribute: name for name, attribute in attributes.items()},
            gc=False,
        )
        self._decode = msgspec.json.Decoder(record).decode

    def matching(self, line: bytes) -> tuple[int, ...] | None:
        """Those of the rules whose condition the line satisfies; None: the reference has to say."""
        if self._is_text and (whole := plain_texts(line)) is not None:
            view = _Fields(None, self._getters, line)
            view[WHOLE] = whole
            return _satisfied(self._whole, view)
        if line.count(b"{") + (line.count(b"[") if b"[" in line else 0) > MAX_OPEN:
            return None
        try:
            record = self._decode(line)
            memory = self._memory
            read = () if memory is None else astuple(record)
            if memory is None or not _TELLING.issuperset(map(type, read)):
                return _satisfied(self._parts, _Fields(record, self._getters, line))
            memory.asked += 1
            verdict = memory.known.get(read)
            if verdict is None:
                verdict = _satisfied(self._plain, _Fields(record, self._getters, line))
                if not memory.keep(read, verdict):
                    self._memory = None
            if not self._whole:
                return verdict
            return tuple(sorted([*verdict, *_satisfied(self._whole, _Fields(record, self._getters, line))]))
        except (Undecided, msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError):
            return None


def _satisfied(parts: Sequence[tuple[int, Predicate]], view: View) -> tuple[int, ...]:
    """Those of some rules whose condition holds. Raises: Undecided."""
    return tuple([index for index, predicate in parts if predicate(view)])


class WordsProgram:
    """The code of one combination of rules that ask for nothing but a few words, over a JSON line."""

    def __init__(self, parts: Sequence[tuple[int, Predicate]], words: Sequence[str], otherwise: Program) -> None:
        """`otherwise`: for lines that are longer, or no plain records."""
        self._parts = parts
        self._words = words
        self._otherwise = otherwise
        self._known: dict[int, tuple[int, ...]] = {}
        """Verdicts by the words that are in a line, as bits of a number."""
        texts = tuple([word.encode("utf-8", "surrogatepass") for word in words])
        self.remembered = native.Keywords(OWN_PREFIXES, MAX_VALUE, texts, self._known)

    def matching(self, line: bytes) -> tuple[int, ...] | None:
        """Those of the rules whose condition the line satisfies; None: the reference has to say."""
        held = self.remembered.held(line)
        if held is None:
            return self._otherwise.matching(line)
        verdict = self._known.get(held)
        if verdict is None:
            view = View()
            view[WHOLE] = "\0".join(word for place, word in enumerate(self._words) if held >> place & 1)
            verdict = _satisfied(self._parts, view)
            if len(self._known) < MAX_KNOWN:
                self._known[held] = verdict
        return verdict


@lru_cache(MAX_PROGRAMS)
def _getter(attributes: tuple[str, ...], roots: tuple[str, ...]) -> Getter:
    """The first attribute that is there; where none is, the field may stand nested if one of the roots is there."""
    lines = ["def get(r):"]
    nested = " or ".join(f"r.{root} is not M" for root in roots)
    for attribute in attributes:
        lines += [f" v = r.{attribute}", " if v is not M: return v"]
        lines += [f" if {nested}: raise U"] if nested else []
    lines.append(" return M")
    made: dict[str, Any] = {"__builtins__": {}, "M": MISSING, "U": Undecided}
    exec("\n".join(lines), made)  # noqa: S102  # names of attributes are our own
    getter: Getter = made["get"]
    return getter


_AnyProgram = Program | WordsProgram | PartsProgram | LineProgram


class _Code(NamedTuple):
    """The condition of a rule."""

    predicate: Predicate
    fields: frozenset[int]
    """Numbers of those that it reads."""
    is_whole: bool
    """It searches whole records or lines."""
    words: frozenset[str] | None
    """All that it looks for, where that is nothing but words in them."""


class _Combination:
    """What there is for the lines that are candidates for the same rules."""

    __slots__ = ("by_hit", "general", "times")

    def __init__(self) -> None:
        self.times = 0
        """How often they came before they got code."""
        self.general: _AnyProgram | None = None
        self.by_hit: dict[Hit, _AnyProgram | None] = {}
        """Code for lines with just these hits."""


class Programs:
    """Programs by combination of rules, made for those that come often."""

    def __init__(self, rules: Sequence[Rule], form: RawForm) -> None:
        """`form`: of the lines. Those of text get code for rules that read no field."""
        self._rules = rules
        self._form = form
        self._hot = HOT if form.usual is None else HOT_PARTS
        self._worth_it = WORTH_IT_JSON if form.escapes_json else WORTH_IT
        self._generator = Generator()
        self._codes: dict[int, _Code | None] = {}
        self._plan: Plan | None = None
        self._asked = self._known = self._rest = 0
        self._verdicts = Verdicts()
        self._forget()

    def judged(self, rules: tuple[int, ...], hit: Hit, line: bytes, plan: Plan) -> tuple[int, ...] | None:
        """Those of a candidate's rules whose condition the line satisfies; None: the reference has to say."""
        if self._rest:
            self._rest -= 1
            return None
        if plan is not self._plan:
            self._plan = plan
            self._forget()
        one = self._combinations.get(rules) or self._new(rules)
        if one.times < self._worth_it:
            one.times += 1
            if one.times < self._worth_it:
                return None
            self._make_room(one, rules)
            one.general = self._made(rules, None)
        program = one.by_hit[hit] if hit in one.by_hit else self._of_hit(one, rules, hit, plan)
        if program is None:
            return None
        verdict = program.matching(line)
        self._asked += 1
        if verdict is not None:
            self._known += 1
        if self._asked == OFTEN:
            self._rest = REST if self._known < SELDOM else 0
            self._asked = self._known = 0
        return verdict

    def _forget(self) -> None:
        """Programs of another plan, or more of them than there is room for."""
        self._combinations: dict[tuple[int, ...], _Combination] = {}
        self._seen: dict[tuple[tuple[int, ...], Hit], int] = {}
        """How often lines with these hits came."""
        self._verdicts.forget()  # plans may still look into the tables
        self._verdicts = Verdicts()
        self._count = 0
        """Programs there are."""

    def _new(self, rules: tuple[int, ...]) -> _Combination:
        """What is known of a combination, which is nothing so far."""
        if len(self._combinations) >= 2 * MAX_PROGRAMS:
            self._combinations = {of: one for of, one in self._combinations.items() if one.times >= self._worth_it}
        made = self._combinations[rules] = _Combination()
        return made

    def _make_room(self, one: _Combination, rules: tuple[int, ...]) -> None:
        """For one more program."""
        if self._count >= MAX_PROGRAMS:
            self._forget()
            one.by_hit.clear()
            self._combinations[rules] = one

    def _of_hit(self, one: _Combination, rules: tuple[int, ...], hit: Hit, plan: Plan) -> _AnyProgram | None:
        """Code for these hits where they came very often, else for the rules in general."""
        if len(self._seen) >= MAX_PROGRAMS:
            self._seen.clear()
        seen = self._seen[rules, hit] = self._seen.get((rules, hit), 0) + 1
        program = one.general
        if seen >= self._hot:
            self._make_room(one, rules)
            program = one.by_hit[hit] = self._made(rules, hit)
        if program is not None and program.remembered is not None:
            plan.remember(hit, rules, program.remembered)
        return program

    def _made(self, rules: tuple[int, ...], hit: Hit | None) -> _AnyProgram | None:
        """Code for some rules, and lines with just these hits; None: for one of the rules there is none."""
        self._count += 1
        codes = [self._code(index, hit) for index in rules]
        parts = [(index, code.predicate) for index, code in zip(rules, codes, strict=True) if code is not None]
        if len(parts) < len(codes):
            return None
        known = [code for code in codes if code is not None]
        numbers = frozenset().union(*[code.fields for code in known])
        names = {number: field for field, number in self._generator.fields.items() if number in numbers}
        whole = {index for index, code in zip(rules, known, strict=True) if code.is_whole}
        if self._form.escapes_json:
            program = Program(parts, names, self._verdicts, whole)
            words = frozenset().union(*[code.words for code in known if code.words is not None])
            if native is None or any(code.words is None for code in known) or not 0 < len(words) <= MAX_WORDS:
                return program
            return WordsProgram(parts, sorted(words), program)
        usual = self._form.usual
        if usual is None:
            return LineProgram(parts)
        return PartsProgram(parts, names, usual, None if whole else self._verdicts)

    def _code(self, index: int, hit: Hit | None) -> _Code | None:
        """The condition of a rule as code; None: there is none."""
        condition = self._condition(index, hit)
        if condition is not self._rules[index].condition:
            return self._generated(condition)
        if index not in self._codes:
            self._codes[index] = self._generated(condition)
        return self._codes[index]

    def _condition(self, index: int, hit: Hit | None) -> Condition:
        """The condition of a rule, as it is for lines with these hits."""
        if hit is None or self._plan is None:
            return self._rules[index].condition
        return self._plan.simplified(index, hit)

    def _generated(self, condition: Condition) -> _Code | None:
        found = self._generator.predicate(condition)
        if found is None or not self._are_plain(found[1]):
            return None
        return _Code(*found, is_whole=has_keywords(condition), words=words_of(condition))

    def _are_plain(self, numbers: frozenset[int]) -> bool:
        """True if the fields are what the line says, and their names can be names of a structure."""
        names = [name for field, number in self._generator.fields.items() if number in numbers for name in field]
        if not self._form.escapes_json:
            return not names or (self._form.usual is not None and not self._form.unusual.intersection(names))
        return all(name.isascii() and name.isprintable() and not {'"', "\\"} & set(name) for name in names) and not (
            self._form.derived.intersection(names)
        )


def _roots(name: str) -> list[str]:
    """Names under which a record may hold the field nested: `a` and `a.b` for `a.b.c`."""
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]
