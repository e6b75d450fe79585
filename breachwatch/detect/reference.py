"""The reference evaluator: every rule on every event, exactly and plainly. Faster engines are compared with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from breachwatch.detect.rule import (
    OWN_PREFIXES,
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
from breachwatch.detect.values import all_texts, as_text, as_time, folded, is_there, values_of
from breachwatch.model import Event


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
        return any(item is not None and test(item) for item in values_of(event, condition.field, condition.also))
    if isinstance(condition, And):
        return all(holds(part, event) for part in condition.parts)
    if isinstance(condition, Or):
        return any(holds(part, event) for part in condition.parts)
    if isinstance(condition, Not):
        return not holds(condition.part, event)
    if isinstance(condition, Keyword):
        return _keyword(condition, event)
    if isinstance(condition, IsNull):
        return all(value is None for value in values_of(event, condition.field, condition.also))
    if isinstance(condition, Exists):
        return is_there(event, condition.field, condition.also) is condition.wanted
    if isinstance(condition, FieldReference):
        return _refers(condition, event)
    if isinstance(condition, TimePart):
        return _time_part(condition, event)
    assert_never(condition)


def _keyword(keyword: Keyword, event: Event) -> bool:
    """Text lines are searched whole; of structured input (JSON) the values are, not the names.

    A record that could not be read is text too: its message is the line, which no record that can be read may say.
    """
    return any(map(keyword.test, searched_texts(event)))


def searched_texts(event: Event) -> Iterator[str]:
    """What keywords search in an event."""
    raw = event.raw
    if raw and (not raw.lstrip().startswith("{") or event.fields.get("message") == raw):
        yield raw
        return
    for name, value in event.fields.items():
        if not name.startswith(OWN_PREFIXES):
            yield from all_texts(value)


def _refers(reference: FieldReference, event: Event) -> bool:
    others = [
        folded(text)
        for item in values_of(event, reference.other, reference.other_also)
        if (text := as_text(item)) is not None
    ]
    for item in values_of(event, reference.field, reference.also):
        text = as_text(item)
        if text is not None and any(_related(folded(text), other, reference.relation) for other in others):
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
    moments = (as_time(value) for value in values_of(event, item.field, item.also))
    return any(
        moment is not None
        and item.compare(moment.isocalendar().week if item.part == "week" else getattr(moment, item.part))
        for moment in moments
    )
