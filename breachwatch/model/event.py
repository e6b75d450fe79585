"""A parsed line or file change, in flat ECS names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    FieldValue = str | int | float | bool | None | Sequence["FieldValue"] | Mapping[str, "FieldValue"]
else:
    FieldValue = Any  # the codecs need a type that is not recursive
"""What a field may hold. Nested mappings and lists only come from JSON input."""


class LogSource(msgspec.Struct, frozen=True):
    """Sigma's log source: what kind of thing made the event. An empty part means not known."""

    product: str = ""
    category: str = ""
    service: str = ""


class Event(msgspec.Struct, frozen=True, kw_only=True):
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
