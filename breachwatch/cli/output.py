"""How commands print: one JSON object a line with `--json`, else plain text that no log line can abuse."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Self

import click
import msgspec

BUFFERED_LINES = 1_000
"""Lines that wait at most: about half a megabyte."""


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


def json_lines(items: Iterable[dict[str, object]]) -> Iterator[bytes]:
    """The same of many objects. An `event` that several matches in a row have is encoded once."""
    last: object = None
    last_json = msgspec.Raw(b"null")
    for item in items:
        event = item.get("event")
        try:
            if event is not last:
                last_json = msgspec.Raw(_encoder.encode(event))
                last = event
            yield _encoder.encode(item if event is None else item | {"event": last_json}) + b"\n"
        except UnicodeEncodeError:
            yield json_line(item)


class JsonLines:
    """Objects on standard output, one a line, in few writes. They are out after `flush`, and at the end of `with`."""

    def __init__(self) -> None:
        self._items: list[dict[str, object]] = []

    def add(self, item: dict[str, object]) -> None:
        """One object more, which nobody changes any more."""
        self._items.append(item)
        if len(self._items) >= BUFFERED_LINES:
            self.flush()

    def flush(self) -> None:
        """Write what waits. Raises: BrokenPipeError."""
        if self._items:
            items, self._items = self._items, []
            click.echo(b"".join(json_lines(items)), nl=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.flush()


_encoder = msgspec.json.Encoder()


def safe(text: object, width: int = 0) -> str:
    r"""Text from a log, made harmless for a terminal: control characters shown as \xhh, cut to `width`."""
    clean = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in str(text))
    clean = clean.encode("utf-8", "backslashreplace").decode("utf-8")
    return clean[: width - 1] + "…" if width and len(clean) > width else clean
