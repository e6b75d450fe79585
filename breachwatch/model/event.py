"""A parsed line or file change, in flat ECS names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    FieldValue = str | int | float | bool | None | Sequence["FieldValue"] | Mapping[str, "FieldValue"]
else:
    FieldValue = Any  # the codecs need a type that is not recursive
"""What a field may hold. Nested mappings and lists only come from JSON input."""


@dataclass(frozen=True, slots=True)
class LogSource:
    """Sigma's log source: what kind of thing made the event. An empty part means not known."""

    product: str = ""
    category: str = ""
    service: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened, as fields.

    `id` comes from content (source generation, offset, line), so reading twice never makes two.
    `fields` are flat ECS names (`source.ip`); JSON input keeps its own names beside `log.*`.
    """

    id: str
    at_utc: datetime
    logsource: LogSource
    fields: Mapping[str, FieldValue]
    raw: str = ""
    """The line as text (UTF-8, undecodable bytes as `\\xhh`): what keyword rules search."""
