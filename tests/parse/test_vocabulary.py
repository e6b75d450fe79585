"""What parsers say exists in ECS, or under a name of our own."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from breachwatch.parse import Assembler, parser_for
from tests.parse.samples import CONTEXT, file_lines, raw_line
from tests.parse.test_integrity import AT, change

OWN = ("sshd.", "pam.", "sudo.", "web.", "integrity.", "journal.", "account.", "apache.", "nginx.", "auditd.")
"""Top-level names that are ours (ECS: custom fields go under names it does not use)."""

BEATS = ("log.offset", "log.flags")
"""Known to every Elastic tool though not to ECS itself; `log.offset` is in the contract of `scan`."""


def events_of(shared_data: Path):
    from breachwatch.model import Gap
    from breachwatch.parse import event_from_change, event_from_gap

    for path, kind in (
        ("loghub/OpenSSH_2k.log", "syslog"),
        ("loghub/Linux_2k.log", "syslog"),
        ("loghub/Apache_2k.log", "apache"),
        ("plaso/audit_enriched.log", "auditd"),
        ("crowdsec-scenarios.dev/auditd-suid-crash.log", "auditd"),
    ):
        parser = parser_for(kind)
        for line in file_lines(shared_data / path):
            yield from parser.parse(line, CONTEXT)
        if isinstance(parser, Assembler):
            yield from parser.flush(CONTEXT, everything=True)
    for name in ("fail2ban.dev.jsonl", "crowdsec-parse.dev.jsonl", "wazuh.dev.jsonl"):
        for row in (shared_data / name).read_text(encoding="utf-8").splitlines():
            text = json.loads(row).get("line") or ""
            for event in parser_for("auto").parse(raw_line(text), CONTEXT):
                if not text.startswith("{"):
                    yield event
    yield event_from_change(change(), host="h")
    yield event_from_gap(Gap(source="/x", reason="truncated", at_utc=AT, lost_bytes=1), host="h")


def test_every_field_and_value_is_ecs_or_our_own(shared_data):
    with (shared_data / "ecs" / "fields.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    types = {row["Field"]: row["Type"] for row in rows}
    allowed = json.loads((shared_data / "ecs" / "allowed-values.json").read_text(encoding="utf-8"))
    seen = 0
    for event in events_of(shared_data):
        seen += 1
        fields = event.fields
        for name, value in fields.items():
            assert name in types or name in BEATS or name.startswith(OWN), name
            if types.get(name) in ("long", "integer"):
                assert isinstance(value, int), name
        assert fields["event.kind"] in allowed["event.kind"]
        if fields["event.kind"] == "pipeline_error":
            continue
        legal = {kind for category in fields["event.category"] for kind in allowed["event.category"][category]}
        assert set(fields["event.type"]) <= legal, (fields["event.category"], fields["event.type"])
        assert fields.get("event.outcome", "unknown") in allowed["event.outcome"]
        assert fields["event.action"]
    assert seen > 6000
