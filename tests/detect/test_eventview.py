"""Verdicts about events of lines of text are remembered for the values that the rules read."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from unittest.mock import Mock

import pytest

from breachwatch.detect import eventview, verdicts
from breachwatch.detect.eventview import Judge
from breachwatch.detect.reference import holds
from breachwatch.detect.rule import (
    And,
    Condition,
    Exists,
    FieldTest,
    IsNull,
    Keyword,
    Not,
    Or,
    Regex,
    Rule,
    Scalar,
    Text,
)
from breachwatch.detect.values import ANY
from breachwatch.model import Event, FieldValue, Level, LogSource, RuleRef

NAMES = ("a", "b", "c.d", "c")
VALUES: tuple[FieldValue, ...] = (
    1,
    True,
    1.0,
    0,
    False,
    "1",
    "true",
    "x",
    "X",
    "",
    "a b",
    ("x", "y"),
    ("1",),
    -0.0,
    10**30,
)


def rule(number: int, condition: Condition) -> Rule:
    return Rule(
        ref=RuleRef(id=f"r{number}", title="r", level=Level.LOW),
        logsource=LogSource(),
        condition=condition,
        source="test",
    )


def event(fields: dict[str, FieldValue], raw: str = "x") -> Event:
    return Event(id="e", at_utc=datetime(2026, 2, 1, tzinfo=UTC), logsource=LogSource(), fields=fields, raw=raw)


def leaf(draw: random.Random) -> Condition:
    name = draw.choice(NAMES)
    test = FieldTest(
        name,
        draw.choice(
            (
                Text(("x",)),
                Text((ANY, "1")),
                Text(("",)),
                Regex("x|tru", 2),
                Text(("-0.0",)),
                Scalar("1"),
                Scalar("true", boolean=True),
            )
        ),
        "",
    )
    return draw.choice((test, test, test, Exists(name, draw.random() < 0.5), IsNull(name), Not(test)))


def condition(draw: random.Random) -> Condition:
    parts = tuple(leaf(draw) for _ in range(draw.choice((1, 1, 2, 3))))
    return draw.choice((And, Or))(parts)


@pytest.mark.parametrize("has_room", [True, False])
def test_what_is_remembered_is_what_the_reference_says(monkeypatch, has_room):
    monkeypatch.setattr(eventview, "WORTH_IT", 1)
    if not has_room:
        monkeypatch.setattr(verdicts, "MAX_VERDICTS_BYTES", 1_000)
        monkeypatch.setattr(verdicts, "REST", 20)
        monkeypatch.setattr(eventview, "MAX_COMBINATIONS", 3)
    draw = random.Random(3)
    asked = recalled = 0
    for _ in range(60):
        rules = [rule(number, condition(draw)) for number in range(6)]
        if draw.random() < 0.2:
            rules[0] = rule(0, Keyword(Text((ANY, "x", ANY)), ""))
        judge = Judge(rules)
        looked = Mock(wraps=judge.satisfied)
        monkeypatch.setattr(judge, "satisfied", looked)
        combinations = [tuple(sorted(draw.sample(range(6), draw.choice((1, 2, 3))))) for _ in range(4)]
        for _ in range(200):
            fields = {name: draw.choice(VALUES) for name in NAMES[: draw.choice((1, 2, 3))] if draw.random() < 0.8}
            one, among = event(fields, raw=draw.choice(("x", "y"))), draw.choice(combinations)
            right = [index for index in among if holds(rules[index].condition, one)]
            assert list(judge.of_text(among, one)) == right, (
                among,
                fields,
                [rules[index].condition for index in among],
            )
            assert len(judge._memories) <= eventview.MAX_COMBINATIONS
            asked += 1
        recalled += 200 - looked.call_count
    assert recalled > asked / (4 if has_room else 50)
