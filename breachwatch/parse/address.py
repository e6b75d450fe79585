"""Who was at the other end: `source.ip` only for what is an address, `source.address` for what the line says."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from breachwatch.model import FieldValue

MAX_ADDRESS_CHARS = 256
"""DNS names end at 253 (RFC 1035); anything longer is not an address."""

MAX_PORT = 65_535
"""16 bits (RFC 793)."""

_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IPV4 = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}", re.ASCII)
_NAME = re.compile(r"(?=[^.]{0,63}[A-Za-z])[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9])?", re.ASCII)
_HAS_PORT = re.compile(r"\[([0-9A-Fa-f:.%a-z]{2,64})\](?::(\d{1,5}))?|((?:\d{1,3}\.){3}\d{1,3}):(\d{1,5})", re.ASCII)


def is_ipv4(text: str) -> bool:
    """Four numbers up to 255 without leading zeros."""
    return _IPV4.fullmatch(text) is not None


@lru_cache(maxsize=65_536)
def ip_of(text: str) -> str | None:
    """The address as it is written, IPv4-mapped ones as IPv4, without zone; None where `text` is no address."""
    if _IPV4.fullmatch(text):
        return text
    if ":" not in text or len(text) > 64:  # noqa: PLR2004  # no address is longer, even with a zone
        return None
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return text.partition("%")[0]


def set_source(fields: dict[str, FieldValue], text: str) -> None:
    """Note the remote end. Names stay names: nothing is resolved."""
    if not text:
        return
    fields["source.address"] = text if len(text) <= MAX_ADDRESS_CHARS else text[:MAX_ADDRESS_CHARS]
    address = ip_of(text)
    if address is not None:
        fields["source.ip"] = address
    elif _NAME.fullmatch(text) is not None:
        fields["source.domain"] = text


def set_source_port(fields: dict[str, FieldValue], text: str | None) -> None:
    """Note the remote port where it is one."""
    if text:
        port = int(text)
        if 0 < port <= MAX_PORT:
            fields["source.port"] = port


def split_port(text: str) -> tuple[str, str | None]:
    """`1.2.3.4:80` and `[::1]:80` in two; anything else as it is."""
    found = _HAS_PORT.fullmatch(text)
    if found is None:
        return text, None
    return found[1] or found[3], found[2] or found[4]
