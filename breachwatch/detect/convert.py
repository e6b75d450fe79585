"""From pySigma's parsed rules to our own form. Imported only while rules are loaded: pySigma is large."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from sigma.conditions import (
    ConditionAND,
    ConditionFieldEqualsValueExpression,
    ConditionNOT,
    ConditionOR,
    ConditionValueExpression,
)
from sigma.rule import SigmaRule
from sigma.types import (
    CompareOperators,
    Placeholder,
    SigmaBool,
    SigmaCasedString,
    SigmaCIDRExpression,
    SigmaCompareExpression,
    SigmaExists,
    SigmaExpansion,
    SigmaFieldReference,
    SigmaNull,
    SigmaNumber,
    SigmaRegularExpression,
    SigmaRegularExpressionFlag,
    SigmaString,
    SigmaTimestampPart,
    SpecialChars,
)

from breachwatch.detect.rule import (
    And,
    Condition,
    Exists,
    FieldReference,
    FieldTest,
    IsNull,
    Keyword,
    Not,
    Or,
    TimePart,
)
from breachwatch.detect.safety import refuse_costly_regex
from breachwatch.detect.values import (
    ANY,
    ONE,
    Piece,
    as_text,
    cidr_test,
    keyword_test,
    number_test,
    regex_test,
    text_test,
)
from breachwatch.errors import RuleError

FLAGS = {
    SigmaRegularExpressionFlag.IGNORECASE: re.IGNORECASE,
    SigmaRegularExpressionFlag.MULTILINE: re.MULTILINE,
    SigmaRegularExpressionFlag.DOTALL: re.DOTALL,
}

MAX_LEAVES = 20_000
"""A condition with more items is refused: nobody could read it, and it would stall every event."""

COMPARE: dict[str, Callable[[float, float], bool]] = {
    "LT": lambda value, limit: value < limit,
    "LTE": lambda value, limit: value <= limit,
    "GT": lambda value, limit: value > limit,
    "GTE": lambda value, limit: value >= limit,
    "EQ": lambda value, limit: value == limit,
    "NEQ": lambda value, limit: value != limit,
}


def comparison(name: str, limit: float) -> Callable[[float], bool]:
    """`gte` and its kin against a fixed limit."""
    compare = COMPARE[name.upper()]
    return lambda value: compare(value, limit)


def condition_of(rule: SigmaRule) -> Condition:
    """The rule's conditions, any of which suffices. Raises: RuleError, SigmaError."""
    parsed = [condition.parsed for condition in rule.detection.parsed_condition]
    counter = _Counter()
    parts = [_convert(item, counter) for item in parsed]
    return parts[0] if len(parts) == 1 else Or(tuple(parts))


class _Counter:
    """Bounds the size of what a rule expands to."""

    def __init__(self) -> None:
        self.leaves = 0

    def leaf(self) -> None:
        """Count one item. Raises: RuleError."""
        self.leaves += 1
        if self.leaves > MAX_LEAVES:
            raise RuleError(f"the condition expands to more than {MAX_LEAVES} items", hint="split the rule")


def _convert(item: Any, counter: _Counter) -> Condition:
    if isinstance(item, ConditionAND):
        return And(tuple(_convert(part, counter) for part in item.args))
    if isinstance(item, ConditionOR):
        return Or(tuple(_convert(part, counter) for part in item.args))
    if isinstance(item, ConditionNOT):
        return Not(_convert(item.args[0], counter))
    counter.leaf()
    if isinstance(item, ConditionFieldEqualsValueExpression):
        return _field(item.field, item.value, counter)
    if isinstance(item, ConditionValueExpression):
        return _keyword(item.value)
    raise RuleError(f"a condition item of kind {type(item).__name__} is not supported")


def _field(name: str, value: Any, counter: _Counter) -> Condition:  # noqa: PLR0911  # one return per kind of value
    if isinstance(value, SigmaExpansion):
        for _ in value.values:
            counter.leaf()
        return Or(tuple(_field(name, item, counter) for item in value.values))
    if isinstance(value, SigmaNull):
        return IsNull(name)
    if isinstance(value, SigmaExists):
        return Exists(name, bool(value))
    if isinstance(value, SigmaFieldReference):
        return FieldReference(name, value.field, _relation(value))
    if isinstance(value, SigmaTimestampPart):
        part, number = value.timestamp_part.name.lower(), float(value.number)
        return TimePart(name, part, lambda found: found == number)
    if isinstance(value, SigmaCompareExpression):
        return _compare(name, value)
    return FieldTest(name, _value_test(value), f"{name}: {value}")


def _relation(value: SigmaFieldReference) -> str:
    if value.starts_with and value.ends_with:
        return "contains"
    return "startswith" if value.starts_with else "endswith" if value.ends_with else "equals"


def _compare(name: str, value: SigmaCompareExpression) -> Condition:
    compare = comparison(value.op.name, float(value.number.number))
    if isinstance(value.number, SigmaTimestampPart):
        return TimePart(name, value.number.timestamp_part.name.lower(), compare)
    if value.op is CompareOperators.NEQ:
        return Not(FieldTest(name, number_test(comparison("EQ", float(value.number.number))), f"{name}: {value}"))
    return FieldTest(name, number_test(compare), f"{name} {value.op.name.lower()} {value.number}")


def _value_test(value: Any) -> Callable[[Any], bool]:
    if isinstance(value, SigmaString):
        return text_test(_pieces(value), cased=isinstance(value, SigmaCasedString))
    if isinstance(value, SigmaNumber):
        wanted = as_text(value.number)
        return lambda found: as_text(found) == wanted
    if isinstance(value, SigmaBool):
        wanted = as_text(bool(value))
        return lambda found: (as_text(found) or "").lower() == wanted
    if isinstance(value, SigmaRegularExpression):
        return _regex(value)
    if isinstance(value, SigmaCIDRExpression):
        return cidr_test(str(value.cidr))
    raise RuleError(f"a value of kind {type(value).__name__} is not supported")


def _regex(value: SigmaRegularExpression) -> Callable[[Any], bool]:
    pattern = str(value.regexp)
    flags = 0
    for flag in value.flags:
        flags |= FLAGS[flag]
    refuse_costly_regex(pattern, flags)
    return regex_test(pattern, flags)


def _pieces(value: SigmaString) -> tuple[Piece, ...]:
    pieces: list[Piece] = []
    for part in value.s:
        if isinstance(part, Placeholder):
            raise RuleError(f"placeholder %{part.name}% has no values", hint="give its values, or leave the rule out")
        if isinstance(part, SpecialChars):
            pieces.append(ANY if part is SpecialChars.WILDCARD_MULTI else ONE)
        elif part:
            pieces.append(part)
    return tuple(pieces)


def _keyword(value: Any) -> Condition:
    if isinstance(value, SigmaExpansion):
        return Or(tuple(_keyword(item) for item in value.values))
    if isinstance(value, SigmaString):
        return Keyword(keyword_test(_pieces(value), cased=isinstance(value, SigmaCasedString)), str(value))
    if isinstance(value, SigmaRegularExpression):
        return Keyword(_regex(value), str(value.regexp))
    if isinstance(value, SigmaNumber):
        return Keyword(keyword_test((str(value),), cased=False), str(value))
    raise RuleError(f"a keyword of kind {type(value).__name__} is not supported")
