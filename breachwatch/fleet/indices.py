"""Index names and their template: which index a document belongs to, and how the server reads it.

The name depends on nothing but the document's own kind and time. A signal that is sent again a month later, after a
crash, therefore meets the copy that is there already.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from breachwatch.model import SignalKind

FIRST_YEAR, LAST_YEAR = 2020, 2039
"""Months outside go to one `late` index. Whoever writes a log chooses its dates: without bounds they could make the
server open an index for each month since the year 1. Fixed years rather than "near today", which would send a late
retry of the same signal to another index, where nothing says that it is there twice."""

STEMS: Mapping[SignalKind, str] = {
    SignalKind.MATCH: "alerts",
    SignalKind.GAP: "daemon",
    SignalKind.DAEMON: "daemon",
    SignalKind.HEARTBEAT: "heartbeat",
}
"""What stands between the prefix and the month."""

KEYWORD_CHARS = 1024
"""Longer values are kept in the document but not searchable (`ignore_above`). Source: ECS, keyword fields."""

KEYWORDS = (
    "agent.type", "agent.version", "ecs.version", "error.code", "event.action", "event.category", "event.dataset",
    "event.id", "event.kind", "event.module", "event.outcome", "event.reason", "event.type", "file.directory",
    "file.extension", "file.gid", "file.hash.sha256", "file.inode", "file.mode", "file.name", "file.path",
    "file.target_path", "file.type", "file.uid", "group.id", "group.name", "host.boot.id", "host.name",
    "http.request.method", "http.request.referrer", "http.version", "log.file.path", "log.flags", "log.level",
    "process.command_line", "process.executable", "process.name", "process.working_directory", "rule.author",
    "rule.id", "rule.name", "source.address", "source.domain", "tags", "tls.cipher", "tls.version_protocol",
    "url.domain", "url.original", "url.path", "url.query", "url.scheme", "user.effective.name", "user.id", "user.name",
    "user_agent.original",
)  # fmt: skip
LONGS = (
    "event.severity", "file.size", "http.response.body.bytes", "http.response.status_code", "log.offset",
    "log.syslog.priority", "process.pid", "process.thread.id", "source.port",
)  # fmt: skip
IPS = ("network.forwarded_ip", "source.ip")
DATES = ("event.ingested", "file.mtime")
TEXTS = ("error.message", "message")

ECS_TYPES: Mapping[str, str] = {
    **dict.fromkeys(KEYWORDS, "keyword"),
    **dict.fromkeys(LONGS, "long"),
    **dict.fromkeys(IPS, "ip"),
    **dict.fromkeys(DATES, "date"),
    **dict.fromkeys(TEXTS, "text"),
}
"""Every ECS field that may stand at the top of a document. Other names go into `breachwatch.fields`: a foreign
`source: "x"` beside `source.ip` would make the server refuse the document. Source: ECS 8.17; core types only, since a
server without the paid or bundled modules knows neither wildcard nor match_only_text."""

TEMPLATE_VERSION = 1
"""Raised with every change of the mapping."""


def index_name(prefix: str, kind: SignalKind, at_utc: datetime) -> str:
    """`bw-alerts-2026.11`, or `bw-alerts-late` for a date outside the bounds."""
    moment = at_utc.astimezone(UTC) if FIRST_YEAR <= at_utc.year <= LAST_YEAR else at_utc
    inside = FIRST_YEAR <= moment.year <= LAST_YEAR
    return f"{prefix}-{STEMS[kind]}-{moment:%Y.%m}" if inside else f"{prefix}-{STEMS[kind]}-late"


def template_name(prefix: str) -> str:
    """One template for all of ours."""
    return f"{prefix}-telemetry"


def index_template(prefix: str) -> dict[str, Any]:
    """Body of `PUT _index_template`: nothing that a document brings along can change the mapping."""
    properties: dict[str, Any] = {"@timestamp": {"type": "date"}, "event.original": _unsearched()}
    properties |= {name: _field(kind) for name, kind in ECS_TYPES.items()}
    properties["breachwatch"] = {"properties": _own_fields()}
    settings = {
        "number_of_shards": 1,
        "auto_expand_replicas": "0-1",
        "codec": "best_compression",
        "refresh_interval": "5s",
        "mapping.ignore_malformed": True,
    }
    return {
        "index_patterns": [f"{prefix}-{stem}-*" for stem in sorted(set(STEMS.values()))],
        "priority": 200,
        "version": TEMPLATE_VERSION,
        "template": {"settings": {"index": settings}, "mappings": {"dynamic": False, "properties": properties}},
    }


def _own_fields() -> dict[str, Any]:
    flattened = {"type": "flattened", "ignore_above": KEYWORD_CHARS}
    window = {"first": _field("date"), "last": _field("date"), "count": _field("long")}
    return {
        "kind": _field("keyword"),
        "seq": _field("long"),
        "level": _field("keyword"),
        "detail": _field("text"),
        "lost_bytes": _field("long"),
        "event_ids": _field("keyword"),
        "window": {"properties": window},
        "group": flattened,
        "fields": flattened,
    }


def _field(kind: str) -> dict[str, Any]:
    return {"type": kind, "ignore_above": KEYWORD_CHARS} if kind == "keyword" else {"type": kind}


def _unsearched() -> dict[str, Any]:
    return {"type": "keyword", "index": False, "doc_values": False}
