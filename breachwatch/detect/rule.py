"""Our own small form of Sigma rules: what the evaluator reads, free of the library that parsed them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from breachwatch.model import FieldValue, LogSource, RuleRef

Test = Callable[[FieldValue], bool]
"""True if one present, single value satisfies the item."""


@dataclass(frozen=True, slots=True)
class And:
    """All parts hold."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one part holds."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: Condition


@dataclass(frozen=True, slots=True)
class FieldTest:
    """Some value of the field passes the test; a missing field never does."""

    field: str
    test: Test
    text: str
    """The item as written, for explanations."""


@dataclass(frozen=True, slots=True)
class IsNull:
    """The field is missing, null, or has no value that is not null."""

    field: str


@dataclass(frozen=True, slots=True)
class Exists:
    """The field is (or is not) there, whatever its value."""

    field: str
    wanted: bool


@dataclass(frozen=True, slots=True)
class FieldReference:
    """A value of the field relates to a value of another field, ignoring case."""

    field: str
    other: str
    relation: str
    """equals, startswith, endswith, contains."""


@dataclass(frozen=True, slots=True)
class TimePart:
    """A part (minute, hour, day, week, month, year) of a time field, compared with a number."""

    field: str
    part: str
    compare: Callable[[float], bool]


@dataclass(frozen=True, slots=True)
class Keyword:
    """Text anywhere in the line."""

    test: Test
    text: str


Condition = And | Or | Not | FieldTest | IsNull | Exists | FieldReference | TimePart | Keyword


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One detection."""

    ref: RuleRef
    logsource: LogSource
    condition: Condition
    source: str
    emits: bool = True
    """False: only correlations read its matches."""
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Correlation:
    """A relation of several matches in time."""

    ref: RuleRef
    type: str
    rules: tuple[str, ...]
    """Ids of the rules (or correlations) whose matches it reads, in order."""
    timespan_s: float
    group_by: tuple[str, ...]
    aliases: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """alias -> rule id -> field."""
    compare: Callable[[float], bool]
    threshold: float
    fields: tuple[str, ...] = ()
    percentile: float = 50.0
    expression: Condition | None = None
    """Extended temporal condition over rule ids (as Keyword texts)."""
    source: str
    emits: bool = True
    name: str = ""
    digest: str = ""
    """Hash of the definition: saved state of another definition is not taken over."""


def applies(wanted: LogSource, given: LogSource) -> bool:
    """True if every part that the rule names is what the event is of; an unknown part of the event is not."""
    return (
        (not wanted.product or wanted.product == given.product)
        and (not wanted.category or wanted.category == given.category)
        and (not wanted.service or wanted.service == given.service)
    )
