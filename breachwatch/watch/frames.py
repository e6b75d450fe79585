"""Messages in a syslog byte stream: octet counting and line feeds, told apart one by one. Source: RFC 6587 3.4."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_COUNTED = re.compile(rb"([1-9]\d{0,8}) <")  # no message has a gigabyte
_MAYBE_COUNTED = re.compile(rb"[1-9]\d{0,8} ?\Z")
_BETWEEN = b"\r\n\0"
"""Ends that some senders put behind a counted message, and empty lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One message, cut at the limit."""

    data: bytes
    length: int
    """Of the whole message; more than `len(data)` if it was cut."""
    is_partial: bool = False
    """The connection ended inside it."""


class Frames:
    """Feeds on chunks of one connection and never holds more than one message, of which it keeps `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._begin = b""
        """A start that may yet become a length."""
        self._head = bytearray()
        self._length = 0
        self._left = 0
        """Bytes of a counted message still to come; 0 outside one."""
        self._in_line = False

    def feed(self, chunk: bytes) -> Iterator[Frame]:
        """The messages that end in this chunk."""
        data, self._begin = self._begin + chunk if self._begin else chunk, b""
        at = 0
        while at < len(data):
            if self._left:
                part = data[at : at + self._left]
                at += len(part)
                self._left -= len(part)
                self._keep(part)
                if self._left == 0:
                    yield self._taken()
            elif self._in_line:
                end = data.find(b"\n", at)
                self._keep(data[at:end] if end >= 0 else data[at:])
                at = end + 1 if end >= 0 else len(data)
                if end >= 0:
                    self._in_line = False
                    yield self._taken()
            elif data[at] in _BETWEEN:
                at += 1
            elif (counted := _COUNTED.match(data, at)) is not None:
                self._left = int(counted[1])
                at = counted.end() - 1
            elif _MAYBE_COUNTED.match(data, at) is not None:
                self._begin = data[at:]
                return
            else:
                self._in_line = True

    def end(self) -> Iterator[Frame]:
        """What was left unfinished when the connection ended."""
        if self._begin:
            self._keep(self._begin)
        self._begin, self._left, self._in_line = b"", 0, False
        if self._length:
            frame = self._taken()
            yield Frame(data=frame.data, length=frame.length, is_partial=True)

    def _keep(self, part: bytes) -> None:
        self._length += len(part)
        room = self._max - len(self._head)
        if room > 0:
            self._head += part[:room]

    def _taken(self) -> Frame:
        data, length = bytes(self._head), self._length
        self._head.clear()
        self._length = 0
        if length == len(data):
            data = data.rstrip(_BETWEEN)
            length = len(data)
        return Frame(data=data, length=length)
