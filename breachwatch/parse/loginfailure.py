"""Refused logins of programs without a reader of their own, from the words they share."""

from __future__ import annotations

import re

from breachwatch.model import FieldValue, LogSource
from breachwatch.parse.address import ip_of, set_source
from breachwatch.parse.pam import AUTH

MAX_SEARCHED_CHARS = 2048
"""A refusal says so early; what follows is payload."""

_HINT = re.compile(r"auth|log[io]n|password|credential|user", re.IGNORECASE)
_REFUSED = re.compile(
    r"(?:auth\w{0,12}|log[io]n|password|credentials?)\b[^\n]{0,40}?"
    r"\b(?:fail(?:ed|ure)?|denied|rejected|refused|invalid|incorrect|mismatch|error)\b"
    r"|\b(?:fail(?:ed|ure)?|invalid|incorrect|wrong|bad|unsuccessful|could not)\b[^\n]{0,40}?"
    r"\b(?:auth\w{0,12}|log[io]n|password|credentials?|username)\b",
    re.IGNORECASE,
)
_NOT_JUDGED = re.compile(
    r"connection (?:abort|reset|closed|timed out|refused)|replay cache|time(?:d )?out|internal error|i/o error",
    re.IGNORECASE,
)
"""The connection or the server broke: nobody's password was judged."""
_ADDRESS = re.compile(
    r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?:\.\d{1,3}){0,3})(?![\w.])"
)


def read_login_failure(message: str, fields: dict[str, FieldValue]) -> LogSource | None:
    """The event of a message that says a login was refused and names exactly one address; None for all others.

    The user name is left alone: without the program's grammar there is no telling what of it the client chose.
    """
    message = message[:MAX_SEARCHED_CHARS]
    if _HINT.search(message) is None or _REFUSED.search(message) is None:
        return None
    if _NOT_JUDGED.search(message) is not None:
        return None
    addresses = {address for text in _ADDRESS.findall(message) if (address := ip_of(text)) is not None}
    if len(addresses) != 1:
        return None
    set_source(fields, addresses.pop())
    fields["event.category"] = ("authentication",)
    fields["event.type"] = ("start",)
    fields["event.action"] = "app_login"
    fields["event.outcome"] = "failure"
    return AUTH
