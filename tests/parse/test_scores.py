# ruff: noqa: E501  # real log lines stay in one piece
"""How much of other people's logs the parsers read right. Floors are what is reached; they only go up."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

import pytest

from breachwatch.model import Event
from breachwatch.parse import ParseContext, parser_for
from tests.parse.samples import CONTEXT, file_lines, raw_line, whole

YEAR = ParseContext(host="h", reference_utc=CONTEXT.reference_utc, year=2005)


def events_in(path: Path, kind: str, context: ParseContext = YEAR) -> list[Event]:
    parser = parser_for(kind)
    return [parser.parse(line, context)[0] for line in file_lines(path)]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("kind", ["syslog", "sshd", "auto"])
def test_every_field_of_loghubs_openssh_is_right(shared_data, kind):
    rows = rows_of(shared_data / "loghub" / "OpenSSH_2k.log_structured.csv")
    events = events_in(shared_data / "loghub" / "OpenSSH_2k.log", kind)
    assert len(rows) == len(events) == 2000
    for row, event in zip(rows, events, strict=True):
        found = (
            f"{event.at_utc:%b %-d %H:%M:%S}",
            *(event.fields[key] for key in ("host.name", "process.name", "message")),
        )
        assert found == (f"{row['Date']} {row['Day']} {row['Time']}", row["Component"], "sshd", row["Content"])
        assert event.fields["process.pid"] == int(row["Pid"])
        assert event.at_utc.year == 2005


def test_every_field_of_loghubs_linux_is_right(shared_data):
    rows = rows_of(shared_data / "loghub" / "Linux_2k.log_structured.csv")
    events = events_in(shared_data / "loghub" / "Linux_2k.log", "auto")
    assert len(rows) == len(events) == 2000
    for row, event in zip(rows, events, strict=True):
        found = (
            f"{event.at_utc:%b %-d %H:%M:%S}",
            *(event.fields[key] for key in ("host.name", "process.name", "message")),
        )
        assert found == (f"{row['Month']} {row['Date']} {row['Time']}", row["Level"], row["Component"], row["Content"])
        assert str(event.fields.get("process.pid", "")) == row["PID"]


def test_every_field_of_loghubs_apache_is_right(shared_data):
    rows = rows_of(shared_data / "loghub" / "Apache_2k.log_structured.csv")
    events = events_in(shared_data / "loghub" / "Apache_2k.log", "auto")
    for row, event in zip(rows, events, strict=True):
        fields = event.fields
        client = f"[client {fields['source.ip']}] " if "source.ip" in fields else ""
        assert f"{event.at_utc:%a %b %d %H:%M:%S %Y}" == row["Time"]
        assert (fields["log.level"], f"{client}{fields['message']}") == (row["Level"], row["Content"])


BEATS_FIELDS = (
    "@timestamp", "source.ip", "source.address", "source.domain", "user.name", "process.pid", "log.level", "message",
    "http.request.method", "http.request.referrer", "http.response.status_code", "http.response.body.bytes", "http.version",
    "url.original", "user_agent.original",
)  # fmt: skip


@pytest.mark.parametrize(
    ("module", "kind", "expected"),
    [
        ("nginx.access", "nginx", 189),
        ("nginx.error", "nginx", 8),
        ("apache.access", "apache", 177),
        ("apache.error", "apache", 62),
    ],
)
def test_every_field_that_filebeat_finds_is_found(shared_data, module, kind, expected):
    compared, wrong = 0, []
    for path in sorted((shared_data / "filebeat" / module).glob("*.log")):
        documents = json.loads(path.with_name(f"{path.name}-expected.json").read_text(encoding="utf-8"))
        for document, event in zip(documents, events_in(path, kind), strict=False):
            stamp = f"{event.at_utc:%Y-%m-%dT%H:%M:%S}.{event.at_utc.microsecond // 1000:03d}Z"
            found = {**event.fields, "@timestamp": stamp}
            for key in BEATS_FIELDS:
                if document.get(key, "-") != "-":
                    compared += 1
                    if found.get(key) != document[key]:
                        wrong.append((path.name, key, found.get(key), document[key]))
    assert not wrong
    assert compared >= expected


CROWDSEC_FIELDS = {
    "source_ip": "source.ip", "target_user": "user.name", "username": "user.name", "user": "user.name",
    "http_verb": "http.request.method", "http_path": "url.original", "http_status": "http.response.status_code",
    "http_user_agent": "user_agent.original",
}  # fmt: skip
CROWDSEC_FLOORS = {
    "sshd-logs": 23,
    "sshd-success-logs": 8,
    "apache2-logs": 44,
    "nginx-logs": 132,
    "nginx-proxy-manager-logs": 68,
}


def test_the_fields_that_crowdsec_finds_are_found(shared_data):
    right: defaultdict[str, int] = defaultdict(int)
    total: defaultdict[str, int] = defaultdict(int)
    seen = set()
    for row in map(json.loads, (shared_data / "crowdsec-parse.dev.jsonl").read_text(encoding="utf-8").splitlines()):
        line = row["line"]
        if line is None or line in seen:
            continue
        seen.add(line)
        fields = whole("auto", raw_line(line))[0].fields
        for key, value in row["meta"].items():
            if key in CROWDSEC_FIELDS:
                parser = row["parser"].partition("/")[2]
                total[parser] += 1
                right[parser] += str(fields.get(CROWDSEC_FIELDS[key], "-")) == value
    scores = {parser: (right[parser], total[parser]) for parser in CROWDSEC_FLOORS}
    print(scores)
    assert all(right[parser] >= floor for parser, floor in CROWDSEC_FLOORS.items()), scores


FAIL2BAN_FLOORS = {
    "sshd": (35, 17), "sshd-journal": (30, 14), "apache-auth": (20, 0), "nginx-http-auth": (5, 0), "nginx-limit-req": (5, 0),
    "pam-generic": (3, 0), "apache-noscript": (8, 0), "nginx-botsearch": (2, 0),
}  # fmt: skip
"""Failures seen with the right source, negatives left alone. What is missed needs an earlier line of the same pid, or is
a success that fail2ban counts; what is seen too much is a PAM failure that fail2ban forgives for the line after it."""


def test_the_failures_that_fail2ban_finds_are_found(shared_data):
    found: defaultdict[str, int] = defaultdict(int)
    spared: defaultdict[str, int] = defaultdict(int)
    for row in map(json.loads, (shared_data / "fail2ban.dev.jsonl").read_text(encoding="utf-8").splitlines()):
        if row.get("constraint"):
            continue
        fields = parser_for("auto").parse(raw_line(row["line"]), CONTEXT)[0].fields
        failed = fields.get("event.outcome") == "failure"
        expect = row["expect"] or {}
        host = expect.get("host") or expect.get("ip6")
        if row["match"]:
            found[row["service"]] += failed and host in (fields.get("source.ip"), fields.get("source.address"))
        else:
            spared[row["service"]] += not failed
    scores = {service: (found[service], spared[service]) for service in FAIL2BAN_FLOORS}
    print(scores)
    for service, (positives, negatives) in FAIL2BAN_FLOORS.items():
        assert found[service] >= positives, scores
        assert spared[service] >= negatives, scores


def test_every_syslog_dialect_of_plaso_is_read_or_set_aside(shared_data):
    events = [
        event
        for path in sorted((shared_data / "plaso" / "syslog").iterdir())
        for event in events_in(path, "auto", CONTEXT)
    ]
    aside = [event for event in events if event.fields["event.kind"] == "pipeline_error"]
    assert len(events) >= 80
    assert len(aside) <= 10  # continuation lines, and `MMM 22`
    assert all(event.fields["error.message"] for event in aside)
    leap = next(event for event in events if "leap year" in event.raw)
    assert leap.at_utc == datetime(2024, 2, 29, 1, 15, 43, tzinfo=UTC)


def test_every_other_file_of_plaso_does_no_harm(shared_data):
    for path in sorted((shared_data / "plaso").rglob("*")):
        if path.is_file():
            for line in file_lines(path):
                for kind in ("auto", "syslog", "nginx", "json"):
                    assert whole(kind, line)
