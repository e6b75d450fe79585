r"""Undoing what URLs and web servers do to bytes: `%2e`, `%u002e`, overlong UTF-8, `+`, Apache's `\x2e`."""

from __future__ import annotations

import re
from functools import lru_cache

DECODE_ROUNDS = 3
"""Attackers encode twice to pass a filter that decodes once; nothing honest is encoded three times."""

MAX_KEPT = 512
"""Characters of a text whose decoded form is remembered: scanners send the same few thousand requests to everyone."""

_PERCENT = re.compile(rb"%(?:([0-9a-fA-F]{2})|u([0-9a-fA-F]{4}))")
_ESCAPED = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|([\"\\bnrtv]))")
_OVERLONG = re.compile(rb"[\xc0\xc1][\x80-\xbf]|\xe0[\x80-\x9f][\x80-\xbf]")
_LETTERS = {b'"': b'"', b"\\": b"\\", b"b": b"\b", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}


_HEX = {b"%02x" % octet: bytes((octet,)) for octet in range(256)}


def _from_percent(found: re.Match[bytes]) -> bytes:
    octet = found[1]
    if octet is not None:
        return _HEX[octet.lower()]
    return chr(int(found[2], 16)).encode("utf-8", "surrogatepass")


def _from_escape(found: re.Match[bytes]) -> bytes:
    return bytes((int(found[1], 16),)) if found[1] is not None else _LETTERS[found[2]]


def _from_overlong(found: re.Match[bytes]) -> bytes:
    """Two or three bytes for a character that needs fewer: forbidden, yet some servers take it. Source: CWE-173."""
    octets = found[0]
    point = octets[0] & 0x0F
    for octet in octets[1:]:
        point = (point << 6) | (octet & 0x3F)
    return chr(point).encode()


def percent_decoded(text: str) -> str:
    r"""One round of URL decoding; bytes that are no UTF-8 become `\xhh`."""
    if "%" not in text:
        return text
    return _decoded(text) if len(text) <= MAX_KEPT else _decoded.__wrapped__(text)


@lru_cache(maxsize=2_048)
def _decoded(text: str) -> str:
    octets = _PERCENT.sub(_from_percent, text.encode("utf-8", "surrogatepass"))
    if octets.isascii():
        return octets.decode("ascii")
    return _OVERLONG.sub(_from_overlong, octets).decode("utf-8", "backslashreplace")


def unescaped(text: str) -> str:
    r"""The bytes a web server wrote as `\x22` or `\"`. Source: Apache ap_escape_logitem, nginx log_format escape."""
    if "\\" not in text:
        return text
    octets = _ESCAPED.sub(_from_escape, text.encode("utf-8", "surrogatepass"))
    return _OVERLONG.sub(_from_overlong, octets).decode("utf-8", "backslashreplace")


def fully_decoded(text: str, *, plus_is_space: bool = False) -> str:
    """What the application may in the end see: escapes undone, then up to three rounds of URL decoding."""
    decoded = unescaped(text)
    if plus_is_space and "+" in decoded:
        decoded = decoded.replace("+", " ")
    for _ in range(DECODE_ROUNDS):
        if "%" not in decoded:
            break
        before, decoded = decoded, percent_decoded(decoded)
        if decoded == before:
            break
    return decoded
