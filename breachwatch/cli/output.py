"""How commands print: one JSON object a line with `--json`, else plain text that no log line can abuse."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import BinaryIO, Self

import click
import msgspec

from breachwatch.app.told import event_object, in_utc, incident_line, incident_object, match_object, rule_object
from breachwatch.model import Event, Incident, Match, RuleRef

MAX_WAITING_BYTES = 1 << 18
"""So much is written at once, or little more."""

COMMA = ord(",")


def print_json(item: Mapping[str, object]) -> None:
    """One object on one line. Undecodable bytes stay escaped, so the output is always valid UTF-8."""
    text = json.dumps(item, ensure_ascii=False, default=str)
    click.echo(text.encode("utf-8", "backslashreplace").decode("utf-8"))


def json_line(item: Mapping[str, object]) -> bytes:
    """The same object as one line of UTF-8 with its line feed, quickly: only for what JSON itself can say."""
    try:
        return _encoder.encode(item) + b"\n"
    except UnicodeEncodeError:
        text = json.dumps(item, ensure_ascii=False, separators=(",", ":"))
        return text.encode("utf-8", "backslashreplace") + b"\n"


class JsonLines:
    """Objects on standard output, one a line, in few writes. They are out after `flush`, and at the end of `with`."""

    def __init__(self, stream: BinaryIO | None = None) -> None:
        """`stream`: instead of standard output."""
        self._stream = stream
        self._waiting = bytearray()
        self._rules: dict[str, bytes] = {}
        """What all matches of a rule say between their own id and their event, by its id."""
        self._time: tuple[datetime, bytes] | None = None
        """The time of the last event, and how its object begins."""

    def add(self, item: Sequence[Match] | Incident | Mapping[str, object]) -> None:
        """One object more, or several matches."""
        if isinstance(item, Incident):
            self._add_incident(item)
        elif isinstance(item, Mapping):
            self._waiting += json_line(item)
        else:
            self._add_matches(item)
        if len(self._waiting) >= MAX_WAITING_BYTES:
            self.flush()

    def _add_incident(self, incident: Incident) -> None:
        try:
            self._waiting += _encoder.encode(incident_line(incident)) + b"\n"
        except UnicodeEncodeError:
            self._waiting += json_line(incident_object(incident))

    def _add_matches(self, matches: Sequence[Match]) -> None:
        """What `match_object` says of each, of parts that were said before."""
        waiting, rules = self._waiting, self._rules
        last: Event | None = None
        start = end = 0
        for match in matches:
            event, line = match.event, len(waiting)
            try:
                if match.window is not None:
                    waiting += json_line(match_object(match))
                    continue
                waiting += b'{"kind":"match","id":"'
                waiting += match.id.encode("ascii")
                waiting += rules.get(match.rule.id) or self._of_rule(match.rule)
                if event is last:
                    waiting += waiting[start:end]
                    continue
                start = len(waiting)
                self._add_event(event)
                waiting += b"}\n"
                last, end = event, len(waiting)
            except UnicodeEncodeError:
                del waiting[line:]
                waiting += json_line(match_object(match))

    def _of_rule(self, rule: RuleRef) -> bytes:
        said = self._rules[rule.id] = b'",%b,"event":' % _encoder.encode(rule_object(rule))[1:-1]
        return said

    def _add_event(self, event: Event) -> None:
        """What `event_object` says. Raises: UnicodeEncodeError."""
        fields, waiting = event.fields, self._waiting
        if not fields or "@timestamp" in fields:
            waiting += _encoder.encode(event_object(event))
            return
        if self._time is None or self._time[0] is not event.at_utc:
            self._time = event.at_utc, b'{"@timestamp":' + _encoder.encode(in_utc(event.at_utc))
        waiting += self._time[1]
        place = len(waiting)
        _encoder.encode_into(fields, waiting, -1)
        waiting[place] = COMMA  # where the object of the fields begins

    def flush(self) -> None:
        """Write what waits. Raises: BrokenPipeError."""
        if self._waiting:
            waiting, self._waiting = self._waiting, bytearray()
            click.echo(waiting, self._stream, nl=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.flush()


def as_objects(item: Sequence[Match] | Incident | Mapping[str, object]) -> Sequence[Mapping[str, object]]:
    """What a scan tells, as objects."""
    if isinstance(item, Incident):
        return [incident_object(item)]
    return [item] if isinstance(item, Mapping) else [match_object(match) for match in item]


_encoder = msgspec.json.Encoder()


def safe(text: object, width: int = 0) -> str:
    r"""Text from a log, made harmless for a terminal: control characters shown as \xhh, cut to `width`."""
    clean = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in str(text))
    clean = clean.encode("utf-8", "backslashreplace").decode("utf-8")
    return clean[: width - 1] + "…" if width and len(clean) > width else clean
