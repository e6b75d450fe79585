"""Signals for telemetry tests, harmless and hostile."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from breachwatch.model import Event, Level, LogSource, Match, RuleRef, Signal, SignalKind, Window

AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
HOST = "web-1"


def match_signal(name: str, *, at: datetime = AT, rule_id: str = "rule", seq: int = 0, **fields: Any) -> Signal:
    """A match whose event has these fields (`source__ip` for `source.ip`)."""
    named = {key.replace("__", "."): value for key, value in fields.items()}
    return of_fields(name, {"host.name": HOST, "message": "m", **named}, at=at, rule_id=rule_id, seq=seq)


def of_fields(
    name: str, fields: dict[str, Any], *, at: datetime = AT, rule_id: str = "rule", seq: int = 0, raw: str = "line"
) -> Signal:
    event = Event(id=f"event-{name}", at_utc=at, logsource=LogSource(product="linux"), fields=fields, raw=raw)
    rule = RuleRef(id=rule_id, title="A rule", level=Level.HIGH, tags=("attack.t1110",), author="a")
    match = Match(
        id=name,
        rule=rule,
        event=event,
        group={"source.ip": "192.0.2.1"},
        window=Window(first=at, last=at, count=3),
        event_ids=("a", "b"),
    )
    return Signal(id=name, kind=SignalKind.MATCH, at_utc=at, host=HOST, match=match, seq=seq)


def _deep(levels: int) -> Any:
    value: Any = "bottom"
    for _ in range(levels):
        value = {"x": value}
    return value


HOSTILE: dict[str, dict[str, Any]] = {
    "scalar where ECS has an object": {"source": "x", "source.ip": "192.0.2.1", "event": "y", "breachwatch": 1},
    "object where ECS has a scalar": {"source.ip": {"a": 1}, "message": ["a", {"b": 2}], "process.pid": {"x": None}},
    "wrong types": {"source.ip": "no address", "source.port": "ssh", "process.pid": True, "file.mtime": "yesterday"},
    "numbers beyond a long": {"process.pid": 2**63, "file.size": -(2**70), "big": 10**400, "nan": float("nan")},
    "infinite": {"log.offset": float("inf"), "x": float("-inf")},
    "names nobody would choose": {
        "": "a", ".": "b", "..": "c", "a..b": "d", ".a": "e", "a.": "f", " ": "g", "\0": "h", "a\0b": "i", "_id": "j",
        "@timestamp": "k", "_source": "l", "a.b": "m", "a": "n", "a.b.c": "o", "*": "p", "x\ny": "q", "é" * 300: "r",
    },
    "long text": {"user.name": "n" * 70_000, "message": "\U0001f600" * 70_000, "foreign": "\u20ac" * 70_000},
    "many fields": {f"f{number}": number for number in range(5_000)},
    "long list": {"event.category": ["c"] * 5_000, "tags": ["t"] * 300},
    "deep": {"deep": _deep(200)},
    "control characters": {"message": "a\0b\x1b[31mc\u2028d", "user.name": "\x00"},
    "claims to be another": {"host.name": "somebody-else", "rule.id": "forged", "event.kind": "event"},
    "nothing": {"x": None, "source.ip": None, "source.port": []},
}  # fmt: skip
"""By what is wrong with it."""

SURROGATES: dict[str, Any] = {"message": "a\udcffb", "user.name": "\ud800", "x\udfff": ["\udc80", {"\ud801": "\ud802"}]}
"""Text that UTF-8 does not have."""
