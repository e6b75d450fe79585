"""A YAML document as plain values, with the line of every node; bounded, so that no file can hurt its reader.

Stricter than YAML: one document, no anchors or aliases (no bombs), no tags, no duplicate keys, texts as keys. Scalars
are those of YAML 1.2: `no`, `012` and `2026-01-01` are text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import yaml

from breachwatch.errors import BreachWatchError

YamlValue = str | int | float | bool | None | list["YamlValue"] | dict[str, "YamlValue"]

MAX_CHARS = 512_000
"""The largest hand-written file here is a tenth of this."""

MAX_DEPTH = 24
"""Levels of nesting; the deepest schema here needs eight."""

MAX_NODES = 50_000
"""Values and keys in one document."""

MAX_INT_DIGITS = 18
"""Longer numbers are text: no schema here counts further."""

_CONSTANTS: dict[str, bool | None] = {
    "": None,
    "~": None,
    "null": None,
    "true": True,
    "false": False,
}
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z")
_FLOAT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,18}\Z")


@dataclass(frozen=True, slots=True)
class Document:
    """The values, and where each of them stands."""

    source: str
    value: YamlValue
    lines: dict[tuple[str | int, ...], int] = field(repr=False)
    """Path (keys and indices) to line, counted from 1. A key's path leads to the line of the key."""

    def where(self, path: Sequence[str | int] = ()) -> str:
        """`source:line` of a path, or of the nearest thing above it. Unknown parts of a path are passed over."""
        known: tuple[str | int, ...] = ()
        for part in path:
            if (*known, part) in self.lines:
                known = (*known, part)
        return f"{self.source}:{self.lines.get(known, 1)}"


class DocumentError(BreachWatchError):
    """The text is no YAML document, or more than is allowed. Loaders re-raise it as their own error."""


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end has not come yet."""

    path: tuple[str | int, ...]
    value: list[YamlValue] | dict[str, YamlValue]
    key: str | None = None


def read_document(text: str, source: str) -> Document:
    """Read one YAML document. Raises: DocumentError with `source:line`."""
    if len(text) > MAX_CHARS:
        raise DocumentError(f"more than {MAX_CHARS} characters", source=source)
    builder = _Builder(source)
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise DocumentError(f"not YAML: {error.problem or error.context}", source=f"{source}:{line}") from error
    except (yaml.YAMLError, UnicodeError) as error:
        raise DocumentError("not YAML: characters that no text file holds", source=f"{source}:1") from error
    if not builder.documents:
        raise DocumentError("the file is empty", source=f"{source}:1")
    return Document(source, builder.root, builder.lines)


class _Builder:
    """Folds parser events into values, without recursion: depth cannot exhaust the stack."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.root: YamlValue = None
        self.lines: dict[tuple[str | int, ...], int] = {}
        self.documents = 0
        self._stack: list[_Open] = []
        self._nodes = 0

    def take(self, event: yaml.Event) -> None:
        """One event of the parser. Raises: DocumentError."""
        if isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                raise self._refused(event, "a second document in one file", "split the file at `---`")
        elif isinstance(event, yaml.AliasEvent):
            raise self._refused(event, "aliases are not allowed", "write the value out")
        elif isinstance(event, yaml.NodeEvent):
            self._node(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._stack.pop()

    def _node(self, event: yaml.NodeEvent) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise self._refused(event, f"more than {MAX_NODES} values", "split the file")
        if event.anchor is not None:
            raise self._refused(event, "anchors are not allowed", "write the value out where it is used")
        if getattr(event, "tag", None) is not None:
            raise self._refused(event, "tags are not allowed", "remove the word that begins with `!`")
        value: YamlValue
        if isinstance(event, yaml.ScalarEvent):
            if self._is_key(event):
                return
            value = _scalar(event)
        else:
            value = {} if isinstance(event, yaml.MappingStartEvent) else []
        path = self._place(event, value)
        if isinstance(value, dict | list):
            if len(self._stack) >= MAX_DEPTH:
                raise self._refused(event, f"nested more than {MAX_DEPTH} deep", "flatten it")
            self._stack.append(_Open(path, value))

    def _is_key(self, event: yaml.ScalarEvent) -> bool:
        top = self._stack[-1] if self._stack else None
        if top is None or not isinstance(top.value, dict) or top.key is not None:
            return False
        if event.value in top.value:
            raise self._refused(event, f"duplicate key {event.value[:60]!r}", "keep one of them")
        top.key = event.value
        self.lines[(*top.path, event.value)] = _line(event)
        return True

    def _place(self, event: yaml.NodeEvent, value: YamlValue) -> tuple[str | int, ...]:
        if not self._stack:
            self.root = value
            self.lines[()] = _line(event)
            return ()
        top = self._stack[-1]
        if isinstance(top.value, list):
            path = (*top.path, len(top.value))
            top.value.append(value)
            self.lines[path] = _line(event)
            return path
        if top.key is None:
            raise self._refused(event, "a list or mapping as a key", "use a plain word as the key")
        path = (*top.path, top.key)
        top.value[top.key] = value
        top.key = None
        return path

    def _refused(self, event: yaml.Event, what: str, hint: str) -> DocumentError:
        return DocumentError(what, source=f"{self.source}:{_line(event)}", hint=hint)


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _scalar(event: yaml.ScalarEvent) -> YamlValue:
    text: str = event.value
    if not event.implicit[0]:
        return text  # quoted or block text
    lowered = text if text in _CONSTANTS else text.lower()
    if lowered in _CONSTANTS and text in {lowered, lowered.capitalize(), lowered.upper()}:
        return _CONSTANTS[lowered]
    if _INTEGER.match(text) and len(text) <= MAX_INT_DIGITS:
        return int(text)
    return float(text) if _FLOAT.match(text) else text
