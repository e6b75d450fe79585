"""Where in the TOML file a setting stands, and validation errors as sentences with that line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

_TABLE = re.compile(r"^\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""^\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"))*)\s*=""")

Location = tuple[str | int, ...]


class TomlLines:
    """Line numbers of tables and keys; array tables count their elements."""

    def __init__(self, text: str) -> None:
        self._lines: dict[Location, int] = {}
        counts: dict[Location, int] = {}
        table: Location = ()
        for number, line in enumerate(text.splitlines(), start=1):
            if header := _TABLE.match(line):
                table = _names(header[2])
                if header[1] == "[[":
                    counts[table] = counts.get(table, -1) + 1
                    table = (*table, counts[table])
                self._lines.setdefault(table, number)
            elif key := _KEY.match(line):
                self._lines.setdefault((*table, *_names(key[1])), number)

    def find(self, location: Location) -> int | None:
        """The line of a setting, or of the nearest table around it."""
        for length in range(len(location), 0, -1):
            if (line := self._lines.get(location[:length])) is not None:
                return line
        return None


def _names(dotted: str) -> Location:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


def problems(error: ValidationError, model: type[BaseModel], lines: TomlLines, source: str) -> Iterator[str]:
    """One sentence per problem: file:line, setting, what is wrong, what is allowed. Never the value of a secret."""
    for found in error.errors(include_input=False, include_url=False):
        location = found["loc"]
        line = lines.find(location)
        where = f"{source}:{line}" if line else f"{source} (or the environment)"
        name = ".".join(str(part) for part in location)
        if found["type"] == "extra_forbidden":
            known = _known_keys(model, location[:-1])
            close = get_close_matches(str(location[-1]), known, n=1)
            guess = f"did you mean {close[0]!r}?" if close else f"allowed here: {', '.join(known)}"
            yield f"{where}: unknown setting {name!r}: {guess}"
        else:
            yield f"{where}: {name}: {found['msg']}"


def _known_keys(model: Any, location: Location) -> list[str]:
    """Names allowed in the table at `location`."""
    current: Any = model
    for part in location:
        if isinstance(part, int):
            continue
        field = getattr(current, "model_fields", {}).get(part)
        if field is None:
            continue
        current = _inner_model(field.annotation) or current
    return sorted(getattr(current, "model_fields", {}))


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if (inner := _inner_model(argument)) is not None:
            return inner
    return None
