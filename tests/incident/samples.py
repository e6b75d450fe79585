"""Matches to group."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from breachwatch.model import Event, FieldValue, Level, LogSource, Match, RuleRef, Window

START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)


def a_match(
    name: str = "m1",
    *,
    after_s: float = 0,
    fields: Mapping[str, FieldValue] | None = None,
    group_by: tuple[str, ...] = ("source.ip",),
    level: Level = Level.MEDIUM,
    rule: str = "ssh.failed",
    opens: bool = True,
    within_s: float = 3_600,
    group: Mapping[str, str] | None = None,
    window_s: float | None = None,
    count: int = 5,
) -> Match:
    at = START + timedelta(seconds=after_s)
    event = Event(
        id=f"event-{name}",
        at_utc=at,
        logsource=LogSource("linux"),
        fields={"source.ip": "203.0.113.7", "user.name": "root"} if fields is None else fields,
        raw=f"line {name}",
    )
    window = None if window_s is None else Window(first=at - timedelta(seconds=window_s), last=at, count=count)
    ref = RuleRef(
        id=rule, title=f"Title of {rule}", level=level, group_by=group_by, within_s=within_s, opens_incident=opens
    )
    return Match(id=name, rule=ref, event=event, group=group or {}, window=window)
