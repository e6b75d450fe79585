"""Where in the TOML file a setting stands."""

from __future__ import annotations

import re

_TABLE = re.compile(r"^\s*(\[\[?)\s*((?:\"[^\"]*\"|'[^']*'|[^\]\"'])+?)\s*\]\]?\s*(?:#.*)?$")
_PART = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_KEY = re.compile(rf"^\s*({_PART}(?:\s*\.\s*{_PART})*)\s*=")
_NAME = re.compile(_PART)
_LONG_TEXT = re.compile(r'"""|' + r"'''")

Location = tuple[str | int, ...]
"""Keys and indices from the root."""


class TomlLines:
    """Line numbers of tables and keys; array tables count their elements. For files that are valid TOML."""

    def __init__(self, text: str) -> None:
        self._lines: dict[Location, int] = {}
        counts: dict[Location, int] = {}
        table: Location = ()
        in_text = False
        for number, line in enumerate(text.split("\n"), start=1):  # splitlines knows ends of line that TOML does not
            inside, in_text = in_text, in_text ^ (len(_LONG_TEXT.findall(line)) % 2 == 1)
            if inside:
                continue
            if header := _TABLE.match(line):
                self._lines.setdefault(_names(header[2]), number)
                table = _indexed(_names(header[2]), counts, new=header[1] == "[[")
                self._lines.setdefault(table, number)
            elif key := _KEY.match(line):
                self._lines.setdefault((*table, *_names(key[1])), number)

    def find(self, location: Location) -> int | None:
        """The line of a setting, or of the nearest table around it."""
        for length in range(len(location), 0, -1):
            if (line := self._lines.get(location[:length])) is not None:
                return line
        return None


def _indexed(names: Location, counts: dict[Location, int], *, new: bool) -> Location:
    """The table's place, with the present index after each array of tables it lies in."""
    place: Location = ()
    for depth, name in enumerate(names, start=1):
        place = (*place, name)
        if new and depth == len(names):
            counts[place] = counts.get(place, -1) + 1
        if place in counts:
            place = (*place, counts[place])
    return place


def _names(dotted: str) -> Location:
    return tuple(part.strip("\"'") for part in _NAME.findall(dotted))
