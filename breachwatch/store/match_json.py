"""Matches as JSON values and back, exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from breachwatch.errors import StoreError
from breachwatch.model import Event, FieldValue, Level, LogSource, Match, RuleRef, Window


def match_to_json(match: Match) -> dict[str, Any]:
    """All of a match as plain JSON values."""
    event = match.event
    return {
        "id": match.id,
        "rule": {**asdict(match.rule), "level": str(match.rule.level)},
        "event": {
            "id": event.id,
            "at_utc": event.at_utc.isoformat(),
            "logsource": asdict(event.logsource),
            "fields": {name: _plain(value) for name, value in event.fields.items()},
            "raw": event.raw,
        },
        "group": dict(match.group),
        "window": None if match.window is None else _window_to_json(match.window),
        "event_ids": list(match.event_ids),
    }


def match_from_json(value: Any) -> Match:
    """The match that `match_to_json` was given. Raises: StoreError (damaged or foreign row)."""
    try:
        rule, event, window = value["rule"], value["event"], value["window"]
        return Match(
            id=value["id"],
            rule=RuleRef(
                id=rule["id"],
                title=rule["title"],
                level=Level(rule["level"]),
                tags=tuple(rule["tags"]),
                author=rule["author"],
                group_by=tuple(rule["group_by"]),
                within_s=rule["within_s"],
                opens_incident=rule["opens_incident"],
            ),
            event=Event(
                id=event["id"],
                at_utc=datetime.fromisoformat(event["at_utc"]),
                logsource=LogSource(**event["logsource"]),
                fields=event["fields"],
                raw=event["raw"],
            ),
            group=value["group"],
            window=None if window is None else _window_from_json(window),
            event_ids=tuple(value["event_ids"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError("a stored match is damaged", hint="check the disk; restore a backup") from error


def _window_to_json(window: Window) -> dict[str, Any]:
    return {"first": window.first.isoformat(), "last": window.last.isoformat(), "count": window.count}


def _window_from_json(value: Mapping[str, Any]) -> Window:
    first, last = datetime.fromisoformat(value["first"]), datetime.fromisoformat(value["last"])
    return Window(first=first, last=last, count=value["count"])


def _plain(value: FieldValue) -> Any:
    if isinstance(value, str | int | float) or value is None:
        return value
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, Sequence) else str(value)
