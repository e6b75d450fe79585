"""How commands print: one JSON object a line with `--json`, else plain text that no log line can abuse."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import BinaryIO, Self

import click
import msgspec

from breachwatch.app.told import event_object, in_utc, incident_line, incident_object, match_object, rule_object
from breachwatch.model import Event, Incident, Match

BUFFERED = 4_000
"""Lines, or parts of them, that wait at most: about half a megabyte."""


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
        self._lines: list[bytes] = []
        self._rules: dict[str, bytes] = {}
        """What all matches of a rule say between their own id and their event, by its id."""
        self._event: Event | None = None
        self._event_json = b""
        """The last event that matched, which may match again, and the end of its line."""

    def add(self, item: Sequence[Match] | Incident | Mapping[str, object]) -> None:
        """One object more, or several matches."""
        if isinstance(item, Incident):
            self._add_incident(item)
        elif isinstance(item, Mapping):
            self._lines.append(json_line(item))
        else:
            self._add_matches(item)
        if len(self._lines) >= BUFFERED:
            self.flush()

    def _add_incident(self, incident: Incident) -> None:
        try:
            self._lines.append(_encoder.encode(incident_line(incident)) + b"\n")
        except UnicodeEncodeError:
            self._lines.append(json_line(incident_object(incident)))

    def _add_matches(self, matches: Sequence[Match]) -> None:
        """What `match_object` says of each, of parts that were said before."""
        add, rules = self._lines.append, self._rules
        for match in matches:
            event, ref = match.event, match.rule
            try:
                if match.window is not None:
                    add(json_line(match_object(match)))
                    continue
                rule = rules.get(ref.id)
                if rule is None:
                    rule = rules[ref.id] = b'",%b,"event":' % _encoder.encode(rule_object(ref))[1:-1]
                if event is not self._event:
                    self._event_json = event_json(event)
                    self._event = event
                add(b'{"kind":"match","id":"%b%b%b}\n' % (match.id.encode("ascii"), rule, self._event_json))
            except UnicodeEncodeError:
                add(json_line(match_object(match)))

    def flush(self) -> None:
        """Write what waits. Raises: BrokenPipeError."""
        if self._lines:
            lines, self._lines = self._lines, []
            click.echo(b"".join(lines), self._stream, nl=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.flush()


def event_json(event: Event) -> bytes:
    """What `event_object` says. Raises: UnicodeEncodeError."""
    fields = event.fields
    if not fields or "@timestamp" in fields:
        return _encoder.encode(event_object(event))
    return b'{"@timestamp":%b,%b' % (_encoder.encode(in_utc(event.at_utc)), _encoder.encode(fields)[1:])


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
