"""The reference evaluator: every rule on every event, exactly and plainly. Faster engines are compared with it."""

from __future__ import annotations

from typing import assert_never

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
    Rule,
    TimePart,
)
from breachwatch.detect.values import all_texts, as_text, as_time, has_field, raw_values
from breachwatch.model import Event

OWN_PREFIXES = ("log.", "host.name")
"""Fields that we added ourselves: keywords do not search them."""


def matches(rule: Rule, event: Event) -> bool:
    """True if the event satisfies the rule's condition; the log source is the caller's matter."""
    return holds(rule.condition, event)


def holds(condition: Condition, event: Event) -> bool:  # noqa: C901, PLR0911  # one branch per kind
    """True if one condition holds."""
    if isinstance(condition, FieldTest):
        test = condition.test
        value = event.fields.get(condition.field)
        if value is not None and not isinstance(value, list | tuple):
            return test(value)
        return any(item is not None and test(item) for item in raw_values(event, condition.field))
    if isinstance(condition, And):
        return all(holds(part, event) for part in condition.parts)
    if isinstance(condition, Or):
        return any(holds(part, event) for part in condition.parts)
    if isinstance(condition, Not):
        return not holds(condition.part, event)
    if isinstance(condition, Keyword):
        return _keyword(condition, event)
    if isinstance(condition, IsNull):
        return all(value is None for value in raw_values(event, condition.field))
    if isinstance(condition, Exists):
        return has_field(event, condition.field) is condition.wanted
    if isinstance(condition, FieldReference):
        return _refers(condition, event)
    if isinstance(condition, TimePart):
        return _time_part(condition, event)
    assert_never(condition)


def _keyword(keyword: Keyword, event: Event) -> bool:
    """Text lines are searched whole; of structured input (JSON) the values are, not the names."""
    if event.raw and not event.raw.lstrip().startswith("{"):
        return keyword.test(event.raw)
    fields = (value for name, value in event.fields.items() if not name.startswith(OWN_PREFIXES))
    return any(keyword.test(text) for value in fields for text in all_texts(value))


def _refers(reference: FieldReference, event: Event) -> bool:
    others = [text.lower() for item in raw_values(event, reference.other) if (text := as_text(item)) is not None]
    for item in raw_values(event, reference.field):
        text = as_text(item)
        if text is not None and any(_related(text.lower(), other, reference.relation) for other in others):
            return True
    return False


def _related(text: str, other: str, relation: str) -> bool:
    if relation == "equals":
        return text == other
    if relation == "startswith":
        return text.startswith(other)
    if relation == "endswith":
        return text.endswith(other)
    return other in text


def _time_part(item: TimePart, event: Event) -> bool:
    moments = (as_time(value) for value in raw_values(event, item.field))
    return any(
        moment is not None
        and item.compare(moment.isocalendar().week if item.part == "week" else getattr(moment, item.part))
        for moment in moments
    )
