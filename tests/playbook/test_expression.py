from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breachwatch.errors import PlaybookError
from breachwatch.model import Level
from breachwatch.playbook.expression import MAX_CHARS, MAX_DEPTH, compile_expression
from tests.playbook.samples import an_incident


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("true", True),
        ("!true", False),
        ("!!true", True),
        ("true || false && false", True),
        ("(true || false) && false", False),
        ("!false && true", True),
        ('incident.severity == "high"', True),
        ('"high" == incident.severity', True),
        ('incident.severity != "low"', True),
        ('incident.severity >= "medium"', True),
        ('incident.severity < "critical"', True),
        ('incident.severity > "high"', False),
        ('incident.severity in ["low", "high"]', True),
        ("incident.severity in ['critical']", False),
        ('incident.state == "open"', True),
        ('incident.state in ["closed", "dismissed"]', False),
        ("incident.count >= 3 && incident.count < 4", True),
        ("incident.count in [1, 2]", False),
        ("3 == incident.count", True),
        ('"ssh.guessing" in incident.rules', True),
        ('!("other" in incident.rules)', True),
        ('size(incident.entities["source.ip"]) > 1', True),
        ('"root" in incident.entities["user.name"]', True),
        ('"x" in incident.entities["file.path"]', False),
        ("size(incident.rules) == 1", True),
        ("size([1, 2, 3]) == 3", True),
        ("incident.rules == incident.rules", True),
        ("  true\n&&\ttrue  ", True),
        ("||".join(["false"] * 250) + "||true", True),
    ],
)
def test_what_an_expression_says(text, holds):
    assert compile_expression(text).holds(an_incident()) is holds


@pytest.mark.parametrize("low", list(Level))
@pytest.mark.parametrize("high", list(Level))
def test_severities_compare_by_rank_and_never_by_alphabet(low, high):
    found = compile_expression(f'incident.severity >= "{low}"').holds(an_incident(severity=high))
    assert found == (high.rank >= low.rank)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "ends too early"),
        ("incident.severity", "is a severity, not a bool"),
        ("incident.count", "not a bool"),
        ('incident.severity == "hihg"', "'hihg' is no severity"),
        ('incident.severity in ["high", "hot"]', "'hot' is no severity"),
        ('incident.state == "opened"', "'opened' is no state"),
        ('incident.state > "open"', "does not order"),
        ('incident.count == "3"', "between number and text"),
        ('incident.count in ["3"]', "number in list of texts"),
        ("incident.rules > incident.rules", "does not order"),
        ("incident.entities == incident.entities", "expected"),
        ('incident.entities["url"] == incident.rules', "no such entity"),
        ("incident.entities[source.ip]", "no such entity"),
        ("incident.__class__", "unknown name"),
        ("incident.title", "unknown name"),
        ("__import__('os')", "unknown name"),
        ("size(3) > 1", "size() of number"),
        ("size", "expected"),
        ("true && ", "ends too early"),
        ("true true", "unexpected 'true'"),
        ("true == true == true", "unexpected '=='"),
        ("(true", "')' expected, found 'the end'"),
        ("true)", "unexpected"),
        ("[1, 'a'] == [1]", "mixes types"),
        ("size([]) == 0", "empty"),
        ("size([[1]]) == 0", "lists hold"),
        ("size([incident.count]) == 0", "lists hold"),
        ("size([true]) == 0", "lists hold"),
        ("1 + 1 == 2", "cannot stand here"),
        ('"a\\n" in incident.rules', "cannot stand here"),
        ("1.5 > 1", "cannot stand here"),
        ("true & true", "cannot stand here"),
        ("1 || true", "a side of ||"),
        ("!1", "what follows !"),
        ("true in incident.rules", "bool in list"),
        ("incident.severity in incident.rules", "severity in list"),
        ("99999999999999999999 > 1", "cannot stand here"),
    ],
)
def test_a_faulty_expression_is_refused_when_it_is_loaded(text, what):
    with pytest.raises(PlaybookError) as refused:
        compile_expression(text)
    assert what in str(refused.value)
    assert "column" in str(refused.value)


def test_expressions_are_bounded():
    for text, what in (
        ("(" * 1_000 + "true" + ")" * 900, "nested"),
        ("size(" * 300, "nested"),
        ("[" * 1_900, "nested"),
        ("x" * (MAX_CHARS + 1), "characters"),
        ("size([" + "1," * 201 + "1]) > 1", "elements"),
    ):
        with pytest.raises(PlaybookError, match=what):
            compile_expression(text)
    deep = MAX_DEPTH - 1
    assert compile_expression("(" * deep + "true" + ")" * deep).holds(an_incident())
    assert compile_expression("!" * 1_900 + "true").holds(an_incident())


_parts = st.lists(
    st.sampled_from(
        ["true", "false", "incident.count", "incident.severity", "incident.rules", '"high"', "3", "(", ")", "[", "]",
         "&&", "||", "!", "==", "<", "in", ",", "size", 'incident.entities["source.ip"]', "incident.state", '"open"']
    ),
    max_size=14,
)  # fmt: skip


@given(st.one_of(_parts.map(" ".join), st.text(max_size=40)))
def test_any_text_is_refused_or_gives_a_yes_or_no(text):
    try:
        expression = compile_expression(text)
    except PlaybookError:
        return
    assert expression.holds(an_incident()) in {True, False}
