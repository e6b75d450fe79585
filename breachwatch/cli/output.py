"""How commands print: one JSON object a line with `--json`, else plain text that no log line can abuse."""

from __future__ import annotations

import json
from collections.abc import Mapping

import click


def print_json(item: Mapping[str, object]) -> None:
    """One object on one line. Undecodable bytes stay escaped, so the output is always valid UTF-8."""
    text = json.dumps(item, ensure_ascii=False, default=str)
    click.echo(text.encode("utf-8", "backslashreplace").decode("utf-8"))


def safe(text: object, width: int = 0) -> str:
    r"""Text from a log, made harmless for a terminal: control characters shown as \xhh, cut to `width`."""
    clean = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in str(text))
    clean = clean.encode("utf-8", "backslashreplace").decode("utf-8")
    return clean[: width - 1] + "…" if width and len(clean) > width else clean
