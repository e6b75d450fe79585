"""Rules are read as pySigma reads them, though most of them by a shorter way."""

from __future__ import annotations

import gc
from datetime import date
from random import Random
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from breachwatch.app import rule_cache
from breachwatch.detect import load
from breachwatch.detect.load import load_rules
from breachwatch.detect.ruleset import RuleText
from breachwatch.detect.stored import restored, stored

RULE = """title: A rule
id: 00000000-0000-4000-8000-0000000000{number:02}
logsource: {{product: linux}}
detection:
  one:
    a: [x, y]
    b|contains: z
  two:
    - c: 1
    - d|re: e+
  condition: one or not two
"""

TROUBLE = (
    "title: x",
    "title: x\nlogsource: {product: linux}",
    "title: x\nlogsource: linux\ndetection: {a: {b: c}, condition: a}",
    "title: x\nlogsource: {product: linux}\ndetection: [a]",
    "title: x\nlogsource: {product: linux}\ndetection: {a: {b: c}}",
    "title: x\nlogsource: {product: linux}\ndetection: {a: {}, condition: a}",
    "title: x\nlogsource: {product: linux}\ndetection: {a: {b|no: c}, condition: a}",
    "title: x\nid: no\nlogsource: {product: linux}\ndetection: {a: {b: c}, condition: a}",
    "title: x\nlevel: worst\nlogsource: {product: linux}\ndetection: {a: {b: c}, condition: a}",
    "title: x\ndate: yesterday\nlogsource: {product: linux}\ndetection: {a: {b: c}, condition: a}",
    "title: x\naction: jump\nlogsource: {product: linux}\ndetection: {a: {b: c}, condition: a}",
    "title: x\nlogsource: {product: linux}\ndetection: {a: {b: c}, condition: a and}",
    "title: x\nlogsource: {product: linux}\ndetection: {a: {b: c}, condition: a | count() > 1}",
    "title: x\ntitle: y\nlogsource: {product: linux}\ndetection: {a: {b: c}, condition: a}",
    "title: x\nlogsource: {product: linux}\ndetection: {a: {b: c, b: d}, condition: a}",
    "title: x\n1: y\n1: z\nlogsource: {product: linux}\ndetection: {a: {b: c}, condition: a}",
    "title: x\ncorrelation: {type: event_count}",
    "title: x\nfilter: {rules: any}\nlogsource: {product: linux}",
    "title: !!python/name:os.system x\nlogsource: {product: linux}\ndetection: {a: {b: c}, condition: a}",
)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.dates(),
    st.text(max_size=8),
    st.binary(max_size=4),
)
contents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=4),
    max_leaves=20,
)


ODD: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, 10**400, float("inf"), float("nan"), "", "x", "*", "?", "\\", "%y%", "a|b", "\0", b"x",
    [], {}, [[]], [{}], [None], {"a": {}}, {"": ""}, date(2024, 1, 1), "1 of", "not", "1 of them", "any of x*", "(",
    ")", "a and (b", "2024-13-45", "10.0.0.0/99", "[a-", "(?P<", "5x", "-5m", "99999999999m", "attack.",
    "C", ["one", "one"],
)  # fmt: skip
NAMES: tuple[Any, ...] = (
    None, 1, True, "", "a", "|all", "a|nope", "a|re", "a|cidr", "a|contains|all", "a|contains|re", "a|fieldref",
    "a|exists", "a|lt", "a|base64", "a|utf16le|base64offset|contains", "a|hour", "a|neq", "condition", "timeframe",
    "action", "correlation", "filter", "detection", "rules", "generate", "type", "group-by",
)  # fmt: skip
EVERYTHING = """
title: A
id: 00000000-0000-4000-8000-000000000001
name: one
status: test
level: low
date: 2024-01-01
tags: [attack.t1059]
related: [{id: 00000000-0000-4000-8000-000000000002, type: derived}]
logsource: {product: linux, category: process_creation}
detection:
  one: {a: [x, y], b|contains|all: [z, w], c|re: e+, d|cidr: 10.0.0.0/8, e|exists: true, f|gte: 3,
    g|base64offset|contains: abc, h|fieldref: a, i|expand: '%x%', j|minute: 3, k|windash: -a, l: null, m: ''}
  two: [k1, k2]
  three: [{a: 1}, {b: 2}]
  condition: one or not two and 1 of th*
breachwatch: {group_by: [a], within: 1h, opens_incident: true}
---
title: C
id: 00000000-0000-4000-8000-000000000003
correlation:
  {type: value_count, rules: [one], group-by: [a], timespan: 5m, aliases: {u: {one: a}}, condition: {gte: 2, field: b}}
---
title: F
id: 00000000-0000-4000-8000-000000000004
logsource: {product: linux}
filter: {rules: any, sel: {a: b}, condition: not sel}
"""


@given(random=st.randoms(use_true_random=False))
def test_whatever_is_wrong_with_one_rule_the_others_are_read(random):
    """Correlations and filters count as rules: a filter that makes no sense is refused, not what it is about.

    And what is read can be kept.
    """
    whole = list(yaml.safe_load_all(EVERYTHING))
    texts = [RuleText(f"{one['title']}.yml", yaml.dump(mangled(one, random))) for one in whole]
    good = RuleText(
        "good.yml", yaml.safe_dump({**whole[0], "id": "00000000-0000-4000-8000-0000000000ff", "name": "good"})
    )
    found = load_rules([*texts, good], {"x": ("v",)})
    again = restored(stored(found, "key"), "key")
    assert again is not None
    assert (again.rules, again.correlations) == (found.rules, found.correlations)
    assert [rule.ref.id for rule in found.rules if rule.source == "good.yml:1"] == [
        "00000000-0000-4000-8000-0000000000ff"
    ]


def mangled(content: Any, random: Random) -> Any:
    """The same with some of its parts replaced, renamed or missing."""
    if isinstance(content, list):
        return [mangled(item, random) if random.random() > 0.03 else random.choice(ODD) for item in content]
    if not isinstance(content, dict):
        return random.choice(ODD) if random.random() < 0.01 else content
    made = {}
    for name, value in content.items():
        luck = random.random()
        if luck < 0.02:
            made[name] = random.choice(ODD)
        elif luck < 0.03:
            made[random.choice(NAMES)] = value
        elif luck < 0.99:
            made[name] = mangled(value, random)
    if random.random() < 0.03:
        made[random.choice(NAMES)] = random.choice(ODD)
    return made


CORRELATION = """title: C
correlation:
  type: event_count
  rules: [00000000-0000-4000-8000-000000000001]
  timespan: 5m
  group-by: [a]
  condition: {gte: 2}
"""


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("rules: [00000000-0000-4000-8000-000000000001]", "rules: []", "names no rule"),
        ("rules: [00000000-0000-4000-8000-000000000001]", "rules: [null]", "None"),
        ("group-by: [a]", "aliases: {a: {00000000-0000-4000-8000-000000000001: 1}}", "named by text"),
        ("group-by: [a]", "aliases: {1: {00000000-0000-4000-8000-000000000001: a}}", "named by text"),
    ],
)
def test_a_correlation_of_nothing_is_refused_and_its_neighbours_are_not(old, new, reason):
    texts = [RuleText("c.yml", CORRELATION.replace(old, new)), RuleText("r.yml", RULE.format(number=1))]
    found = load_rules(texts)
    assert [rule.source for rule in found.rules] == ["r.yml:1"]
    (refused,) = found.refused
    assert reason in str(refused)


@pytest.mark.parametrize("name", ["1sel", "_sel", "all", "them"])
def test_a_filter_whose_parts_cannot_be_told_from_words_is_refused_and_the_rule_is_not(name):
    narrowing = (
        f"title: F\nlogsource: {{product: linux}}\nfilter: {{rules: any, {name}: {{a: b}}, condition: not {name}}}"
    )
    found = load_rules([RuleText("f.yml", narrowing), RuleText("r.yml", RULE.format(number=1))])
    assert [rule.source for rule in found.rules] == ["r.yml:1"]
    (refused,) = found.refused
    assert refused.source is not None
    assert refused.source.startswith("f.yml:")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        "{a: " * 200_000,
        "- " * 200_000,
        "? " * 200_000,
        "".join(" " * depth + "-\n" for depth in range(1_800)),
        "".join(" " * depth + "a:\n" for depth in range(1_800)),
    ],
    ids=["lists", "mappings", "dashes", "keys", "lines of lists", "lines of mappings"],
)
def test_rules_within_rules_without_end_are_refused(text):
    """Composed, the first ones would end the process."""
    found = load_rules([RuleText("deep.yml", text), RuleText("r.yml", RULE.format(number=1))])
    assert len(found.rules) == 1
    (refused,) = found.refused
    assert "within each other" in str(refused)


@given(
    depth=st.integers(1, 150),
    kinds=st.lists(st.sampled_from(("[", "{a: ", "- ", "? ", "a:\n")), min_size=1, max_size=3),
)
def test_no_depth_is_overlooked(depth, kinds):
    """What is refused is too deep; what is composed is no deeper than blocks in few columns and few brackets can be."""
    text = ""
    for number in range(depth):
        kind = kinds[number % len(kinds)]
        text += kind + (" " * (number + 1) if kind.endswith("\n") else "")
    try:
        nodes = list(yaml.compose_all(text, Loader=yaml.CSafeLoader))
    except yaml.YAMLError:
        return
    deepest = max((depth_of(node) for node in nodes if node is not None), default=0)
    assert deepest > load.MAX_DEPTH if load._too_deep(text) else deepest <= 3 * load.MAX_DEPTH


def depth_of(node: yaml.Node) -> int:
    """Lists and mappings within each other."""
    if not isinstance(node, yaml.CollectionNode):
        return 0
    parts = [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]
    return 1 + max(map(depth_of, parts), default=0)


@pytest.mark.parametrize(
    ("generate", "gte", "is_told"), [("false", 2, False), ("true", 2, True), ("false", 99_999, True)]
)
def test_a_rule_is_told_of_itself_unless_a_correlation_that_loads_reads_it_alone(generate, gte, is_told):
    """Were it silent for a correlation that is refused, nobody would ever hear of it."""
    correlation = CORRELATION.replace("gte: 2", f"gte: {gte}").replace(
        "  timespan", f"  generate: {generate}\n  timespan"
    )
    found = load_rules([RuleText("c.yml", correlation), RuleText("r.yml", RULE.format(number=1))])
    assert len(found.correlations) == (gte == 2)
    assert [rule.emits for rule in found.rules] == [is_told]


@pytest.mark.parametrize(
    "text",
    [
        "? [a]\n: b",
        "title: !!timestamp x",
        "title: !!int ''",
        "title: !!bool maybe",
        "- a",
        "!!set {a}",
    ],
)
def test_a_document_that_cannot_be_made_is_refused_in_words(text):
    (found,) = load_rules([RuleText("r.yml", text)]).refused
    assert found.source == "r.yml:1"
    assert found.message


@pytest.mark.parametrize("text", TROUBLE)
def test_what_is_wrong_is_said_in_the_same_words_by_either_way(text):
    """An anchor anywhere makes for the long way."""
    ((short,), (long,)) = (load_rules([RuleText("r.yml", one)]).refused for one in (text, f"{text}\nother: &anchor x"))
    assert str(short).split(": ", 1)[1] == str(long).split(": ", 1)[1]


def test_a_rule_is_the_same_by_either_way():
    text = RULE.format(number=1)
    short, long = (load_rules([RuleText("r.yml", one)]).rules for one in (text, f"{text}other: &anchor x\n"))
    assert len(short) == 1
    assert short == long


@given(content=contents)
def test_documents_are_made_as_the_loader_makes_them(content):
    text = yaml.safe_dump(content, allow_unicode=True)
    assert made(text) == made(text, is_tree=False)


@pytest.mark.parametrize(
    "text",
    [
        "a: b\n<<: {c: d}",
        "? [a]\n: b",
        "!!set {a, b}",
        "!!omap [a: b]",
        "a: !!binary aGk=",
        "a: !!str 1\nb: !!int '2'",
        "a: !!map [b]",
        "!!seq {a: b}",
        "a: !!str {b: c}",
        "a: !!str [b]",
        "!!str a: b",
        "1: a\n'1': b",
        "a: =\nb: <<",
        "a: 2026-01-01\nb: 1:30\nc: 0o7\nd: 0x1f\ne: .inf\nf: ~\ng:",
        "- a\n-\n- []\n- {}",
    ],
)
def test_unusual_documents_are_made_as_the_loader_makes_them(text):
    assert made(text) == made(text, is_tree=False)


def made(text: str, *, is_tree: bool = True) -> object:
    """What is made of a text, or what is wrong with it."""
    (node,) = yaml.compose_all(text, Loader=yaml.CSafeLoader)
    try:
        return load._construct(node, is_tree=is_tree)
    except (yaml.YAMLError, TypeError, ValueError) as error:
        return type(error), str(error)


@given(text=st.text(alphabet="a:,?-[]{} \n", max_size=30))
def test_a_small_document_without_anchors_needs_no_counting(text):
    """Bounds what one character may become."""
    try:
        nodes = [node for node in yaml.compose_all(text, Loader=yaml.CSafeLoader) if node is not None]
    except yaml.YAMLError:
        return
    assert sum(load._written_out(node, {}) for node in nodes) <= 2 * len(text) + 1


def test_what_pysigma_made_is_freed_at_once():
    """Its items know their parents, and the errors that its parser remembers know whoever called it."""
    texts = [RuleText(f"{number}.yml", RULE.format(number=number)) for number in range(60)]
    load_rules(texts[:10])
    gc.collect()
    gc.disable()
    try:
        assert len(load_rules(texts).rules) == len(texts)
        assert gc.collect() < 20 * len(texts)
    finally:
        gc.enable()


def test_only_what_is_alive_after_the_first_load_is_left_alone_by_the_collector():
    texts = [RuleText("r.yml", RULE.format(number=1))]
    load_rules(texts)
    left = gc.get_freeze_count()
    load_rules(texts)
    assert 0 < gc.get_freeze_count() <= left


def test_rules_that_cannot_be_kept_are_loaded_all_the_same(tmp_path, monkeypatch):
    def refuse(*_):
        raise OverflowError

    monkeypatch.setattr(rule_cache, "stored", refuse)
    assert len(rule_cache.load_cached([RuleText("r.yml", RULE.format(number=1))], tmp_path).rules) == 1
    assert not list(tmp_path.iterdir())
