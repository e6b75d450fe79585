"""What a detection means, feature by feature, and what is refused."""

from __future__ import annotations

import pytest

from breachwatch.detect.explain import explain
from breachwatch.detect.load import load_rules
from breachwatch.detect.reach import unreachable
from breachwatch.detect.reference import matches
from breachwatch.detect.rule import FieldTest, Text
from breachwatch.detect.ruleset import RuleText
from breachwatch.detect.stored import restored, stored
from breachwatch.detect.values import folded
from breachwatch.model import LogSource
from tests.detect.sigma import answers, events_of, loaded, refusals, rule_text

ONE_FIELD = "s:\n  {item}\ncondition: s"


@pytest.mark.parametrize(
    ("item", "yes", "no"),
    [
        ("f: a*c", ["aXc", "A\nC", "ac"], ["acd", "bac"]),
        ("f|endswith: 'p*.doc'", ["x p1.doc", "p.doc"], ["p1.docx"]),
        ("f|endswith: '7?'", ["x71", "71"], ["7"]),
        ("f|startswith: 'sed *x'", ["sed 1x", "sed 1xy"], ["q sed 1x"]),
        (r"f: a\*c", ["a*c"], ["aXc"]),
        (r"f: a\\\\*c", [r"a\\c", r"a\\Xc"], ["aXc"]),
        ("f: a?c", ["abc"], ["ac", "abbc"]),
        ("f|cased: Ab", ["Ab"], ["ab", "AB"]),
        ("f|contains|cased: Ab", ["xAbx"], ["xabx"]),
        ("f|contains|all: [a, b]", ["ba"], ["a"]),
        ("f|re: 'a.c'", ["xabc"], ["ABC", "a\nc"]),
        ("f|re|i: 'a.c'", ["ABC"], ["a\nc"]),
        ("f|re|s: 'a.c'", ["a\nc"], ["A\nc"]),
        ("f|re|m: '^b$'", ["a\nb\nc"], ["ab"]),
        ("f|cidr: 10.0.0.0/8", ["10.1.2.3", "::ffff:10.1.2.3", " 10.1.2.3\n"], ["11.0.0.1", "10.1.2", 167837955]),
        ("f|cidr: '2001:db8::/32'", ["2001:db8::1"], ["2001:db9::1", "10.1.2.3"]),
        ("f|base64: foo", ["Zm9v"], ["foo"]),
        ("f|base64offset|contains: 'http://'", ["xaHR0cDovLx", "yodHRwOi8v", "x2h0dHA6Ly"], ["http://"]),
        ("f|wide|base64offset|contains: ping", ["cABpAG4AZw"], ["cGluZw=="]),
        ("f|windash|contains: ' -e '", ["x -e y", "x /e y", "x \u2013e y"], ["x e y"]),
        ("f|gt: 5", [6, "6", 5.5], [5, "x", None, True]),
        ("f|lte: 5", [5, "-1"], [6, "5x"]),
        ("f|neq: 5", [6, "x"], [5, "5"]),
        ("f: 403", [403, "403", 403.0], [4030, "0403"]),
        ("f: 0", [0, "0", -0.0, 0.0], ["00", "0.0", False, ""]),
        ("f: true", [True, "true", "TRUE"], [False, 1]),
        ("f: ''", [""], [" ", None, 0]),
        ("f: null", [None, [], [None]], ["", 0]),
        ("f|exists: true", ["", 0, None], []),
        ("f|minute: 7", ["2026-01-01T10:07:00Z", 1767262020], ["2026-01-01T07:10:00Z", "x"]),
        ("f|year: 2100", ["2100-01-01T00:00:00Z"], ["1970-01-01T00:00:00Z"]),
        ("f|contains: kill", ["\u212aill", "KILL"], ["ki ll"]),
        ("f|contains: ssh", ["\u017fSH"], ["s sh"]),
        ("f|contains: '\u0394\u03a3'", ["x\u03b4\u03c2x", "\u03b4\u03c3"], ["\u03b4"]),
        ("f: [a, 1]", ["A", 1, ["x", "a"], [["a"]]], ["b", [], {"a": 1}]),
    ],
)
def test_an_item_finds_these_values_and_not_those(item, yes, no):
    found = answers(ONE_FIELD.format(item=item), *({"f": value} for value in [*yes, *no]))
    assert found == [True] * len(yes) + [False] * len(no)


def test_a_missing_field_matches_only_null_and_exists_false():
    assert answers("s:\n  f: null\ncondition: s", {}) == [True]
    assert answers("s:\n  f|exists: false\ncondition: s", {}, {"f": None}) == [True, False]
    assert answers("s:\n  f: ''\ncondition: s", {}) == [False]
    assert answers("s:\n  f: '*'\ncondition: s", {}, {"f": ""}) == [False, True]


def test_nested_fields_and_members_of_lists_are_reached_by_dots():
    records: list[dict[str, object]] = [
        {"a": {"b": "x"}},
        {"a.b": "x"},
        {"a": [{"b": "y"}, {"b": ["x"]}]},
        {"a": {"c": "x"}},
    ]
    assert answers("s:\n  a.b: x\ncondition: s", *records) == [True, True, True, False]
    partly: list[dict[str, object]] = [{"a": {"b.c": "x"}}, {"a.b": {"c": "x"}}, {"a": {"b": {"c": "x"}}}]
    assert answers("s:\n  a.b.c: x\ncondition: s", *partly) == [True, True, True]


def test_a_reference_compares_two_fields():
    detection = "s:\n  f|fieldref|startswith: g\ncondition: s"
    assert answers(detection, {"f": "Abc", "g": "aB"}, {"f": "bab", "g": "ab"}, {"f": "a"}) == [True, False, False]
    same = "s:\n  f|fieldref: g\ncondition: s"
    assert answers(same, {"f": "", "g": ""}, {"f": None, "g": None}, {}) == [True, False, False]


def test_conditions_combine_selections():
    detection = "s1:\n  f: 1\ns2:\n  g: 1\n_x:\n  h: 1\ncondition: {}"
    both, one, hidden = {"f": 1, "g": 1}, {"f": 1}, {"h": 1}
    assert answers(detection.format("1 of them"), both, one, hidden) == [True, True, False]
    assert answers(detection.format("all of s*"), both, one, hidden) == [True, False, False]
    assert answers(detection.format("s1 and not (s2 or _x)"), both, one, hidden) == [False, True, False]


def test_keywords_search_the_line_or_the_values_of_a_record():
    detection = "s:\n  '|all':\n    - one\n    - two\ncondition: s"
    assert answers(detection, {"a": "x ONE", "b": ["two"]}, {"one": "two"}, {"a": "one"}) == [True, False, False]
    line = "Jan  5 10:00:00 web01 sshd[7]: one and two"
    assert answers(detection, line, log_format="syslog") == [True]


@pytest.mark.parametrize(
    "item",
    [
        "f|cidr|contains: 10.0.0.0/8",
        "f|i: a",
        "f|gt|lt: 1",
        "f|exists|contains: true",
        "f|nonsense: a",
        "f|gt: x",
        "f|cidr: x",
        "f|re: '('",
        "f|expand: '%nobody%'",
    ],
)
def test_an_item_that_makes_no_sense_is_refused_with_file_and_line(item):
    (reason,) = refusals(rule_text(ONE_FIELD.format(item=item)))
    assert reason.startswith("0.yml:")
    assert "rule 't'" in reason


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("condition: s", "condition: s and nobody"),
        ("condition: s", "condition: 1 of"),
        ("id: 11111111-1111-4111-8111-111111111111", "id: x"),
        ("title: t", "title: t\ndate: soon"),
        ("title: t", "title: t\nlevel: huge"),
        ("detection:", "detections:"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_and_its_neighbour_loads(old, new):
    broken = rule_text("s:\n  f: 1\ncondition: s").replace(old, new)
    fine = rule_text("s:\n  f: 1\ncondition: s", rule_id="22222222-2222-4222-8222-222222222222")
    rules = load_rules([RuleText("broken.yml", broken), RuleText("fine.yml", fine)])
    assert [rule.ref.id for rule in rules.rules] == ["22222222-2222-4222-8222-222222222222"]
    assert len(rules.refused) == 1


def test_placeholders_take_the_configured_values():
    text = rule_text("s:\n  f|expand: 'x%who%'\ncondition: s")
    rules = load_rules([RuleText("x.yml", text)], {"who": ("ann", "bob")})
    first, second, third = events_of([{"f": "xann"}, {"f": "XBOB"}, {"f": "x%who%"}])
    assert [matches(rules.rules[0], event) for event in (first, second, third)] == [True, True, False]


def test_a_global_document_reaches_the_ones_below_until_reset():
    text = (
        "action: global\nlogsource: {product: linux}\nlevel: high\n---\n"
        + rule_text("s:\n  f: 1\ncondition: s").replace("logsource:\n  product: linux\n", "")
        + "---\naction: reset\n---\n"
        + rule_text("s:\n  f: 2\ncondition: s", rule_id="22222222-2222-4222-8222-222222222222")
    )
    first, second = loaded(text).rules
    assert (first.logsource.product, str(first.ref.level), str(second.ref.level)) == ("linux", "high", "medium")


def test_a_filter_narrows_the_rules_it_names():
    narrowing = (
        "title: not ann\nlogsource:\n  product: linux\nfilter:\n  rules:\n    - 11111111-1111-4111-8111-111111111111\n"
        "  ann:\n    user: ann\n  condition: not ann\n"
    )
    rules = loaded(rule_text("s:\n  f: 1\ncondition: s"), narrowing)
    events = events_of([{"f": 1, "user": "ann"}, {"f": 1, "user": "bob"}])
    assert [matches(rules.rules[0], event) for event in events] == [False, True]


WEB_RULE = """title: t
id: 11111111-1111-4111-8111-111111111111
logsource:
  category: webserver
detection:
  s:
    cs-method: GET
    c-uri|contains: '/x?id='
    cs-uri-query: id=1
    sc-status: 200
    cs-user-agent|startswith: curl
    c-ip|cidr: 203.0.113.0/24
  condition: s
"""


def test_names_of_the_taxonomy_find_the_fields_of_our_own_parsers():
    line = '203.0.113.7 - - [01/Jan/2026:00:00:00 +0000] "GET /x?id=1 HTTP/1.1" 200 512 "-" "curl/8"'
    (rule,) = loaded(WEB_RULE).rules
    for event in events_of([line, line.replace("GET", "PUT")], "nginx"):
        assert matches(rule, event) is ("GET" in event.raw)


def test_a_field_of_the_rules_own_name_comes_before_ours():
    (rule,) = loaded(WEB_RULE.replace("    c-ip|cidr: 203.0.113.0/24\n", "")).rules
    own = {"cs-method": "GET", "c-uri": "/x?id=1", "cs-uri-query": "id=1", "sc-status": "200", "cs-user-agent": "curl"}
    first, second = events_of([own, {**own, "cs-method": "PUT", "http.request.method": "GET"}])
    assert (matches(rule, first), matches(rule, second)) == (True, False)


def test_stored_rules_are_the_same_rules():
    everything = rule_text(
        "s1:\n  f|re|i: 'a+'\n  g|cidr: 10.0.0.0/8\ns2:\n  h|gt: 3\n  i: null\n  j|exists: false\n  k|fieldref: l\n"
        "s3:\n  - word\ns4:\n  m|hour: 3\n  n: 7\n  o: true\ncondition: s1 and not s2 or s3 or s4"
    )
    rules = load_rules([RuleText("x.yml", everything), RuleText("broken.yml", "a")])
    again = restored(stored(rules, "key"), "key")
    assert again is not None
    assert (again.rules, again.correlations, again.fingerprint) == (rules.rules, rules.correlations, rules.fingerprint)
    assert [str(error) for error in again.refused] == [str(error) for error in rules.refused]
    assert restored(stored(rules, "key"), "other key") is None
    assert restored(b"\x93junk", "key") is None


def test_an_explanation_shows_each_condition_and_what_the_event_has_there():
    (rule,) = loaded(rule_text("s:\n  f: ann\n  g|re: '^b'\nn:\n  h: 1\ncondition: s and not n")).rules
    (event,) = events_of([{"f": "Ann", "g": "xb"}])
    told = [(step.holds, step.text, step.found) for step in explain(rule.condition, event)]
    assert (True, "f: ann", "f = 'Ann'") in told
    assert (False, "g|re: ^b", "g = 'xb'") in told
    assert (False, "h: 1", "no field h") in told
    assert told[0][0] is False


def test_a_rule_without_a_source_is_named():
    rules = loaded(rule_text("s:\n  f: 1\ncondition: s"), WEB_RULE.replace("11111111", "22222222"))
    (lost,) = unreachable(rules, [LogSource("linux", "", "sshd")])
    assert lost.rule.ref.id.startswith("22222222")
    assert lost.reason == "no source makes events of category webserver"


def test_leaves_hold_data_and_folding_has_one_place():
    (rule,) = loaded(rule_text("s:\n  f: Ann\ncondition: s")).rules
    assert isinstance(rule.condition, FieldTest)
    assert rule.condition.value == Text(("Ann",))
    assert folded("\u212a\u017f\u03a3") == folded("ks\u03c2") == "ks\u03c3"
