"""Why an event did or did not match a rule, condition by condition."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from breachwatch.detect.correlate import Correlator
from breachwatch.detect.reference import holds, searched_texts
from breachwatch.detect.rule import (
    And,
    Condition,
    Correlation,
    Exists,
    FieldReference,
    FieldTest,
    IsNull,
    Keyword,
    Not,
    Or,
    TimePart,
)
from breachwatch.detect.values import as_text, has_field, values_of
from breachwatch.model import Event

MAX_SHOWN = 200
"""Characters of a value that are shown."""

MAX_VALUES = 5
"""Members of a list that are shown."""

MAX_PARTS = 2_000
"""Lines of an explanation; larger rules are cut with a note."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One condition and what came of it."""

    depth: int
    holds: bool
    text: str
    found: str = ""
    """What the event has there."""


def explain(condition: Condition, event: Event) -> list[Step]:
    """Every condition of the tree with its answer, outermost first."""
    steps = list(islice(_steps(condition, event, 0), MAX_PARTS + 1))
    if len(steps) > MAX_PARTS:
        steps[MAX_PARTS:] = [Step(depth=0, holds=steps[0].holds, text=f"(cut after {MAX_PARTS} conditions)")]
    return steps


def explain_window(correlator: Correlator, rule_title: str, rule_id: str, event: Event, *, fired: bool) -> list[Step]:
    """What a correlation made of one match of a rule that it reads, after it was fed."""
    definition = correlator.definition
    standing = correlator.standing(rule_id, event)
    steps = [
        Step(depth=0, holds=fired, text=f"{definition.type} over {definition.timespan_s:g} s"),
        Step(depth=1, holds=True, text=f"rule {rule_title}"),
    ]
    if not standing.is_counted:
        lacking = ", ".join(standing.missing) or "a value to group or count by"
        return [*steps, Step(depth=1, holds=False, text="counted", found=f"the event lacks {lacking}")]
    if standing.group:
        shown = ", ".join(f"{name} = {_shown(value)}" for name, value in standing.group.items())
        steps.append(Step(depth=1, holds=True, text=f"group by {', '.join(definition.group_by)}", found=shown))
    steps.append(
        Step(depth=1, holds=standing.is_enough, text=_wanted(definition), found=f"{standing.figure:g} up to this event")
    )
    if standing.told is not None and not fired:
        told = f"the window that ended at {standing.told.isoformat()} was"
        steps.append(Step(depth=1, holds=False, text="not told of yet", found=told))
    return steps


def _wanted(definition: Correlation) -> str:
    if definition.expression is not None:
        return "the condition over its rules"
    about = f" of {', '.join(definition.fields)}" if definition.fields else ""
    return f"{definition.type}{about} {' and '.join(f'{op} {limit:g}' for op, limit in definition.bounds)}"


def _steps(condition: Condition, event: Event, depth: int) -> Iterator[Step]:
    answer = holds(condition, event)
    if isinstance(condition, And | Or):
        yield Step(depth=depth, holds=answer, text="all of" if isinstance(condition, And) else "one of")
        for part in condition.parts:
            yield from _steps(part, event, depth + 1)
    elif isinstance(condition, Not):
        yield Step(depth=depth, holds=answer, text="not")
        yield from _steps(condition.part, event, depth + 1)
    elif isinstance(condition, Keyword):
        yield Step(depth=depth, holds=answer, text=f"keyword {condition.text}", found=_searched(condition, event))
    else:
        yield Step(
            depth=depth,
            holds=answer,
            text=_leaf_text(condition),
            found=_found(event, condition.field, condition.also),
        )


def _searched(keyword: Keyword, event: Event) -> str:
    """The text that holds the keyword, or where it was looked for in vain."""
    texts = list(searched_texts(event))
    holder = next((text for text in texts if keyword.test(text)), None)
    if holder is not None:
        return f"in {_shown(holder)}"
    return "not in the line" if len(texts) == 1 else f"in none of {len(texts)} values"


def _leaf_text(leaf: FieldTest | IsNull | Exists | FieldReference | TimePart) -> str:
    if isinstance(leaf, FieldTest):
        return leaf.text
    if isinstance(leaf, IsNull):
        return f"{leaf.field}: null"
    if isinstance(leaf, Exists):
        return f"{leaf.field} is {'there' if leaf.wanted else 'not there'}"
    if isinstance(leaf, FieldReference):
        return f"{leaf.field} {leaf.relation} the value of {leaf.other}"
    return f"{leaf.part} of {leaf.field} {leaf.op} {leaf.limit:g}"


def _found(event: Event, name: str, also: tuple[str, ...]) -> str:
    present = next((one for one in (name, *also) if has_field(event, one)), None)
    if present is None:
        names = ", ".join((name, *also))
        return f"no field {names}"
    shown = [_shown(as_text(value)) for value in islice(values_of(event, name, also), MAX_VALUES)]
    return f"{present} = {', '.join(shown) or 'nothing'}"


def _shown(text: str | None) -> str:
    if text is None:
        return "null"
    return repr(text[:MAX_SHOWN]) + ("..." if len(text) > MAX_SHOWN else "")
