"""Our own small form of Sigma rules: plain data that can be stored, free of the library that parsed them.

Conditions are trees of And, Or, Not over leaves; leaves hold values (Text, Regex, ...), from which `values.test_of`
makes the test that every engine must agree with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import msgspec

from breachwatch.detect.values import COMPARE, Network, Number, Regex, Scalar, Test, Text, Value, test_of
from breachwatch.model import LogSource, RuleRef

OWN_PREFIXES = ("log.", "host.name")
"""Fields that we added ourselves: keywords do not search them."""

__all__ = ["Network", "Number", "Regex", "Scalar", "Text", "Value"]


class And(msgspec.Struct, frozen=True, tag=True, array_like=True, gc=False):
    """All parts hold."""

    parts: tuple[Condition, ...]


class Or(msgspec.Struct, frozen=True, tag=True, array_like=True, gc=False):
    """At least one part holds."""

    parts: tuple[Condition, ...]


class Not(msgspec.Struct, frozen=True, tag=True, array_like=True, gc=False):
    """The part does not hold."""

    part: Condition


class FieldTest(msgspec.Struct, frozen=True, tag=True, array_like=True, dict=True):
    """Some value of the field passes the test; a missing field never does."""

    field: str
    value: Value
    text: str
    """The item as written, for explanations."""
    also: tuple[str, ...] = ()
    """Names under which our parsers keep the field; read only where `field` itself is missing."""

    @cached_property
    def test(self) -> Test:
        """True if one present, single value satisfies the item."""
        return test_of(self.value)


class IsNull(msgspec.Struct, frozen=True, tag=True, array_like=True, gc=False):
    """The field is missing, null, or has no value that is not null."""

    field: str
    also: tuple[str, ...] = ()


class Exists(msgspec.Struct, frozen=True, tag=True, array_like=True, gc=False):
    """The field is (or is not) there, whatever its value."""

    field: str
    wanted: bool
    also: tuple[str, ...] = ()


class FieldReference(msgspec.Struct, frozen=True, tag=True, array_like=True, gc=False):
    """A value of the field relates to a value of another field, ignoring case."""

    field: str
    other: str
    relation: str
    """equals, startswith, endswith, contains."""
    also: tuple[str, ...] = ()
    other_also: tuple[str, ...] = ()


class TimePart(msgspec.Struct, frozen=True, tag=True, array_like=True, gc=False):
    """A part (minute, hour, day, week, month, year) of a time field, compared with a number."""

    field: str
    part: str
    op: str
    """lt, lte, gt, gte, eq, neq."""
    limit: float
    also: tuple[str, ...] = ()

    @property
    def compare(self) -> Callable[[float], bool]:
        """True for a part that satisfies the item."""
        compare, limit = COMPARE[self.op], self.limit
        return lambda part: compare(part, limit)


class Keyword(msgspec.Struct, frozen=True, tag=True, array_like=True, dict=True):
    """Text anywhere in the line. A Text here already has `*` at both its ends."""

    value: Value
    text: str

    @cached_property
    def test(self) -> Test:
        """True if a text holds the keyword."""
        return test_of(self.value)


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
    names: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    """rule id -> field -> names under which our parsers keep that field, as in `FieldTest.also`."""
    bounds: tuple[tuple[str, float], ...]
    """Comparisons (gte, 5) that all hold; two of them make a range."""
    fields: tuple[str, ...] = ()
    percentile: float = 50.0
    expression: Condition | None = None
    """Extended temporal condition over rule ids (as Keyword texts)."""
    source: str
    emits: bool = True
    name: str = ""
    digest: str = ""
    """Hash of the definition: saved state of another definition is not taken over."""

    def compare(self, figure: float) -> bool:
        """True if the figure lies within all bounds."""
        return all(COMPARE[op](figure, limit) for op, limit in self.bounds)


def applies(wanted: LogSource, given: LogSource) -> bool:
    """True if every part that the rule names is what the event is of; an unknown part of the event is not."""
    return (
        (not wanted.product or wanted.product == given.product)
        and (not wanted.category or wanted.category == given.category)
        and (not wanted.service or wanted.service == given.service)
    )
