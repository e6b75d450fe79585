"""Loaded rules as bytes and back: reading them is many times cheaper than parsing Sigma again."""

from __future__ import annotations

import msgspec

from breachwatch.detect.load import RuleSet
from breachwatch.detect.rule import Correlation, Rule
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
        found = _decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    if found.key != key:
        return None
    refused = tuple(RuleError(item.message, source=item.source, hint=item.hint) for item in found.refused)
    return RuleSet(rules=found.rules, correlations=found.correlations, refused=refused, fingerprint=found.fingerprint)
