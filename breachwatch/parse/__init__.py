"""Log lines, file changes and gaps to events in ECS names. Pure: values in, values out."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from breachwatch.errors import ParseError
from breachwatch.parse.auditd import AuditdParser
from breachwatch.parse.auto import AutoParser, detect_format
from breachwatch.parse.context import Assembler, ParseContext, Parser
from breachwatch.parse.event import event_id
from breachwatch.parse.integrity import event_from_change, event_from_gap, identity_of
from breachwatch.parse.journal import JournalParser
from breachwatch.parse.jsonlines import JsonParser
from breachwatch.parse.syslog import SyslogParser
from breachwatch.parse.web import WebParser

FORMATS: Mapping[str, Callable[[], Parser]] = {
    "auto": AutoParser,
    "sshd": lambda: SyslogParser("sshd"),
    "syslog": lambda: SyslogParser("syslog"),
    "syslog5424": lambda: SyslogParser("syslog5424"),
    "nginx": lambda: WebParser("nginx"),
    "apache": lambda: WebParser("apache"),
    "json": JsonParser,
    "journal": JournalParser,
    "auditd": AuditdParser,
}
"""Every format by the name that configuration and command line use; each call makes the parser of one file."""


def parser_for(format: str) -> Parser:  # noqa: A002  # the word the command line uses
    """A new parser for one file of this format. Raises: ParseError."""
    make = FORMATS.get(format)
    if make is None:
        raise ParseError(f"unknown log format {format!r}", hint="one of " + ", ".join(sorted(FORMATS)))
    return make()


__all__ = [
    "FORMATS",
    "Assembler",
    "ParseContext",
    "Parser",
    "detect_format",
    "event_from_change",
    "event_from_gap",
    "event_id",
    "identity_of",
    "parser_for",
]
