"""Access lines judged from their parts: as the reference does, with a memory that nobody can make large."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from breachwatch.app.pipeline import Pipeline, SourceFormat
from breachwatch.detect import partial, plan, verdicts
from breachwatch.detect.engine import Detector
from breachwatch.detect.partial import PartsProgram, Programs, WordsProgram
from breachwatch.detect.plan import Plan, Scope
from breachwatch.detect.rule import And, Condition, FieldTest, Keyword, Not, Or, Rule
from breachwatch.detect.ruleset import RuleSet
from breachwatch.detect.sample import Sampler
from breachwatch.detect.values import ANY, Text
from breachwatch.detect.verdicts import REST, Verdicts
from breachwatch.model import Block, Level, LogSource, RuleRef
from breachwatch.model.passes import native
from breachwatch.parse.rawform import FORMS
from tests.detect.sigma import REFERENCE

NGINX = LogSource("nginx", "webserver", "")


def holds(field: str, text: str) -> FieldTest:
    return FieldTest(field=field, value=Text(pieces=(ANY, text, ANY)), text="")


def word(text: str) -> Keyword:
    return Keyword(value=Text(pieces=(ANY, text, ANY)), text=text)


def rule(condition: Condition, name: str = "r") -> Rule:
    return Rule(ref=RuleRef(id=name, title=name, level=Level.LOW), logsource=NGINX, condition=condition, source="t")


def line(query: str = "x=1", agent: str = "curl", size: int = 1) -> bytes:
    return f'203.0.113.7 - - [17/May/2025:10:05:03 +0000] "GET /a?{query} HTTP/1.1" 200 {size} "-" "{agent}"'.encode()


def program(condition: Condition) -> PartsProgram:
    made = Programs([rule(condition)], FORMS["nginx"])._made((0,), None)
    assert isinstance(made, PartsProgram)
    return made


def test_lines_with_the_same_parts_are_judged_once(monkeypatch):
    judged = program(And((holds("url.query", "evil"), Not(holds("user_agent.original", "nagios")))))
    assert judged.matching(line("evil=1")) == (0,)
    monkeypatch.setattr(judged, "_found", lambda *_: pytest.fail("judged again"))
    assert judged.matching(line("evil=1", size=77)) == (0,)


def test_what_differs_in_a_part_that_is_read_is_judged_anew():
    judged = program(And((holds("url.query", "evil"), Not(holds("user_agent.original", "nagios")))))
    answers = [judged.matching(line(query, agent)) for query in ("evil", "good") for agent in ("curl", "nagios")]
    assert answers * 2 == [(0,), (), (), ()] * 2
    assert judged.matching(line("evil", "nagios")) == ()


def some_lines(draw: random.Random, count: int) -> list[bytes]:
    """Lines that share their parts, among odd ones."""
    made = []
    for number in range(count):
        text = line(draw.choice(("evil=1", "good=1", "x=EVIL", "x")), draw.choice(("curl", "nagios", "Evil")), number)
        if draw.random() < 0.2:
            odd = draw.choice((b"evil\r", b"\xc3\xa9vil", b"\xff evil", b"%65vil", b"evil\0", "\u212a evil".encode()))
            text = draw.choice((text + odd, text.replace(b"GET", odd), text.replace(b"?", b"?" + odd), odd))
        made.append(text + b"\n")
    return made


def some_condition(draw: random.Random) -> Condition:
    """About what a line tells without a parser."""
    field = draw.choice(("url.query", "user_agent.original", "url.original"))
    found = holds(field, draw.choice(("evil", "good", "nagios", "vil")))
    other = draw.choice((Not(holds("user_agent.original", "nagios")), holds("http.request.method", "ge"), found))
    return draw.choice((found, And((found, other)), Or((found, holds("url.query", "good")))))


def test_what_is_remembered_is_what_the_reference_says(monkeypatch):
    remembered = []
    remember = Plan.remember

    def noted(self, hit, rules, found):
        remembered.append(found)
        remember(self, hit, rules, found)

    monkeypatch.setattr(Plan, "remember", noted)
    how, lines = SourceFormat(format="nginx"), 0
    for seed in range(12):
        draw = random.Random(seed)
        rules = RuleSet(rules=tuple(rule(some_condition(draw), f"r{number}") for number in range(draw.randint(1, 5))))
        parts = [some_lines(draw, 150) for _ in range(8)]
        blocks = [Block(source="x", data=b"".join(part), offset=n, generation="g") for n, part in enumerate(parts)]
        fast, counting, slow = (
            Pipeline(host="h", detector=Detector(rules), now=lambda: REFERENCE, prefilter=prefilter, sampler=Sampler(0))
            for prefilter in (True, True, False)
        )
        for block in blocks:
            right = [(event.id, match.id) for event, matches in slow.matches(block, how) for match in matches]
            assert [(event.id, one.id) for event, matches in fast.matches(block, how) for one in matches] == right
            assert counting.tally(block, how).total() == len(right)
        lines += sum(map(len, parts))
    if native is not None:
        assert sum(one.times for one in set(remembered)) > lines // 4


def some_records(draw: random.Random, count: int) -> list[bytes]:
    """Lines of JSON, plain ones and others."""
    values = (
        "evil",
        "x EVIL",
        "good",
        "vil",
        "e vil",
        "\u212a",
        "nagios\n",
        7,
        None,
        True,
        ["evil"],
        {"evil": "good"},
        "\u017f",
    )
    made = []
    for _ in range(count):
        names = draw.sample(("a", "evil", "host.name", "log.x", "message"), draw.randrange(1, 4))
        text = json.dumps({name: draw.choice(values) for name in names}, ensure_ascii=draw.random() < 0.5)
        if draw.random() < 0.2:
            odd = draw.choice(('"evil"', '"good":1', " ", "\\u0065vil", "evil", "}", '"a":"x"', "K", "\r"))
            place = draw.randrange(len(text))
            text = text[:place] + odd + text[place:]
        made.append(text.encode() + b"\n")
    return made


def some_words(draw: random.Random, depth: int = 0) -> Condition:
    """About nothing but words, nearly always."""
    if depth == 2 or draw.random() < 0.4:
        text = draw.choice(("evil", "good", "vil", "EVIL", "nagios", "k", "s", "7", "tru", "\u00e9", "l\0"))
        if draw.random() < 0.1:
            return Keyword(value=Text(pieces=(ANY, text, ANY), cased=True), text=text)
        return word(text)
    parts = tuple(some_words(draw, depth + 1) for _ in range(draw.randint(1, 3)))
    return draw.choice((And(parts), Or(parts), Or(parts), Not(parts[0])))


@pytest.mark.parametrize(("most_words", "most_known"), [(32, 256), (2, 1)])
def test_rules_about_words_are_judged_as_the_reference_judges_them(monkeypatch, most_words, most_known):
    made: list[WordsProgram] = []

    class Noted(WordsProgram):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            made.append(self)

    for name, value in (("WORTH_IT_JSON", 8), ("HOT", 20), ("MAX_WORDS", most_words), ("MAX_KNOWN", most_known)):
        monkeypatch.setattr(partial, name, value)
    monkeypatch.setattr(partial, "WordsProgram", Noted)
    how = SourceFormat(format="json")
    for seed in range(12):
        draw = random.Random(seed)
        rules = RuleSet(rules=tuple(rule(some_words(draw), f"r{number}") for number in range(draw.randint(1, 5))))
        blocks = [Block(source="x", data=b"".join(some_records(draw, 150)), offset=n, generation="g") for n in range(8)]
        fast, counting, slow = (
            Pipeline(
                host="h", detector=Detector(rules, any_logsource=True), now=lambda: REFERENCE, prefilter=prefilter,
                sampler=Sampler(0),
            )
            for prefilter in (True, True, False)
        )  # fmt: skip
        for block in blocks:
            right = [(event.id, match.id) for event, matches in slow.matches(block, how) for match in matches]
            assert [(event.id, one.id) for event, matches in fast.matches(block, how) for one in matches] == right
            assert counting.tally(block, how).total() == len(right)
    if native is not None:
        assert len(made) > 10
        assert all(0 < len(one._words) <= most_words and 0 < len(one._known) <= most_known for one in made)


def test_what_is_remembered_is_forgotten_when_there_is_no_more_room(monkeypatch):
    monkeypatch.setattr(partial, "MAX_PROGRAMS", 3)
    rules = [rule(holds("url.query", "evil")) for _ in range(9)]
    programs, made = Programs(rules, FORMS["nginx"]), Plan(rules, FORMS["nginx"], Scope())
    tables = []
    for number in range(9):
        for _ in range(partial.WORTH_IT + 1):
            programs.judged((number,), number, line("evil"), made)
        latest = programs._combinations[number,].general
        assert isinstance(latest, PartsProgram)
        tables.append(latest._memory.known if latest._memory else {})
        assert sum(map(len, tables)) <= 3


def test_values_that_are_equal_and_not_the_same_are_told_apart():
    def equals(text: str) -> FieldTest:
        return FieldTest(field="x", value=Text(pieces=(text,)), text="")

    rules = [rule(equals("1"), "one"), rule(equals("true"), "true"), rule(And((equals("1"), word("y"))), "whole")]
    judged = Programs(rules, FORMS["json"])._made((0, 1, 2), None)
    assert judged is not None
    values = {
        b"1": (0,),
        b"true": (1,),
        b'"1"': (0,),
        b"1.0": (0,),
        b'"TRUE"': (1,),
        b"false": (),
        b"null": (),
        b"[]": (),
    }
    for _ in range(3):
        for value, right in values.items():
            assert judged.matching(b'{"x":%b}' % value) in (right, None), value
            assert judged.matching(b'{"z":"y","x":%b}' % value) in ((*right, 2) if 0 in right else right, None), value
    assert judged.matching(b'{"x":1}') == (0,)
    assert judged.matching(b'{"x":1,"z":"Y"}') == (0, 2)


def test_keywords_depend_on_more_than_the_parts():
    judged = program(And((holds("url.query", "evil"), word("203.0.113.7"))))
    assert judged.matching(line("evil")) == (0,)
    assert judged.matching(line("evil").replace(b"203.0.113.7", b"203.0.113.8")) == ()


def test_a_line_of_another_shape_is_left_to_the_reference():
    assert program(holds("url.query", "evil")).matching(b"2025/05/17 10:05:03 [error] 1#0: *1 evil") is None


def test_a_rule_about_what_the_line_does_not_tell_gets_no_code():
    for field in ("source.ip", "log.file.path", "host.name", "event.outcome", "@timestamp"):
        assert Programs([rule(holds(field, "x"))], FORMS["nginx"])._made((0,), None) is None


def test_verdicts_take_bounded_room(monkeypatch):
    monkeypatch.setattr(verdicts, "MAX_VERDICTS_BYTES", 10_000)
    kept, tables = Verdicts(), []
    for _ in range(3):
        tables.append(kept.table())
        for number in range(500):
            kept.keep(tables[-1], (f"{number:050}",), ())
            assert sum(map(len, tables)) * 350 <= 10_000
    kept.keep(tables[0], ("x" * 5_000,), ())
    assert ("x" * 5_000,) not in tables[0]


def test_parts_that_never_come_again_are_no_longer_remembered():
    judged = program(holds("url.query", "evil"))
    for number in range(REST + 1):
        assert judged.matching(line(f"n={number}")) == ()
    assert judged._memory is None
    assert judged.matching(line("evil")) == (0,)


def test_combinations_that_match_anyway_are_not_asked_about(monkeypatch):
    asked: list[object] = []
    ask = Plan.ask

    def noted(self, hit, rules, seen):
        asked.append(hit)
        return ask(self, hit, rules, seen)

    monkeypatch.setattr(Plan, "ask", noted)
    for verdict, times in (((0,), 0), ((), 1)):
        asked.clear()
        made = Plan([rule(word("evil"))], FORMS["nginx"], Scope())
        for lines in (plan.WORTH_IT // 2, 2 * plan.WORTH_IT, 2 * plan.WORTH_IT):
            made.look((line("evil") + b"\n") * lines, lambda *_, verdict=verdict: verdict)
        assert len(asked) == times


def test_a_parser_holds_no_block_once_it_was_read():
    work = Pipeline(
        host="h", detector=Detector(RuleSet(rules=(rule(word("evil")),))), now=lambda: REFERENCE,
        sampler=Sampler(every=0),
    )  # fmt: skip
    how = SourceFormat(format="nginx")
    assert list(work.matches(Block(source="x", data=(line() + b"\n") * 9, generation="g"), how)) == []
    (parser,) = work._parsers.values()
    assert parser.memory.is_whole
    assert parser.memory._catch_up is None


def test_lines_that_no_code_is_for_yet_do_not_keep_the_others_from_being_judged():
    rules = [rule(holds("url.query", "evil")) for _ in range(200)]
    programs = Programs(rules, FORMS["nginx"])
    made = Plan(rules, FORMS["nginx"], Scope())
    for number in range(1, 200):
        assert programs.judged((number,), number, line(), made) is None
    for _ in range(partial.WORTH_IT - 1):
        assert programs.judged((0,), 0, line("evil"), made) is None
    assert programs.judged((0,), 0, line("evil"), made) == (0,)
