"""What a guard requires, every matching line holds; and it does dismiss lines that miss something."""

from __future__ import annotations

import json
import re
import time
from array import array

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from breachwatch.detect import guard
from breachwatch.detect.foreign import foreign_lines
from breachwatch.detect.guard import NOTHING, AnyOf, Every, FieldTexts, Guards, Requirement, Some, program
from breachwatch.detect.hits import WEIGHT
from breachwatch.detect.plan import Plan, Scope
from breachwatch.detect.rawregex import stretch
from breachwatch.detect.rule import And, Condition, FieldTest, Keyword, Not, Or, Regex, Rule, Text
from breachwatch.detect.values import ANY, Scalar
from breachwatch.detect.witness import Pattern, with_endings
from breachwatch.model import Level, LogSource, RuleRef
from breachwatch.model.passes import native
from breachwatch.parse.rawform import FORMS

JSON = FORMS["json"]


def is_(field: str, text: str) -> FieldTest:
    return FieldTest(field=field, value=Text(pieces=(text,)), text="")


def has(field: str, text: str) -> FieldTest:
    return FieldTest(field=field, value=Text(pieces=(ANY, text, ANY)), text="")


ANY_SOURCE = LogSource()


def rule(condition: Condition, logsource: LogSource = ANY_SOURCE) -> Rule:
    ref = RuleRef(id="r", title="r", level=Level.LOW)
    return Rule(ref=ref, logsource=logsource, condition=condition, source="test")


def let_through(condition: Condition, line: bytes, *, form: str = "json") -> bool:
    """Whether the guard alone lets a line through, nothing being known of it."""
    guards = Guards([rule(condition)], FORMS[form], routed=False)
    rules, narrow = guards.narrow((0,), frozenset(), frozenset())
    return bool(rules) and (narrow is None or bool(narrow(line.lower())))


VALUES = (
    b'{"type":"TTY"}',
    b'{"type" : "tty" }',
    b'{"a":1,"type":"tty","b":2}',
    b'{"type":["x","tty"]}',
    b'{"type":["tty" ]}',
    b'{"type":\t"tty"\t}',
    b'{"type":"tty"\r}',
)


@pytest.mark.parametrize("line", VALUES)
def test_a_value_is_found_wherever_a_record_may_end_it(line):
    assert let_through(is_("type", "tty"), line)


def test_a_name_is_no_value():
    assert not let_through(is_("type", "tty"), b'{"type":"x","tty":"pts0"}')
    assert not let_through(is_("type", "tty"), b'{"type":"x","tty" :"pts0"}')


@pytest.mark.parametrize(
    ("condition", "line"),
    [
        (And((has("a", "one"), has("b", "two"))), b'{"a":"one","b":"thr"}'),
        (And((has("a", "one"), Not(Or((Not(has("b", "two")), has("c", "x")))))), b'{"a":"one"}'),
        (Or((And((has("a", "one"), has("b", "two"))), has("c", "three"))), b'{"a":"one","c":"other"}'),
        (And((has("a", "one"), Keyword(value=Text(pieces=(ANY, "word", ANY)), text=""))), b'{"a":"one"}'),
        (Or(tuple(has("a", f"word{number}") for number in range(40))), b'{"a":"words"}'),
    ],
)
def test_what_is_missing_dismisses_a_line(condition, line):
    assert not let_through(condition, line)


@pytest.mark.parametrize(
    ("condition", "line"),
    [
        (And((has("a", "one"), Not(has("b", "two")))), b'{"a":"one","b":"two"}'),  # nothing is known of what is negated
        (FieldTest(field="n", value=Scalar(text="100"), text=""), b'{"n":1e2}'),  # a number is not always what it says
        (FieldTest(field="n", value=Regex(pattern=r"100000"), text=""), b'{"n":1e5}'),
        (And(()), b"{}"),
        (has("a", 'say "hi"'), b'{"a":"say \\"hi\\" to"}'),
        (is_("a", 'ends in a quote"'), b'{"a":"ends in a quote\\""}'),
        (is_("a", "back\\"), b'{"a":"back\\\\"}'),
        (has("message", 'x"'), b'{"x":1, no record "x":'),
    ],
)
def test_what_may_match_is_let_through(condition, line):
    assert let_through(condition, line)


def test_what_the_scan_says_is_not_asked_again(monkeypatch):
    monkeypatch.setattr(guard, "native", None)  # what is compiled asks for the field too
    guards = Guards([rule(Or((has("a", "one"), And((has("b", "two"), has("c", "three"))))))], JSON, routed=False)
    one, two, three = (
        next(iter(Plan([rule(has("a", text))], JSON, Scope()).patterns)) for text in ("one", "two", "three")
    )
    assert guards.narrow((0,), {one}, frozenset()) == ((0,), None)
    assert guards.narrow((0,), frozenset(), {one, two}) == ((), None)
    rules, narrow = guards.narrow((0,), {two}, {one})
    assert rules == (0,)
    assert narrow is not None
    assert narrow(b"three") == (0,)
    assert narrow(b"four") == ()
    assert three not in {one, two}


def test_a_string_found_with_its_ending_is_found_and_one_without_any_is_not(monkeypatch):
    monkeypatch.setattr(guard, "native", None)
    guards = Guards([rule(And((is_("type", "syscall"), has("b", "two"))))], JSON, routed=False)
    string = Pattern(is_regex=False, data=b'"syscall"')
    (found, narrow) = guards.narrow((0,), {Pattern(is_regex=False, data=b'"syscall",')}, frozenset())
    assert found == (0,)
    assert narrow is not None
    assert narrow(b"two") == (0,)
    assert guards.narrow((0,), frozenset(), with_endings(string)) == ((), None)
    some = frozenset(sorted(with_endings(string))[1:])
    assert guards.narrow((0,), frozenset(), some)[0] == (0,)


def test_a_routed_record_names_its_source():
    """Whether by its dataset or part by part, in every spelling the parser reads."""
    wanted = LogSource("linux", "process_creation", "")
    plan = Plan([rule(has("a", "kill"), wanted)], JSON, Scope())
    lines = [
        b'{"product":"linux","category":"process_creation","a":"kill"}\n',
        b'{"category" : "process_creation", "a":"kill", "product" : "linux"}\n',
    ]
    assert [len(plan.look(line * 9).candidates) for line in lines] == [9, 9]
    assert len(plan.look(b'{"product":"linux","category":"file_event","a":"kill"}\n' * 9).candidates) < 9


PATTERNS = (
    r"-(W|R)\s?(\s|\"|')([0-9a-fA-F]{2}\s?){2,20}(\s|\"|')",
    r"\\\\[a-z]+\\pipe",
    r"(?i)KILL\s-9\s\d+",
    r"a{2,3}bcd|x",
    r"\"[^\"]+\"\s*:\s*\"cmd",
    r"(foo|bar)[0-9]{4}x?y",
    r"^/tmp/\.[a-z]{3}",
    r"[A-Z]{4}(?=xyz)xyz",
    r"tab\there\x1f?now",
    r"(?:ab?){3}cdef",
    r"\w\w\wsecret\b",
    r"x(?#c)yz{2}w+",
    r"'[^']*'\|\|'a",
    r"(?x) a b c d # e",
    r"\d{1,3}(\.\d{1,3}){3}:\d+",
)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_text_that_an_expression_matches_holds_its_stretch(pattern):
    """However JSON writes the text, as long as it escapes nothing that it need not."""
    as_json, as_is = (stretch(pattern, 0, escapes_json=how) for how in (True, False))

    @settings(max_examples=150)
    @given(st.from_regex(pattern), st.booleans())
    def holds(text: str, upper: bool) -> None:
        if re.search(pattern, text) is None or list(foreign_lines(text.encode("utf-8", "surrogatepass"), digits=False)):
            return
        line = json.dumps({"a": text}, ensure_ascii=False).encode("utf-8", "surrogatepass").lower()
        assert as_json is None or re.search(as_json, line)
        assert as_is is None or re.search(as_is, text.encode("utf-8", "surrogatepass").lower())

    holds()


def test_stretches_are_found_where_there_are_any():
    said = [pattern for pattern in PATTERNS if stretch(pattern, 0, escapes_json=True)]
    assert len(said) >= 10
    assert stretch(r".*\d+", 0, escapes_json=True) is None
    assert stretch(r"[0-9.]{8}", 0, escapes_json=True) is None  # a number may be written in another way
    assert stretch(r"[0-9.]{8}", 0, escapes_json=False)
    assert stretch("(", 0, escapes_json=True) is None


@pytest.mark.timeout(20)
def test_a_stretch_takes_no_time_on_hostile_lines():
    expression = stretch(PATTERNS[0], 0, escapes_json=True)
    assert expression is not None
    search = re.compile(expression).search
    for line in (b"-r " * 20_000, b"-r\\t" * 15_000, b"-r " + b" " * 60_000):
        assert search(line) is None


@pytest.mark.parametrize("text", ["\\x80", "a\\xffb", "/\\xed"])
def test_a_broken_byte_of_a_url_is_written_with_a_backslash_that_no_line_holds(text):
    """Found by the long form of the forged pairs."""
    byte = re.sub(r"\\x(..)", r"%\1", text)
    line = f'203.0.113.7 - - [17/May/2015:10:05:03 +0000] "GET /{byte} HTTP/1.1" 500 1 "-" "-"'
    assert let_through(has("web.path_decoded", text), line.encode(), form="nginx")


def word(text: str) -> Keyword:
    return Keyword(value=Text(pieces=(ANY, text, ANY)), text=text)


@pytest.mark.parametrize(
    ("condition", "left"),
    [
        (word("Union Select"), And(())),
        (Or((word("union select"), has("url.query", "x"))), And(())),
        (And((word("union select"), has("url.query", "x"))), And((has("url.query", "x"),))),
        (Or((And((word("union select"), is_("url.query", "x"))), word("other"))), Or((And((is_("url.query", "x"),)),))),
        (Not(word("union select")), Not(word("union select"))),
        (word("union select "), word("union select ")),
        (Keyword(value=Text(pieces=(ANY, "union select", ANY), cased=True), text=""), None),
        (Keyword(value=Text(pieces=(ANY, "union", ANY, "select", ANY)), text=""), None),
        (Keyword(value=Text(pieces=(ANY, "union select", None, ANY)), text=""), None),
    ],
)
def test_a_keyword_that_a_line_of_text_holds_is_not_asked_for_again(condition, left):
    there = frozenset({Pattern(is_regex=False, data=b"union select"), Pattern(is_regex=False, data=b"union")})
    guards = Guards([rule(condition)], FORMS["nginx"], routed=False)
    absent = frozenset({Pattern(is_regex=False, data=b"other")})
    assert guards.simplified(0, there, absent) == (condition if left is None else left)


def test_in_a_record_it_is_for_it_may_be_a_name():
    there = frozenset({Pattern(is_regex=False, data=b"union select")})
    condition = word("union select")
    assert Guards([rule(condition)], JSON, routed=False).simplified(0, there, frozenset()) == condition


@pytest.mark.skipif(native is None, reason="nobody compiled native/")
@pytest.mark.parametrize(
    ("condition", "line", "may"),
    [
        (has("Image", "/sed"), '{"Image":"/usr/bin/SED","CommandLine":"x"}', True),
        (has("Image", "/sed"), '{"image" : "/usr/bin/sed"}', True),
        (has("Image", "/sed"), '{"Image":"/bin/ls","CommandLine":"/sed"}', False),
        (has("Image", "/sed"), '{"ParentImage":"/sed","Image":"/bin/ls"}', False),
        (has("Image", "/sed"), '{"process.Image":"/sed"}', True),
        (has("Image", "/sed"), '{"x":["Image","/sed"]}', False),
        (has("Image", "/sed"), '{"Image":["/ls","/sed"]}', True),
        (has("Image", "/sed"), '{"Image":{"x":"/sed"}}', True),
        (has("Image", "/sed"), '{"Image":"\\"","y":"/sed"}', False),
        (has("Image", "/sed"), '{"Image":"\\\\","y":"/sed"}', False),
        (has("Image", "/sed"), '{"Image":"\\"/sed"}', True),
        (has("Image", 'a"b\\c'), '{"Image":"xa\\"b\\\\cx"}', True),
        (is_("type", "tty"), '{"type":"tty","b":1}', True),
        (is_("type", "tty"), '{"type":"ttyx","b":"tty"}', False),
        (is_("type", "12"), '{"type":12}', True),
        (Not(has("Image", "/sed")), '{"Image":"/bin/sed"}', True),
        (And((has("a", "x"), has("b", "y"))), '{"a":"y","b":"x"}', False),
        (Or((has("a", "x"), has("b", "y"))), '{"a":"y","b":"y"}', True),
        (FieldTest(field="a", value=Text(pieces=("x", ANY, "z")), text=""), '{"a":"xyz"}', True),
        (FieldTest(field="a", value=Text(pieces=("x", ANY, "z")), text=""), '{"a":"yxz","b":"x"}', False),
        (FieldTest(field="a", value=Text(pieces=("x", None, "z")), text="", also=("p.b",)), '{"p":{"b":"xyz"}}', True),
        (has("message", "kill"), '{"a":"kill"}', True),
    ],
)
def test_compiled_a_field_is_asked_and_no_other(condition, line, may):
    assert let_through(condition, line.encode() + b"\n") is may


@pytest.mark.skipif(native is None, reason="nobody compiled native/")
def test_a_name_that_stands_in_a_line_thousands_of_times_is_not_looked_at_each_time():
    condition = Or(tuple(has("a", f"x{number}") for number in range(200)))
    line = b"{" + b",".join([b'"a":"y"'] * 7_000) + b"}\n"
    begin = time.process_time()
    assert all(let_through(condition, line) for _ in range(20))
    assert time.process_time() - begin < 1
    few = b"{" + b",".join([b'"a":"y"'] * 60) + b"}\n"
    assert not let_through(condition, few)


LITERALS = st.text("abAB", min_size=1, max_size=3).map(lambda text: Pattern(is_regex=False, data=text.lower().encode()))
STRINGS = st.text("ab", max_size=2).map(lambda text: Pattern(is_regex=False, data=f'"{text}"'.encode()))
FIELDS = st.builds(
    FieldTexts,
    st.lists(st.sampled_from([b'a"', b'b"']), min_size=1, max_size=2, unique=True).map(tuple),
    st.sampled_from([b"=", b"<", b">", b"*"]),
    st.text('ab"\\', max_size=2).map(lambda text: text.replace("\\", "\\\\").replace('"', '\\"').encode()),
    st.just(NOTHING),
)
REQUIREMENTS = st.recursive(
    st.builds(
        AnyOf,
        st.frozensets(LITERALS, max_size=3),
        st.frozensets(STRINGS, max_size=2),
        st.frozensets(FIELDS, max_size=3),
    ),
    lambda parts: st.lists(parts, max_size=3).map(tuple).flatmap(lambda few: st.sampled_from([Every(few), Some(few)])),
    max_leaves=6,
)
CODES = st.sampled_from([b"E", b"S", b"A", b"L", b"V", b"F", b"*", b"\0\0", b"\1\0", b"\2\0"])
LINES = st.lists(
    st.sampled_from(
        ["a", "b", "A", "B", '"', ":", ",", " ", "\t", "\x0b", "é", "\\", '"a":"', '"b" :"', 'x.a":', '":']
    ),
    max_size=30,
).map("".join)


def may_pass(field: FieldTexts, low: bytes) -> bool:
    """A value stands behind one of the names that is no whole string, or one that passes."""
    for name in field.names:
        for found in re.finditer(rb'(?<=[".])' + re.escape(name) + rb"\s*:\s*", low):
            value = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL).match(low, found.end())
            if value is None:
                return True
            passed = {
                b"=": value[1] == field.text,
                b"<": value[1].startswith(field.text),
                b">": value[1].endswith(field.text),
                b"*": field.text in value[1],
            }
            if passed[field.test]:
                return True
    return False


def is_met(required: Requirement, line: bytes) -> bool:
    """As the words say it."""
    if isinstance(required, AnyOf):
        low = line.lower()
        return any(one.data in low for one in required.patterns) or any(
            re.search(re.escape(one.data) + rb"\s*[^\s:]", low) for one in required.values
        ) or any(may_pass(field, low) for field in required.fields)  # fmt: skip
    found = [is_met(part, line) for part in required.parts]
    return all(found) if isinstance(required, Every) else any(found)


@pytest.mark.skipif(native is None, reason="nobody compiled native/")
@given(st.lists(REQUIREMENTS, min_size=1, max_size=3), LINES)
@example([AnyOf(frozenset(), frozenset({Pattern(is_regex=False, data=b'"a"')}))], '"a":"a"')
@example([AnyOf(frozenset(), frozenset({Pattern(is_regex=False, data=b'"a"')}))], '"a" ')
def test_compiled_guards_say_what_the_requirement_says(required, line):
    data = line.encode() + b"\n"
    rules = tuple(range(7, 7 + len(required)))
    narrow = native.Narrow(rules, tuple(program(one) for one in required))
    kept = tuple(rule for rule, one in zip(rules, required, strict=True) if is_met(one, data))
    assert narrow(data) == kept
    hits = native.Hits()
    hits.add(1, 0)
    lines, _, dismissed = hits.lines(data, array(WEIGHT, [1]), {0: (rules, narrow)})
    assert (lines, dismissed) == ([(0, len(data), 0, (kept, None))] if kept else [], 0 if kept else 1)


@pytest.mark.skipif(native is None, reason="nobody compiled native/")
@given(
    st.binary(max_size=12)
    | st.lists(st.sampled_from([b"E", b"S", b"A", b"L", b"V", b"F", b"*", b"\0\0", b"\1\0"]), max_size=9).map(b"".join)
)
def test_no_program_that_is_none_is_run(code):
    try:
        narrow = native.Narrow((1,), (code,))
    except ValueError:
        return
    assert narrow(b'"a": 1\n') in {(), (1,)}


@pytest.mark.skipif(native is None, reason="nobody compiled native/")
def test_a_program_is_held_against_its_bounds():
    deep = Every((AnyOf(frozenset({Pattern(is_regex=False, data=b"a")})),))
    for _ in range(60):
        deep = Every((deep,))
    assert program(deep) is None
    assert program(AnyOf(frozenset({Pattern(is_regex=False, data=b"a" * 70_000)}))) is None
    assert program(AnyOf(frozenset({Pattern(is_regex=True, data=b"a")}))) is None
    with pytest.raises(ValueError, match="none"):
        native.Narrow((1,), (b"E\1\0" * 60 + b"A\0\0",))
    with pytest.raises(ValueError, match="2 rules, 1 programs"):
        native.Narrow((1, 2), (b"A\0\0",))
    long_line = b"x" * 100_000 + b"needle\n"
    assert native.Narrow((1,), (b"A\1\0L\6\0needle",))(long_line) == (1,)


@pytest.mark.skipif(native is None, reason="nobody compiled native/")
def test_a_literal_is_found_at_every_place_of_a_line_and_nowhere_else():
    for size in (1, 2, 3, 8, 16, 17, 33):
        wanted = (b"<" + b"-" * (size - 2) + b">") if size > 1 else b"<"
        narrow = native.Narrow((7,), (b"A\1\0L" + size.to_bytes(2, "little") + wanted,))
        torn = wanted.replace(b"-", b"=", 1) if size > 2 else b"-"  # begins and ends alike
        for places in (*range(1, 36), 64, 100):
            for place in range(places):
                before, after = b"-" * place, b"-" * (places - 1 - place)
                assert narrow(before + wanted + after) == (7,), (size, places, place)
                assert narrow(before + torn + after) == (), (size, places, place)
