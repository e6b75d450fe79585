"""Rules from text and events from JSON, as the agent would see them."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from breachwatch.detect.load import load_rules
from breachwatch.detect.reference import matches
from breachwatch.detect.ruleset import RuleSet, RuleText
from breachwatch.model import Event, RawLine
from breachwatch.parse import ParseContext, parser_for

REFERENCE = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LINE_BYTES = 1_000_000


def events_of(records: Iterable[Mapping[str, Any] | str], log_format: str = "json") -> list[Event]:
    """One event per record; text is taken as it is."""
    parser = parser_for(log_format)
    context = ParseContext(host="web01", reference_utc=REFERENCE, tz=UTC, year=None)
    events: list[Event] = []
    for number, record in enumerate(records):
        data = (record if isinstance(record, str) else json.dumps(record)).encode("utf-8", "surrogateescape")
        line = RawLine(source="/var/log/x.json", data=data, offset=number * LINE_BYTES, generation="g")
        events.extend(parser.parse(line, context))
    return events


def rule_text(detection: str, *, rule_id: str = "11111111-1111-4111-8111-111111111111", extra: str = "") -> str:
    """A whole rule around the lines below `detection:`."""
    body = "\n".join("  " + line for line in detection.strip("\n").splitlines())
    return f"title: t\nid: {rule_id}\nlogsource:\n  product: linux\n{extra}detection:\n{body}\n"


def loaded(*texts: str) -> RuleSet:
    """The rules of these texts, none of which may be refused."""
    rules = load_rules([RuleText(f"{number}.yml", text) for number, text in enumerate(texts)])
    assert [str(refused) for refused in rules.refused] == []
    return rules


def refusals(*texts: str) -> list[str]:
    """Why rules are refused."""
    return [str(error) for error in load_rules([RuleText(f"{n}.yml", text) for n, text in enumerate(texts)]).refused]


def answers(detection: str, *records: Mapping[str, Any] | str, log_format: str = "json") -> list[bool]:
    """For each record, whether a rule of these lines matches it."""
    (rule,) = loaded(rule_text(detection)).rules
    return [matches(rule, event) for event in events_of(records, log_format)]


def sigmahq(shared_data: Path) -> list[RuleText]:
    """All rules of the SigmaHQ snapshot."""
    with tarfile.open(shared_data / "sigmahq-rules.tar.gz") as archive:
        members = [member for member in archive if member.name.endswith(".yml")]
        files = [(member.name, archive.extractfile(member)) for member in members]
        return [RuleText(name, file.read().decode()) for name, file in files if file is not None]
