"""From pySigma's parsed rules to our own form. Imported only while rules are loaded: pySigma is large."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sigma.conditions import (
    ConditionAND,
    ConditionFieldEqualsValueExpression,
    ConditionNOT,
    ConditionOR,
    ConditionValueExpression,
)
from sigma.rule import SigmaDetections, SigmaLogSource
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

from breachwatch.detect.fields import names_for
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
from breachwatch.detect.values import ANY, ONE, Network, Number, Piece, Regex, Scalar, Text, Value, as_text
from breachwatch.errors import RuleError

FLAGS = {
    SigmaRegularExpressionFlag.IGNORECASE: re.IGNORECASE,
    SigmaRegularExpressionFlag.MULTILINE: re.MULTILINE,
    SigmaRegularExpressionFlag.DOTALL: re.DOTALL,
}

MULTI = SpecialChars.WILDCARD_MULTI

MAX_LEAVES = 20_000
"""A condition with more items is refused: nobody could read it, and it would stall every event."""


def condition_of(
    detection: SigmaDetections, logsource: SigmaLogSource, placeholders: Mapping[str, tuple[str, ...]]
) -> Condition:
    """What a rule (or filter) detects: its conditions, any of which suffices. They are used up.

    Raises: RuleError, SigmaError, and what pySigma raises by mistake.
    """
    parsed = [condition.parsed for condition in detection.parsed_condition]
    also = names_for(logsource.category or "", logsource.product or "", logsource.service or "")
    counter = _Counter(also, placeholders)
    parts = [_convert(item, counter) for item in parsed]
    detection.parsed_condition.clear()
    for named in detection.detections.values():
        _part(named)
    return parts[0] if len(parts) == 1 else Or(tuple(parts))


def _part(item: Any) -> None:
    """Let pySigma's items forget what they are parts of: else they live until somebody looks for garbage."""
    item.parent = None
    for below in getattr(item, "detection_items", ()):
        _part(below)


class _Counter:
    """Bounds the size of what a rule expands to, and knows the names its fields go by here."""

    def __init__(self, also: Mapping[str, tuple[str, ...]], placeholders: Mapping[str, tuple[str, ...]]) -> None:
        self.leaves = 0
        self._also = also
        self._placeholders = placeholders

    def filled(self, value: Any) -> Any:
        """Text with the configured values of its placeholders: one text, or an expansion to several."""
        if not isinstance(value, SigmaString) or Placeholder not in map(type, value.s):
            return value
        named = self._placeholders
        texts = value.replace_placeholders(lambda part: iter([SigmaString(text) for text in named.get(part.name, ())]))
        missing = [part.name for part in value.s if isinstance(part, Placeholder) and not named.get(part.name)]
        if missing:
            raise RuleError(
                f"placeholder %{missing[0]}% has no values", hint="give it values in the configuration (placeholders)"
            )
        return SigmaExpansion(list(texts))

    def also(self, name: str) -> tuple[str, ...]:
        """Names under which our parsers keep a field of this rule."""
        return self._also.get(name, ())

    def leaf(self) -> None:
        """Count one item. Raises: RuleError."""
        self.leaves += 1
        if self.leaves > MAX_LEAVES:
            raise RuleError(f"the condition expands to more than {MAX_LEAVES} items", hint="split the rule")


def _convert(item: Any, counter: _Counter) -> Condition:
    item.parent = None  # as in `_part`
    if isinstance(item, ConditionFieldEqualsValueExpression):
        counter.leaf()
        return _field(item.field, counter.filled(item.value), counter)
    if isinstance(item, ConditionAND):
        return And(tuple(_convert(part, counter) for part in item.args))
    if isinstance(item, ConditionOR):
        return Or(tuple(_convert(part, counter) for part in item.args))
    if isinstance(item, ConditionNOT):
        return Not(_convert(item.args[0], counter))
    counter.leaf()
    if isinstance(item, ConditionValueExpression):
        return _keyword(counter.filled(item.value))
    raise RuleError(f"a condition item of kind {type(item).__name__} is not supported")


def _field(name: str, value: Any, counter: _Counter) -> Condition:  # noqa: PLR0911  # one return per kind of value
    also = counter.also(name)
    if isinstance(value, SigmaString):
        text = _text(_pieces(value), cased=isinstance(value, SigmaCasedString))
        return FieldTest(name, text, f"{name}: {_shown(value)}", also)
    if isinstance(value, SigmaExpansion):
        for _ in value.values:
            counter.leaf()
        return Or(tuple(_field(name, counter.filled(item), counter) for item in value.values))
    if isinstance(value, SigmaNull):
        return IsNull(name, also)
    if isinstance(value, SigmaExists):
        return Exists(name, bool(value), also)
    if isinstance(value, SigmaFieldReference):
        return FieldReference(name, value.field, _relation(value), also, counter.also(value.field))
    if isinstance(value, SigmaTimestampPart):
        return TimePart(name, value.timestamp_part.name.lower(), "eq", float(value.number), also)
    if isinstance(value, SigmaCompareExpression):
        return _compare(name, value, also)
    test = _value(value)
    shown = f"|re: {test.pattern}" if isinstance(test, Regex) else f": {_plain(value)}"
    return FieldTest(name, test, name + shown, also)


def _plain(value: Any) -> str:
    return str(value.cidr) if isinstance(value, SigmaCIDRExpression) else str(value)


def _relation(value: SigmaFieldReference) -> str:
    if value.starts_with and value.ends_with:
        return "contains"
    return "startswith" if value.starts_with else "endswith" if value.ends_with else "equals"


def _compare(name: str, value: SigmaCompareExpression, also: tuple[str, ...]) -> Condition:
    op, limit = value.op.name.lower(), float(value.number.number)
    if isinstance(value.number, SigmaTimestampPart):
        return TimePart(name, value.number.timestamp_part.name.lower(), op, limit, also)
    if value.op is CompareOperators.NEQ:
        return Not(FieldTest(name, Number("eq", limit), f"{name}: {limit:g}", also))
    return FieldTest(name, Number(op, limit), f"{name} {op} {value.number}", also)


def _value(value: Any) -> Value:
    if isinstance(value, SigmaNumber):
        return Scalar(as_text(value.number) or "")
    if isinstance(value, SigmaBool):
        return Scalar(as_text(bool(value)) or "", boolean=True)
    if isinstance(value, SigmaRegularExpression):
        return _regex(value)
    if isinstance(value, SigmaCIDRExpression):
        return Network(str(value.cidr))
    raise RuleError(f"a value of kind {type(value).__name__} is not supported")


def _regex(value: SigmaRegularExpression) -> Regex:
    pattern = str(value.regexp)
    flags = 0
    for flag in value.flags:
        flags |= FLAGS[flag]
    refuse_costly_regex(pattern, flags)
    return Regex(pattern, int(flags))


def _pieces(value: SigmaString) -> tuple[Piece, ...]:
    if Placeholder in map(type, value.s):
        name = next(part.name for part in value.s if isinstance(part, Placeholder))
        raise RuleError(f"placeholder %{name}% has no values", hint="give its values, or leave the rule out")
    return tuple([part if type(part) is str else ANY if part is MULTI else ONE for part in value.s if part != ""])


def _shown(value: SigmaString) -> str:
    """As pySigma writes it, in a fraction of the time."""
    return "".join(
        [
            part.replace("*", "\\*").replace("?", "\\?") if type(part) is str else "*" if part is MULTI else "?"
            for part in value.s
        ]
    )


def _keyword(value: Any) -> Condition:
    if isinstance(value, SigmaExpansion):
        return Or(tuple(_keyword(item) for item in value.values))
    if isinstance(value, SigmaString):
        return Keyword(_anywhere(_pieces(value), cased=isinstance(value, SigmaCasedString)), str(value))
    if isinstance(value, SigmaRegularExpression):
        return Keyword(_regex(value), str(value.regexp))
    if isinstance(value, SigmaNumber):
        return Keyword(_anywhere((str(value),), cased=False), str(value))
    raise RuleError(f"a keyword of kind {type(value).__name__} is not supported")


def _anywhere(pieces: tuple[Piece, ...], *, cased: bool) -> Text:
    return _text((ANY, *pieces, ANY) if pieces else (), cased=cased)


def _text(pieces: tuple[Piece, ...], *, cased: bool) -> Text:
    """Text in its plain form: two stars in a row say what one says."""
    if pieces.count(ANY) > 1:
        pieces = tuple([piece for at, piece in enumerate(pieces) if piece != ANY or not at or pieces[at - 1] != ANY])
    return Text(pieces, cased)
