"""Compiled code recalls what the parts of access lines say, and the words of plain records, and nothing else."""

from __future__ import annotations

import json
import random
from array import array
from typing import Any

import pytest

from breachwatch.detect.hits import WEIGHT
from breachwatch.detect.plan import Plan, Scope, _Unasked
from breachwatch.detect.predicate import plain_texts
from breachwatch.detect.rule import OWN_PREFIXES, Keyword, Rule, Text
from breachwatch.detect.values import ANY
from breachwatch.model import LogSource, RuleRef
from breachwatch.model.passes import native
from breachwatch.parse.rawform import FORMS
from breachwatch.parse.web import plain_parts

pytestmark = pytest.mark.skipif(native is None, reason="nobody compiled native/")

LINE = b'203.0.113.7 - - [17/May/2025:10:05:03 +0000] "GET /a?%b HTTP/1.1" 200 5 "-" "%b"'
QUERY, AGENT = 1 << 5, 1 << 10


def recalled(remembered: object, line: bytes) -> Any:
    """What `Hits.lines` says of a line with one hit."""
    hits = native.Hits()
    hits.add(1, 0)
    lines, _, dismissed = hits.lines(line, array(WEIGHT, [1]), {0: ((3, 4), remembered)})
    return lines[0][3] if lines else f"{dismissed} dismissed"


def test_lines_with_known_parts_are_judged_and_the_others_left():
    table = {("evil", "curl"): (4,), ("good", "curl"): ()}
    remembered = native.Remembered(QUERY | AGENT, table)
    for end in (b"", b"\n", b"\r\n", b"\r\r\n"):
        assert recalled(remembered, LINE % (b"evil", b"curl") + end) == ((4,), True)
        assert recalled(remembered, LINE % (b"good", b"curl") + end) == "1 dismissed"
        assert recalled(remembered, LINE % (b"evil", b"wget") + end) == ((3, 4), remembered)
        assert recalled(remembered, LINE % (b"evil", b"\xff") + end) == ((3, 4), remembered)
        assert recalled(remembered, b"GET /a?evil" + end) == ((3, 4), remembered)
    assert remembered.times == 8
    table.clear()
    assert recalled(remembered, LINE % (b"evil", b"curl")) == ((3, 4), remembered)


def test_known_lines_are_counted_where_somebody_counts():
    remembered = native.Remembered(QUERY, {("evil",): (4,), ("good",): (), ("bad",): (3, 4)})
    queries = [b"evil", b"good", b"other", b"bad", b"evil"]
    lines = [LINE % (query, b"curl") + b"\n" for query in queries]
    hits, tally = native.Hits(), {(4,): 7}
    for number in range(len(lines)):
        hits.add(sum(map(len, lines[:number])) + 1, 0)
    known = {0: ((3, 4), remembered)}
    found, _, dismissed = hits.lines(b"".join(lines), array(WEIGHT, [1]), known, tally)
    assert (tally, dismissed) == ({(4,): 9, (3, 4): 1}, 1)
    assert [(start, entry) for start, _, _, entry in found] == [(len(lines[0] + lines[1]), known[0])]
    for wrong in ("", 1):
        with pytest.raises(TypeError):
            hits.lines(b"a\n", array(WEIGHT, [1]), known, wrong)


def test_any_line_is_known_by_the_parts_that_python_finds():
    draw = random.Random(5)
    for _ in range(20_000):
        line = bytearray(LINE % (draw.choice((b"evil", b"")), draw.choice((b"curl", b"\xc3\xa9"))))
        for _ in range(draw.choice((0, 0, 1, 2))):
            line[draw.randrange(len(line))] = draw.choice(b' "?]-\\[/0aG\r\x80')
        wanted = draw.randrange(1, 1 << 12)
        try:
            parts = plain_parts(bytes(line).decode().rstrip("\r\n"), wanted)
        except UnicodeDecodeError:
            parts = None
        known = {parts or ("none",): (7,)}
        expected = ((7,), True) if parts else ((3, 4),)
        assert recalled(native.Remembered(wanted, known), bytes(line) + b"\n")[: len(expected)] == expected, line


@pytest.mark.parametrize("given", [(), (1,), (1, []), ("x", {}), (1, {}, 2)])
def test_nothing_else_is_taken(given):
    with pytest.raises((TypeError, OverflowError)):
        native.Remembered(*given)


def test_records_with_known_words_are_judged_and_the_others_left():
    table = {0b01: (4,), 0b11: (3, 4), 0: ()}
    keywords = native.Keywords(("log.", "host.name"), 100, (b"evil", b"good"), table)
    for end in (b"\n", b"\r\n", b" \t\n"):
        assert recalled(keywords, b'{"m":"so EVIL"}' + end) == ((4,), True)
        assert recalled(keywords, b'{"m":"good","n":1,"o":"evil"}' + end) == ((3, 4), True)
        for other in (b"{}", b'{"evil":"x"}', b'{"log.x":"evil"}', b'{"m":"ev","n":"il"}', b'{"m":"ev\\\\il"}'):
            assert recalled(keywords, other + end) == "1 dismissed", other
        for unknown in (
            b'{"m":"good"}', b'{"m":["evil"]}', b'{"m":"evil\\u0020"}', b'{"m":"evil"', b"evil",
            b'{"m":"evil","m":"x"}', b"", b'{"m":"evil \xc3\xa9"}', b'{"m":"%b"}' % (101 * b"x"),
            b'{"m":"evil"%b}' % (4096 * b" "), b'{"m":"evil\x00"}',
        ):  # fmt: skip
            assert recalled(keywords, unknown + end) == ((3, 4), keywords), unknown
    assert recalled(keywords, b'{"m":"evil"}') == ((3, 4), keywords), "nothing shows where the line ends"
    table.clear()
    assert recalled(keywords, b'{"m":"evil"}\n') == ((3, 4), keywords)


def test_known_words_are_counted_where_somebody_counts():
    lines = [b'{"m":"%b"}\n' % word for word in (b"evil", b"good", b"none", b"evil")]
    keywords = native.Keywords((), 100, (b"evil", b"good"), {0b01: (4,), 0: ()})
    hits, tally = native.Hits(), {(4,): 7}
    for number in range(len(lines)):
        hits.add(sum(map(len, lines[:number])) + 1, 0)
    found, _, dismissed = hits.lines(b"".join(lines), array(WEIGHT, [1]), {0: ((3, 4), keywords)}, tally)
    assert (tally, dismissed) == ({(4,): 9}, 1)
    assert [start for start, *_ in found] == [len(lines[0])]


def test_words_are_in_a_record_if_they_are_in_its_texts():
    draw = random.Random(6)
    words = ("evil", "vil", "1", "true", "x e", '"', "\u00e9")
    keywords = native.Keywords(OWN_PREFIXES, 99, tuple(word.encode() for word in words), {})
    values = ("EVIL", "vi", "l", 1, -11, True, None, "x evil", '"', "\\", "\u00e9", "x" * 100)
    plain = 0
    for _ in range(20_000):
        names = draw.sample(("a", "evil", "log.a", "host.name", "host"), draw.randrange(4))
        line = json.dumps({name: draw.choice(values) for name in names}, ensure_ascii=draw.random() < 0.5).encode()
        held, texts = keywords.held(line), plain_texts(line)
        if texts is None or b"x" * 100 in line:
            assert held is None, line
        else:
            plain += 1
            assert [word for place, word in enumerate(words) if held >> place & 1] == [
                word for word in words if word in texts
            ], line
    assert plain > 5_000


@pytest.mark.parametrize(
    "given",
    [
        (), ((), 1, ()), ([], 1, (), {}), ((), "", (), {}), ((), 1, [], {}), ((), 1, (), []), ((), 1, ("a",), {}),
        ((), 1, (b"",), {}), ((), 1, (b"a",) * 33, {}),
    ],
)  # fmt: skip
def test_keywords_takes_nothing_else(given):
    with pytest.raises(TypeError):
        native.Keywords(*given)
    with pytest.raises(TypeError):
        native.Keywords((), 1, (b"a",), {}).held("a")
    with pytest.raises(TypeError):
        native.Keywords((), 1, (b"a",), table={})


def test_words_that_decide_are_asked_instead_of_what_dismisses_some_rules():
    wanted = Rule(
        ref=RuleRef(id="r", title="t"),
        logsource=LogSource(),
        condition=Keyword(Text((ANY, "evil", ANY)), "evil"),
        source="t",
    )
    plan = Plan([wanted] * 3, FORMS["json"], Scope(any_logsource=True), backend="ahocorasick_rs")
    keywords, parts = native.Keywords(("log.",), 99, (b"evil",), {}), native.Remembered(QUERY, {})
    asks, waits = (lambda _line: (1, 2)), _Unasked(plan, 7, (1, 2), 9)
    for before, rules, remembered, is_asked in (
        (None, (1, 2), keywords, True), (None, (1, 2), parts, True), (parts, (1, 2), keywords, True),
        (asks, (1, 2), keywords, True), (asks, (1, 2), parts, False), (waits, (1, 2), keywords, False),
        (asks, (1,), keywords, False), (None, (1,), keywords, False),
    ):  # fmt: skip
        plan._sets[7] = (1, 2), before
        plan.remember(7, rules, remembered)
        assert plan._sets[7] == ((1, 2), remembered if is_asked else before)
