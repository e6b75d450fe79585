"""Entries as canonical bytes. Source: RFC 8785 (JCS), restricted so that every JSON library agrees."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import msgspec

from breachwatch.errors import AuditError, VerificationError
from breachwatch.model import Entry

MAX_ENTRY_BYTES = 16_384
"""Far below the 65,535 bytes that tlog-tiles can frame."""

MAX_DEPTH = 16
"""Nothing we write nests deeper than three; JSON readers give up at depths of their own."""

SAFE_INTEGER = 2**53
VERSION = 1
KEYS = {"actor", "body", "inc", "t", "type", "v"}

_encoder = msgspec.json.Encoder(order="sorted")


def encode(entry: Entry) -> bytes:
    """Canonical JSON of one entry. Raises: AuditError for what JSON libraries would disagree on."""
    body = dict(entry.body)
    for value in (entry.type, entry.actor, entry.incident_id):
        if not isinstance(value, str):
            raise AuditError(f"audit entry with a {type(value).__name__} for a name", source=str(entry.type))
        _check(value, entry.type)
    _check(body, entry.type)
    if entry.at_utc.tzinfo is None:
        raise AuditError("audit entry with a time without a zone", source=entry.type)
    moment = entry.at_utc.astimezone(UTC)
    document = {
        "actor": entry.actor,
        "body": body,
        "inc": entry.incident_id,
        "t": moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond:06d}Z",
        "type": entry.type,
        "v": VERSION,
    }
    encoded = _encoder.encode(document)
    if len(encoded) > MAX_ENTRY_BYTES:
        raise AuditError(f"audit entry of {len(encoded)} bytes; at most {MAX_ENTRY_BYTES}", source=entry.type)
    return encoded


def _check(value: object, where: str, depth: int = 0) -> None:  # noqa: C901  # one branch per JSON type
    if depth > MAX_DEPTH:
        raise AuditError(f"audit entry nested deeper than {MAX_DEPTH}", source=where)
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise AuditError("audit entry with text that is not Unicode", source=where) from error
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int):
        if abs(value) >= SAFE_INTEGER:
            raise AuditError("audit entry with an integer beyond 2**53", source=where)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str) or not key.isascii():
                raise AuditError("audit entry with a key that is not ASCII", source=where)
            _check(item, f"{where}.{key}", depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _check(item, where, depth + 1)
    else:
        raise AuditError(f"audit entry with a {type(value).__name__}", source=where)


def decode(data: bytes, index: int = -1) -> Entry:
    """The entry that these bytes are; refuses any other spelling of it. Raises: VerificationError."""
    try:
        document = json.loads(data)
        if document.keys() != KEYS or document["v"] != VERSION:
            raise ValueError("unknown fields or version")  # noqa: TRY301  # all ways of being unreadable end alike
        entry = Entry(
            type=document["type"],
            at_utc=datetime.fromisoformat(document["t"]),
            actor=document["actor"],
            incident_id=document["inc"],
            body=document["body"],
        )
        canonical = encode(entry)
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError, AuditError) as error:
        raise VerificationError(f"entry {index} cannot be read: {error}") from error
    if canonical != data:
        raise VerificationError(f"entry {index} is not in canonical form")
    return entry
