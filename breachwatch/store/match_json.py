"""Matches as JSON text and back."""

from __future__ import annotations

import json

import msgspec

from breachwatch.errors import RowError
from breachwatch.model import Match

_decoder = msgspec.json.Decoder(Match)


def match_to_json(match: Match) -> str:
    """All of a match. A lone surrogate, which no database holds, becomes a question mark: evidence is never refused."""
    try:
        return msgspec.json.encode(match).decode()
    except UnicodeEncodeError:
        plain = json.dumps(msgspec.to_builtins(match), ensure_ascii=False)
        return plain.encode("utf-8", "replace").decode()


def match_from_json(text: str) -> Match:
    """The match that `match_to_json` was given. Raises: StoreError (damaged or foreign row)."""
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise RowError("a stored match is damaged", hint="check the disk; restore a backup") from error
