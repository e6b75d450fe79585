"""Loaded rules and fitted plans as bytes and back: reading them is many times cheaper than making them again."""

from __future__ import annotations

import msgspec

from breachwatch.detect.garbage import uncollected
from breachwatch.detect.rule import Correlation, Rule
from breachwatch.detect.ruleset import RuleSet
from breachwatch.detect.witness import Pattern, Witness
from breachwatch.errors import RuleError


class _Refused(msgspec.Struct, frozen=True, array_like=True):
    message: str
    source: str | None
    hint: str | None


class _Stored(msgspec.Struct, frozen=True, array_like=True):
    key: str
    rules: tuple[Rule, ...]
    correlations: tuple[Correlation, ...]
    refused: tuple[_Refused, ...]
    fingerprint: str


_decoder = msgspec.msgpack.Decoder(_Stored)


def stored(ruleset: RuleSet, key: str) -> bytes:
    """The set as bytes, marked with what it was made from."""
    refused = tuple(_Refused(error.message, error.source, error.hint) for error in ruleset.refused)
    return msgspec.msgpack.encode(_Stored(key, ruleset.rules, ruleset.correlations, refused, ruleset.fingerprint))


def restored(data: bytes, key: str) -> RuleSet | None:
    """The set that `stored` made under the same key; None for anything else."""
    try:
        with uncollected(stays=True):
            found = _decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    if found.key != key:
        return None
    refused = tuple(RuleError(item.message, source=item.source, hint=item.hint) for item in found.refused)
    return RuleSet(
        rules=found.rules, correlations=found.correlations, refused=refused, fingerprint=found.fingerprint, key=key
    )


class StoredPlan(msgspec.Struct, frozen=True):
    """What makes up a fitted plan."""

    witnesses: dict[int, Witness | None]
    """By position of the rule, in order."""
    expected: float
    """Work per byte, as `Plan.work` counts it."""
    few: float
    compiled: list[bytes]
    """The scanner of all its patterns."""


class _Plan(msgspec.Struct, frozen=True, array_like=True):
    patterns: list[Pattern]
    witnesses: list[tuple[int, list[int] | None]]
    expected: float
    few: float
    compiled: list[bytes]


_plan_decoder = msgspec.msgpack.Decoder(_Plan)


def stored_plan(plan: StoredPlan) -> bytes:
    """The plan as bytes."""
    patterns = sorted(frozenset[Pattern]().union(*filter(None, plan.witnesses.values())))
    numbers = {pattern: number for number, pattern in enumerate(patterns)}
    witnesses = [
        (index, None if witness is None else sorted(numbers[pattern] for pattern in witness))
        for index, witness in plan.witnesses.items()
    ]
    return msgspec.msgpack.encode(_Plan(patterns, witnesses, plan.expected, plan.few, plan.compiled))


def restored_plan(data: bytes) -> StoredPlan | None:
    """The plan that `stored_plan` made; None for anything else."""
    try:
        with uncollected():
            found = _plan_decoder.decode(data)
            witnesses = {
                index: None if numbers is None else frozenset(found.patterns[number] for number in numbers)
                for index, numbers in found.witnesses
            }
    except (msgspec.MsgspecError, ValueError, IndexError, RecursionError):
        return None
    return StoredPlan(witnesses, found.expected, found.few, found.compiled)
