"""Signals as ECS documents. Whatever a hostile log put into a field, the document is one that the server can take."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from ipaddress import ip_address
from typing import Any

import msgspec

from breachwatch.fleet.indices import ECS_TYPES, index_name
from breachwatch.model import FieldValue, Gap, Match, Signal

ECS_VERSION = "8.17.0"
"""The vocabulary of the top-level names."""

MAX_TEXT_CHARS = 65_536
"""As long as a line that a parser looks at; longer text is cut."""

MAX_FOREIGN = 256
"""Foreign fields per document; the rest is counted in `breachwatch.fields.left_out`."""

MAX_FOREIGN_CHARS = 2_048
"""Of one foreign value: with its name and in UTF-8 well below the 32,766 bytes that a flattened field can hold."""

MAX_NAME_CHARS = 256
"""Of a foreign name."""

MAX_LIST = 256
"""Values of one field, ids of one correlation."""

MAX_ID_BYTES = 512
"""Of `_id`; a longer one would make the server refuse the whole request. Source: Elasticsearch, `_id` field."""

PLAIN_ID = re.compile(r"[A-Za-z0-9._:-]+")
"""Ids that need no escaping anywhere."""

LONG_MIN, LONG_MAX = -(2**63), 2**63 - 1
"""Bounds of the type `long`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One signal, ready to be sent."""

    index: str
    id: str
    source: bytes
    """JSON, one line."""


def document(signal: Signal, *, prefix: str, ingested_at: datetime, version: str = "") -> Document:
    """The document of one signal. Index and id depend on the signal alone, so that sending twice stores once."""
    fields = _body(signal)
    fields |= {
        "@timestamp": signal.at_utc.isoformat(),
        "event.ingested": ingested_at.isoformat(),
        "ecs.version": ECS_VERSION,
        "agent.type": "breachwatch",
        "agent.version": version,
    }
    # the host whose agent speaks, not the name that a forged log line carries; that one goes below `fields`
    fields["host.name"] = _cut(signal.host, MAX_NAME_CHARS)
    return Document(
        index=index_name(prefix, signal.kind, signal.at_utc), id=document_id(signal.id), source=_encode(fields)
    )


def document_id(signal_id: str) -> str:
    """The signal's own id, or its digest where the server could not take that as an id."""
    if len(signal_id) <= MAX_ID_BYTES and PLAIN_ID.fullmatch(signal_id):
        return signal_id
    return blake2b(signal_id.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _body(signal: Signal) -> dict[str, Any]:
    own: dict[str, Any] = {"kind": str(signal.kind), "seq": signal.seq}
    if signal.match is not None:
        return _match_fields(signal.match, signal.host, own)
    if signal.gap is not None:
        return _gap_fields(signal.gap, own)
    own["detail"] = _cut(signal.detail, MAX_TEXT_CHARS)
    return {"event.kind": "event", "event.action": _cut(signal.action, MAX_NAME_CHARS), "breachwatch": own}


def _gap_fields(gap: Gap, own: dict[str, Any]) -> dict[str, Any]:
    own["detail"] = _cut(gap.detail, MAX_TEXT_CHARS)
    if gap.lost_bytes is not None and gap.lost_bytes <= LONG_MAX:
        own["lost_bytes"] = gap.lost_bytes
    return {
        "event.kind": "pipeline_error",
        "event.action": "gap",
        "event.reason": _cut(gap.reason, MAX_NAME_CHARS),
        "log.file.path": _cut(gap.source, MAX_TEXT_CHARS),
        "breachwatch": own,
    }


def _match_fields(match: Match, host: str, own: dict[str, Any]) -> dict[str, Any]:
    known, foreign = split_fields(match.event.fields, host)
    own |= {"level": str(match.rule.level), "event_ids": list(match.event_ids[:MAX_LIST])}
    if foreign:
        own["fields"] = foreign
    if match.group:
        own["group"] = bounded({name: _text(value) for name, value in match.group.items()})
    if match.window is not None:
        own["window"] = {
            "first": match.window.first.isoformat(),
            "last": match.window.last.isoformat(),
            "count": match.window.count,
        }
    return known | {
        "event.kind": "alert",
        "event.id": match.event.id,
        "event.original": _cut(match.event.raw, MAX_TEXT_CHARS),
        "event.severity": match.rule.level.rank,
        "rule.id": _cut(match.rule.id, MAX_NAME_CHARS),
        "rule.name": _cut(match.rule.title, MAX_TEXT_CHARS),
        "rule.author": _cut(match.rule.author, MAX_TEXT_CHARS),
        "tags": [_cut(tag, MAX_NAME_CHARS) for tag in match.rule.tags[:MAX_LIST]],
        "breachwatch": own,
    }


def split_fields(fields: Mapping[str, FieldValue], host: str) -> tuple[dict[str, Any], dict[str, str]]:
    """(ECS fields whose value has the mapped type, everything else as text below one flattened field)."""
    known: dict[str, Any] = {}
    foreign: dict[str, str] = {}
    for name, value in fields.items():
        fitting = None if name == "host.name" and value != host else _fitting(ECS_TYPES.get(name, ""), value)
        if fitting is not None:
            known[name] = fitting
        elif value is not None:
            foreign[name] = _text(value)
    return known, bounded(foreign)


def bounded(foreign: Mapping[str, str]) -> dict[str, str]:
    """At most `MAX_FOREIGN` of them, names and values cut, names that the server cannot take made harmless."""
    kept: dict[str, str] = {}
    for name, value in list(foreign.items())[:MAX_FOREIGN]:
        kept[_name(name)] = _cut(value, MAX_FOREIGN_CHARS)
    if len(foreign) > MAX_FOREIGN:
        kept["left_out"] = str(len(foreign) - MAX_FOREIGN)
    return kept


def _name(name: str) -> str:
    """Without NUL (the server's own separator) and without empty parts between dots."""
    parts = [part for part in _cut(name, MAX_NAME_CHARS).replace("\0", "\\x00").split(".") if part.strip()]
    return ".".join(parts) or "unnamed"


def _fitting(kind: str, value: FieldValue) -> Any:
    """The value as the mapping wants it, or None."""
    if not kind or value is None:
        return None
    if isinstance(value, list | tuple):
        fitting = [None if isinstance(item, list | tuple) else _fitting(kind, item) for item in value[:MAX_LIST]]
        return None if len(value) > MAX_LIST or None in fitting else fitting
    if kind == "long":
        return value if type(value) is int and LONG_MIN <= value <= LONG_MAX else None
    if kind in {"keyword", "text"} and isinstance(value, str | int | float):
        return _cut(str(value), MAX_TEXT_CHARS)
    if kind == "ip":
        return _address(value)
    return _moment(value) if kind == "date" else None


def _address(value: FieldValue) -> str | None:
    try:
        return str(ip_address(value.partition("%")[0])) if isinstance(value, str) else None
    except ValueError:
        return None


def _moment(value: FieldValue) -> str | None:
    try:
        return datetime.fromisoformat(value).isoformat() if isinstance(value, str) else None
    except ValueError:
        return None


def _text(value: FieldValue) -> str:
    """Any value as text; lists and mappings as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping | Sequence):
        try:
            return json.dumps(msgspec.to_builtins(value), ensure_ascii=False)
        except (RecursionError, ValueError, TypeError):
            return "nested too deeply to be shown"
    return str(value)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[:limit]


def _encode(fields: dict[str, Any]) -> bytes:
    r"""UTF-8 in one line. A lone surrogate, which UTF-8 does not have, becomes visible as `\udcff`."""
    try:
        return msgspec.json.encode(fields)
    except UnicodeEncodeError:
        return msgspec.json.encode(_without_surrogates(fields))


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    return value
