"""How the bytes of one log become records: its encoding, and where a record of several lines begins."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from dataclasses import dataclass

from breachwatch.errors import ConfigError

BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
"""Byte order marks that `auto` obeys. UTF-32 logs do not occur."""

MAX_RECORD_LINES = 500
"""A record of several lines ends here at the latest (as in Filebeat): a start that never comes fills no memory."""

RECORD_QUIET_S = 2.0
"""The last record of a growing file is taken as whole after so long without growth."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """A resolved encoding: how wide a unit is and what ends a line."""

    name: str
    unit: int
    line_feed: bytes

    def text(self, data: bytes) -> bytes:
        r"""The line in UTF-8; what cannot be decoded becomes `\xhh`."""
        return data.decode(self.name, "backslashreplace").encode("utf-8", "backslashreplace")


UTF_8 = Encoding("utf-8", 1, b"\n")


def resolve(name: str) -> Encoding:
    """The encoding of that name. Raises: ConfigError where Python knows none, or it cannot be read line by line."""
    try:
        known = codecs.lookup(name)
        line_feed, line = "\n".encode(known.name), "A\n".encode(known.name)
    except (LookupError, UnicodeError) as error:
        raise ConfigError(f"unknown encoding {name!r}", hint="for example utf-8, utf-16-le, latin-1, cp1252") from error
    if known.name == "utf-8":
        return UTF_8
    if not line.endswith(line_feed) or len(line_feed) not in {1, 2}:
        raise ConfigError(
            f"{name!r} does not say how wide its units are, or is no text",
            hint="utf-16-le, utf-16-be, or auto for a BOM",
        )
    return Encoding(known.name, len(line_feed), line_feed)


@dataclass(frozen=True, slots=True)
class Framing:
    """What the settings say about one log."""

    encoding: str = "auto"
    """A codec of Python, or `auto`: UTF-8 unless a byte order mark says otherwise."""
    record_start: str = ""
    """A regular expression that the first line of a record begins with; empty: every line is a record."""
    max_lines: int = MAX_RECORD_LINES

    def encoding_of(self, head: bytes) -> Encoding:
        """The encoding of a file that begins like this."""
        if self.encoding != "auto":
            return resolve(self.encoding)
        for mark, name in BOMS:
            if head.startswith(mark):
                return resolve(name)
        return UTF_8

    def starts_record(self) -> Callable[[bytes], object] | None:
        """Tells the first line of a record; None where every line is one.

        RE2, because an attacker writes the lines: its time is linear in their length. Raises: ConfigError.
        """
        if not self.record_start:
            return None
        import re2

        options = re2.Options()
        options.log_errors = False
        try:
            expression = re2.compile(self.record_start.encode(), options)
        except re2.error as error:
            raise ConfigError(f"not a regular expression that RE2 runs: {self.record_start!r}: {error}") from error
        match: Callable[[bytes], object] = expression.match
        return match


_TRAILING = re.compile(rb"[\xc0-\xff][\x80-\xbf]{0,2}\Z")


def whole_characters(head: bytes) -> bytes:
    """A cut line without the first part of a UTF-8 character at its end."""
    found = _TRAILING.search(head[-3:])
    if found is None:
        return head
    lead, present = found[0][0], len(found[0])
    needed = 2 + (lead >= 0xE0) + (lead >= 0xF0)  # noqa: PLR2004  # RFC 3629 section 3
    return head[:-present] if present < needed else head
