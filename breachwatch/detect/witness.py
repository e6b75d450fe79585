"""Witnesses: literals without which a rule cannot match a line. The prefilter looks for these in raw bytes.

`Extractor.witness` gives a set of patterns of which every matching line holds at least one (None: nothing is promised,
the rule is open). Over-approximation is always sound; so any choice inside a conjunction is, and the choice may follow
measured frequencies. Composition: AND takes its cheapest part, OR the union, NOT is pushed inwards, a negated leaf is
open.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from breachwatch.detect.rawregex import stretch
from breachwatch.detect.regexlits import required_literals
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
    Rule,
    TimePart,
)
from breachwatch.detect.values import ANY, NUMERIC, Regex, Scalar, Text, Value, as_json, folded
from breachwatch.model.rawform import BETWEEN_VALUES, RawForm, Words


class Pattern(NamedTuple):
    """What a scanner looks for, case ignored in ASCII."""

    is_regex: bool
    data: bytes
    needs: tuple[bytes, ...] = ()
    """Of an expression: one of these (case counts) is in whatever holds it. Empty: nothing is known."""
    flag: int = 0
    """Of an expression: the flag of a survey (passes.py) that is set for whatever holds it; 0: none."""


Witness = frozenset[Pattern]
"""At least one of these is in the line. Empty: the rule cannot match lines of this form."""

NEVER: Witness = frozenset()

Options = Sequence[Witness]
"""Every one of these sets holds for itself; none at all: open."""

Cost = Callable[[Pattern], float]
"""Expected hits of a pattern per line."""

SHORT = 3
"""Shorter literals are everywhere."""

ODD_NUMBER = Pattern(is_regex=True, data=rb"[\s:,\[](?:-?[0-9.]{16,}|-?[0-9]*\.0000|-?[0-9.]+e[-+0-9])")
"""JSON numbers whose decimal text is not what stands in the line: exponents, many digits, very small fractions."""

_WHOLE = re.compile(r"[0-9]{1,15}")

UNRESERVED = re.compile(r"[A-Za-z0-9._~-]+")
"""Characters no honest client encodes. Source: RFC 3986 section 2.3."""

PRINTABLE = re.compile(r"[\x20-\x7e]+")
PRINTABLE_UNESCAPED = re.compile(r"[\x20\x21\x23-\x5b\x5d-\x7e]+")


def prior(pattern: Pattern) -> float:
    """Guess of a pattern's frequency before any line was seen."""
    if pattern.is_regex:
        return 1e-4
    body = pattern.data.strip(b'"')
    return 0.5 ** min(len(body), 12) * (0.3 if len(body) < len(pattern.data) else 1.0)


def literal(text: str) -> Pattern:
    """A literal of printable ASCII."""
    return Pattern(is_regex=False, data=text.lower().encode("ascii"))


class Extractor:
    """Witnesses of rules for lines of one form. `cost` decides between choices that are all sound."""

    def __init__(self, form: RawForm, cost: Cost = prior, *, endings: bool = True) -> None:
        """`endings`: offer strings with what may stand behind them, too."""
        self._form = form
        self._endings = endings
        self._cost = cost
        self._escapes = Pattern(is_regex=True, data=form.escapes.encode("ascii"))
        self._present: dict[tuple[str, ...], Options] = {}
        """By the names of a field."""

    def of_rule(self, rule: Rule, *, routed: bool) -> Witness | None:
        """The witness of a rule, from its condition or (where events are `routed` by their log source) from that."""
        options = [found for found in (self.witness(rule.condition, negated=False),) if found is not None]
        if routed:
            words = self._form.words_of(rule.logsource)
            if words is None:
                return NEVER
            options.extend(frozenset(map(literal, one)) for one in words if one)
        return self._cheapest(options)

    def witness(self, condition: Condition, *, negated: bool) -> Witness | None:
        """What a line must hold for the condition (or, negated, for its opposite) to be true; None: nothing known."""
        if isinstance(condition, Not):
            return self.witness(condition.part, negated=not negated)
        if isinstance(condition, And | Or):
            parts = [self.witness(part, negated=negated) for part in condition.parts]
            if isinstance(condition, And) is negated:
                known = [part for part in parts if part is not None]
                return frozenset[Pattern]().union(*known) if len(known) == len(parts) else None
            paired = [] if negated else self._paired(condition.parts)
            return self._cheapest([*(part for part in parts if part is not None), *paired])
        return self._cheapest(self.options(condition, negated=negated))

    def _cheapest(self, options: Options) -> Witness | None:
        if not options:
            return None
        return min(options, key=self._price)

    def _price(self, witness: Witness) -> float:
        return sum(map(self._cost, witness)) + 1e-7 * len(witness)

    def _paired(self, parts: Sequence[Condition]) -> list[Witness]:
        """What an action and an outcome promise together."""
        named = {
            part.field: exact
            for part in parts
            if isinstance(part, FieldTest) and not part.also and (exact := exact_text(part.value)) is not None
        }
        pair = (named.get("event.action", ""), named.get("event.outcome", ""))
        words = self._form.pairs.get(pair)
        return [frozenset(map(literal, words))] if words else []

    # -- leaves ---------------------------------------------------------------------------------------------------

    def options(self, leaf: Condition, *, negated: bool) -> Options:  # noqa: PLR0911  # one return per kind
        """All the witnesses a leaf has."""
        if isinstance(leaf, Exists):
            return self._presence((leaf.field, *leaf.also)) if leaf.wanted is not negated else []
        if isinstance(leaf, IsNull):
            return self._presence((leaf.field, *leaf.also)) if negated else []
        if negated:
            return []
        if isinstance(leaf, Keyword):
            return self._keyword(leaf.value)
        if isinstance(leaf, FieldReference):
            return [*self._presence((leaf.field, *leaf.also)), *self._presence((leaf.other, *leaf.other_also))]
        if isinstance(leaf, TimePart):
            return self._presence((leaf.field, *leaf.also))
        assert isinstance(leaf, FieldTest)
        return self._field(leaf)

    def presence(self, leaf: Condition) -> Options:
        """The witnesses of a leaf that say only that its field is there."""
        if isinstance(leaf, FieldTest | FieldReference | TimePart):
            return self._presence((leaf.field, *leaf.also))
        return []

    def is_in_string(self, leaf: Condition) -> bool:
        """True if the leaf's literals stand in strings of JSON records, and nowhere else."""
        return self._form.escapes_json and isinstance(leaf, FieldTest) and "message" not in (leaf.field, *leaf.also)

    def expressions(self, leaf: Condition) -> Witness:
        """What else a line holds, as expressions over its raw bytes. Each costs a search of its own."""
        if not isinstance(leaf, FieldTest):
            return NEVER
        names, value, form = (leaf.field, *leaf.also), leaf.value, self._form
        known = [name for name in names if form.escapes_json or self._is_known(name)]
        as_written = self.is_in_string(leaf) or all(name in form.exact for name in known)
        if not known or not as_written or not form.derived.isdisjoint(known):
            return NEVER
        found: list[bytes] = []
        if isinstance(value, Regex):
            stretched = stretch(value.pattern, value.flags, escapes_json=form.escapes_json)
            found = [] if stretched is None else [stretched]
        elif isinstance(value, Scalar) and form.escapes_json and _WHOLE.fullmatch(value.text) and self._presence(names):
            found = [_numbered([name.rpartition(".")[2] for name in names], value.text)]
        return frozenset(Pattern(is_regex=True, data=expression) for expression in found)

    def _presence(self, names: tuple[str, ...]) -> Options:
        """The field is there under one of its names."""
        found = self._present.get(names)
        if found is None:
            found = self._present[names] = self._found_present(names)
        return found

    def _found_present(self, names: tuple[str, ...]) -> Options:
        form = self._form
        if form.is_closed:
            return [] if any(self._is_known(name) for name in names) else [NEVER]
        keys = [name.rpartition(".")[2] for name in names]
        unsure = any(name in form.derived or name == "message" for name in names)  # also of lines that are no records
        if unsure or not all(PRINTABLE_UNESCAPED.fullmatch(key) for key in keys):
            return []
        return [frozenset(literal(f'{key}"') for key in keys)]

    def _is_known(self, name: str) -> bool:
        form = self._form
        return (
            form.is_values
            or name == "@timestamp"
            or name in form.exact
            or name in form.decoded
            or name in form.derived
            or name in form.signs
        )

    def _field(self, leaf: FieldTest) -> Options:
        names = (leaf.field, *leaf.also)
        if self._form.escapes_json:
            return self._json(names, leaf)
        known = [name for name in names if self._is_known(name)]
        if not known:
            return [NEVER]
        per_name = [self._named(name, leaf) for name in known]
        if len(per_name) == 1:
            return per_name[0]
        if not all(per_name):
            return []
        return [frozenset[Pattern]().union(*(min(options, key=self._price) for options in per_name))]

    def _named(self, name: str, leaf: FieldTest) -> Options:
        """The witnesses if the value comes from the field of this name."""
        form, value = self._form, leaf.value
        if form.is_values:
            return [] if name == "@timestamp" or name.startswith(OWN_PREFIXES) else self._between_marks(value)
        if name in form.signs:
            return [found for signs in form.signs[name] for found in self._signed(signs, leaf)]
        if name in form.exact:
            return self._exact(value)
        if name in form.decoded:
            return [found | {self._escapes} for found in self._decoded(value)]
        return []

    def _decoded(self, value: Value) -> Options:
        """Witnesses, beside the escapes, of a value that the parser decoded."""
        if isinstance(value, Text):
            return [found for text, _, _ in text_runs(value) for found in _url_parts(text)]
        if isinstance(value, Regex):
            sets = required_literals(value.pattern, value.flags, controls=True)
            chosen = [[self._cheapest(_url_parts(text)) for text in sorted(texts)] for texts in sets]
            return [frozenset[Pattern]().union(*filter(None, parts)) for parts in chosen if all(parts)]
        if isinstance(value, Scalar) and not value.boolean and UNRESERVED.fullmatch(value.text):
            return [frozenset({literal(value.text)})]
        return []

    def _signed(self, signs: Mapping[str, Words], leaf: FieldTest) -> Options:
        possible = [words for value, words in signs.items() if leaf.test(value)]
        if not all(possible):
            return []
        return [frozenset(literal(word) for words in possible for word in words)]

    def _exact(self, value: Value) -> Options:
        """Witnesses of a value that stands in the line as it is."""
        if isinstance(value, Text):
            texts = [folded(text) if self._form.is_values else text for text, _, _ in text_runs(value)]
            runs = [run for text in texts for run in PRINTABLE.findall(text)]
            if not runs:
                return [_spelled(text) for text in texts if not text.isascii()]
            return [frozenset({literal(run)}) for run in runs]
        if isinstance(value, Scalar) and not value.boolean:
            return [frozenset({literal(value.text)})] if PRINTABLE.fullmatch(value.text) else []
        if isinstance(value, Regex):
            return [frozenset(map(literal, found)) for found in required_literals(value.pattern, value.flags)]
        return []

    def _between_marks(self, value: Value) -> Options:
        """Witnesses of a value that stands, folded, between two marks."""
        mark = BETWEEN_VALUES.encode()
        if isinstance(value, Scalar) and PRINTABLE.fullmatch(value.text):
            return [frozenset({Pattern(is_regex=False, data=mark + literal(value.text).data + mark)})]
        if not isinstance(value, Text):
            return self._exact(value)
        found: list[Witness] = []
        for text, begins, ends in text_runs(value):
            whole = folded(text)
            for run in PRINTABLE.finditer(whole):
                before = mark if begins and run.start() == 0 else b""
                after = mark if ends and run.end() == len(whole) else b""
                found.append(frozenset({Pattern(is_regex=False, data=before + literal(run[0]).data + after)}))
        return found or self._exact(value)

    def _keyword(self, value: Value) -> Options:
        if not self._form.escapes_json:
            return self._exact(value)
        return self._json_texts(value, anywhere=True)

    # -- JSON -----------------------------------------------------------------------------------------------------

    def _json(self, names: tuple[str, ...], leaf: FieldTest) -> Options:
        if any(name in self._form.derived for name in names):
            return []
        return [*self._json_texts(leaf.value, anywhere="message" in names), *self._presence(names)]

    def _json_texts(self, value: Value, *, anywhere: bool) -> Options:
        """Witnesses of a value in a JSON record; `anywhere`: also in a line that is no record and escapes nothing."""
        if isinstance(value, Text):
            return [
                found for run in text_runs(value) for found in _json_run(run, anywhere=anywhere, endings=self._endings)
            ]
        if isinstance(value, Scalar):
            found = literal(value.text)
            return [frozenset({found} if value.boolean else {found, ODD_NUMBER})]
        if isinstance(value, Regex):
            options = []
            for texts in required_literals(value.pattern, value.flags):
                patterns: set[Pattern] = set()
                for text in texts:
                    patterns |= _escaped(text, anywhere=anywhere)
                    if NUMERIC.issuperset(text):
                        patterns.add(ODD_NUMBER)
                options.append(frozenset(patterns))
            return options
        return []


def _numbered(keys: Iterable[str], text: str) -> bytes:
    """A key of a JSON record with a whole number: as text, as a number however it is written, or among others."""
    names = b"|".join(re.escape(key.lower().encode("ascii")) for key in dict.fromkeys(keys))
    number = rb'"?-?' + text.encode("ascii") + rb"[^0-9]|[-+0-9.]*[.e]|-?[0-9]{16}|[\[{]"
    return rb'[".](?:' + names + rb')"\s*:\s*(?:' + number + b")"


def _without_x(run: str) -> str:
    r"""Decoding writes a broken byte as `\xhh`: an x at the start may come from there, the digits are in the line."""
    return run.lstrip("xX")


def _url_parts(text: str) -> list[Witness]:
    """What a line holds whose URL, decoded, holds the text: a stretch that nobody encodes, or one other character."""
    found = [frozenset({literal(part)}) for run in UNRESERVED.findall(text) if (part := _without_x(run))]
    for char in dict.fromkeys(text):
        if char == "\n":
            found.append(frozenset(map(literal, ("%0a", "\\n"))))
        elif char.isascii() and char not in _MADE_BY_DECODING and not UNRESERVED.fullmatch(char):
            # a NUL makes its line dirty, and Hyperscan takes no literal that begins with one
            raw = [] if char == "\0" else [Pattern(is_regex=False, data=char.encode("ascii"))]
            found.append(frozenset({*raw, *map(literal, (f"%{ord(char):02x}", *_C_ESCAPES.get(char, ())))}))
    return found


_MADE_BY_DECODING = " +%\x7f\\"
"""Characters of a decoded URL that need not be in the line: a broken byte is written with a backslash."""

_C_ESCAPES = {"\b": ("\\b",), "\r": ("\\r",), "\t": ("\\t",), "\v": ("\\v",)}
"""How servers write control characters. Source: Apache ap_escape_logitem."""


def exact_text(value: Value) -> str | None:
    """The one text that a value without wildcards names."""
    if isinstance(value, Text) and len(value.pieces) == 1 and value.pieces[0]:
        return value.pieces[0]
    return None


def text_runs(value: Text) -> Iterable[tuple[str, bool, bool]]:
    """Literal stretches between wildcards, as compared, and whether the value begins and ends with them."""
    stretches: list[tuple[str, int, int]] = []
    for position, piece in enumerate(value.pieces):
        if piece is None or piece == ANY:
            continue
        text = piece if value.cased else folded(piece)
        if stretches and stretches[-1][2] == position - 1:
            before = stretches.pop()
            stretches.append((before[0] + text, before[1], position))
        else:
            stretches.append((text, position, position))
    last = len(value.pieces) - 1
    return [(text, first == 0, end == last) for text, first, end in stretches]


_BEHIND_VALUES = (b",", b"}", b"]", b" ", b"\t", b"\r")
"""What may stand behind a string of a JSON record that is no name; but for spaces, none of it stands behind a name."""


def with_endings(string: Pattern) -> Witness:
    """A quoted string with whatever may stand behind it, where it is no name: a record holds one of these."""
    return frozenset(Pattern(is_regex=False, data=string.data + after) for after in _BEHIND_VALUES)


def _json_run(run: tuple[str, bool, bool], *, anywhere: bool, endings: bool) -> list[Witness]:
    """Witnesses of one literal stretch of a JSON value."""
    text, begins, ends = run
    found: list[Witness] = []
    scalar = NUMERIC.issuperset(text)
    for match in PRINTABLE.finditer(text):
        part = match[0]
        patterns = _escaped(part, anywhere=anywhere)
        if NUMERIC.issuperset(part):
            patterns = patterns | {ODD_NUMBER}
        found.append(patterns)
        first, last = begins and match.start() == 0, ends and match.end() == len(text)
        if not anywhere and not scalar and (first or last) and not _is_word_part(text, begins=begins, ends=ends):
            (escaped,) = _escaped(part, anywhere=False)
            quoted = (b'"' if first else b"") + escaped.data + (b'"' if last else b"")
            found.append(frozenset({Pattern(is_regex=False, data=quoted)}))
            if first and last and endings:
                found.append(with_endings(Pattern(is_regex=False, data=quoted)))
    if not text.isascii():
        found.append(_spelled(text))
    return found


def _spelled(text: str) -> Witness:
    """The first character that is not ASCII, in all its spellings: what is ASCII in the literal may be common."""
    from breachwatch.detect.folding import spellings

    char = next(char for char in text if not char.isascii())
    return frozenset(Pattern(is_regex=False, data=item) for item in spellings(char))


def _is_word_part(text: str, *, begins: bool, ends: bool) -> bool:
    """True if the text may come from a bare true, false or null, which have no quotes."""
    low = text.lower()
    words = ("true", "false")
    if begins and ends:
        return low in words
    return any(word.startswith(low) if begins else word.endswith(low) for word in words)


def _escaped(text: str, *, anywhere: bool) -> frozenset[Pattern]:
    r"""The literal as JSON writes it and, if it may stand `anywhere`, as it is."""
    inner = as_json(text)
    if not anywhere or inner == text:
        return frozenset({literal(inner)})
    return frozenset({literal(inner), literal(text)})
