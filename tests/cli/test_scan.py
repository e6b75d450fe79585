"""The contract of `scan --json` that others build on: every kind of line, its names and types, and the exit codes."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.cli.run import Done, run
from tests.e2e.harness import COMMAND

RULES = """
title: Refused log-in
id: 11111111-2222-4333-8444-000000000001
name: refused
level: low
author: Somebody
logsource: {product: linux, service: sshd}
detection:
  sel: {event.action: ssh_login, event.outcome: failure}
  condition: sel
tags: [attack.t1110]
breachwatch: {group_by: [source.ip], opens_incident: false}
---
title: Many refused log-ins
id: 11111111-2222-4333-8444-000000000002
level: high
correlation:
  type: event_count
  rules: [refused]
  group-by: [source.ip]
  timespan: 5m
  condition: {gte: 5}
  generate: true
breachwatch: {group_by: [source.ip]}
"""

LINES = "".join(
    f"Jan  5 08:00:{second:02d} web01 sshd[311]: Failed password for root from 203.0.113.7 port {4700 + second} ssh2\n"
    for second in range(6)
)
QUIET = "Jan  5 08:00:00 web01 CRON[1]: (root) CMD (true)\n"
LONG = "Jan  5 08:00:30 web01 sshd[311]: " + "A" * 100_000 + "\n"

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


@pytest.fixture
def scan(tmp_path: Path) -> Callable[..., Done]:
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "own.yml").write_text(RULES)

    def call(*options: str, rules_too: bool = True) -> Done:
        own = ("--rules", str(rules)) if rules_too else ()
        return run(None, "scan", "--year", "2026", *own, *options)

    return call


@pytest.fixture
def log(tmp_path: Path) -> Path:
    file = tmp_path / "auth.log"
    file.write_text(LINES + LONG)
    return file


def of_kind(done: Done, kind: str) -> list[dict[str, object]]:
    return [item for item in done.objects() if item["kind"] == kind]


def test_there_are_five_kinds_and_the_summary_comes_last(scan: Callable[..., Done], log: Path) -> None:
    done = scan(str(log), "--json", "--events")
    kinds = [str(item["kind"]) for item in done.objects()]
    assert set(kinds) == {"event", "match", "incident", "gap", "summary"}
    assert kinds[-1] == "summary"
    assert kinds.index("incident") > max(number for number, kind in enumerate(kinds) if kind in {"match", "gap"})
    assert "event" not in {str(item["kind"]) for item in scan(str(log), "--json").objects()}, "only with --events"


def test_a_match_names_its_rule_and_its_event_in_flat_ecs_names(scan: Callable[..., Done], log: Path) -> None:
    first, *_ = of_kind(scan(str(log), "--json"), "match")
    assert {name: first[name] for name in ("kind", "rule.id", "rule.title", "rule.level")} == {
        "kind": "match", "rule.id": "11111111-2222-4333-8444-000000000001", "rule.title": "Refused log-in",
        "rule.level": "low",
    }  # fmt: skip
    assert "group" not in first, "of correlations only"
    assert "window" not in first
    event = first["event"]
    assert isinstance(event, dict)
    assert MOMENT.fullmatch(event["@timestamp"])
    wanted = {
        "event.outcome": "failure", "event.category": ["authentication"], "source.ip": "203.0.113.7",
        "source.port": 4700, "user.name": "root", "process.name": "sshd", "process.pid": 311, "host.name": "web01",
        "log.file.path": str(log), "log.offset": 0,
    }  # fmt: skip
    assert {name: event.get(name) for name in wanted} == wanted


def test_the_offset_is_that_of_the_line_in_the_unpacked_file(
    scan: Callable[..., Done], log: Path, tmp_path: Path
) -> None:
    packed = tmp_path / "auth.log.2.gz"
    packed.write_bytes(gzip.compress(log.read_bytes()))
    length = len(LINES) // 6
    for file in (log, packed):
        offsets = [item["event"]["log.offset"] for item in of_kind(scan(str(file), "--json"), "match")  # type: ignore[index]
                   if item["rule.level"] == "low"]  # fmt: skip
        assert offsets == [number * length for number in range(6)]


def test_a_correlation_says_its_group_and_its_window(scan: Callable[..., Done], log: Path) -> None:
    (found, *_) = [item for item in of_kind(scan(str(log), "--json"), "match") if item["rule.level"] == "high"]
    assert found["group"] == {"source.ip": "203.0.113.7"}
    window = found["window"]
    assert isinstance(window, dict)
    assert set(window) == {"first", "last", "count"}
    assert window["count"] == 5
    assert window["first"] == "2026-01-05T08:00:00Z"
    assert window["last"] == "2026-01-05T08:00:04Z"


def test_an_incident_says_who_when_how_often_and_by_which_rules(scan: Callable[..., Done], log: Path) -> None:
    (found,) = of_kind(scan(str(log), "--json"), "incident")
    types: Mapping[str, type] = {
        "id": str, "title": str, "severity": str, "first_seen": str, "last_seen": str, "count": int, "rules": list,
        "entities": dict,
    }  # fmt: skip
    assert {name: type(found[name]) for name in types} == types
    assert (found["title"], found["severity"]) == ("Many refused log-ins", "high")
    assert found["entities"] == {
        "source.ip": ["203.0.113.7"], "user.name": ["root"], "host.name": ["web01"], "file.path": [],
    }  # fmt: skip
    assert MOMENT.fullmatch(str(found["first_seen"]))
    assert MOMENT.fullmatch(str(found["last_seen"]))


def test_a_copy_of_a_log_adds_nothing_to_an_incident(scan: Callable[..., Done], log: Path, tmp_path: Path) -> None:
    (tmp_path / "rules" / "own.yml").write_text(RULES.replace(", opens_incident: false", ""))
    (tmp_path / "copy.log").write_bytes(log.read_bytes())
    once, twice = (
        of_kind(scan("--json", *map(str, files)), "incident") for files in ([log], [log, tmp_path / "copy.log"])
    )
    assert len(once) == 1
    assert once == twice


def test_a_gap_says_what_could_not_be_seen(scan: Callable[..., Done], log: Path) -> None:
    (gap,) = of_kind(scan(str(log), "--json"), "gap")
    assert set(gap) == {"kind", "source", "reason", "at", "lost_bytes", "detail"}
    assert (gap["source"], gap["reason"], gap["lost_bytes"]) == (str(log), "line_cut", len(LONG) - 1 - 65_536)


def test_the_summary_counts_what_was_printed(scan: Callable[..., Done], log: Path) -> None:
    done = scan(str(log), "--json")
    (summary,) = of_kind(done, "summary")
    assert summary["files"] == 1
    assert summary["lines"] == 7
    assert summary["bytes"] == len(LINES) + len(LONG) - 7
    assert summary["rules"] == 2
    for kind, name in (("match", "matches"), ("incident", "incidents"), ("gap", "gaps")):
        assert summary[name] == len(of_kind(done, kind)) > 0


def test_what_is_only_counted_is_what_would_be_told(scan: Callable[..., Done], log: Path, tmp_path: Path) -> None:
    records = tmp_path / "records.json"
    records.write_text('{"event.action": "ssh_login", "event.outcome": "failure", "service": "sshd"}\n' * 40)
    for options in ((str(log),), (str(records), "--format", "json"), (str(records), "--logsource", "any")):
        told, counted = scan(*options, "--json"), scan(*options, "--json", "--count")
        ids = [str(item["rule.id"]) for item in of_kind(told, "match")]
        assert {item["rule.id"]: item["matches"] for item in of_kind(counted, "count")} == Counter(ids)
        kinds = ["count"] * len(set(ids)) + ["summary"]
        assert [item["kind"] for item in counted.objects() if item["kind"] != "gap"] == kinds
        (before,), (after,) = of_kind(told, "summary"), of_kind(counted, "summary")
        same = ("files", "lines", "bytes", "events", "matches", "gaps", "rules")
        assert [before[name] for name in same] == [after[name] for name in same]
        assert (after["incidents"], counted.code) == (0, told.code)
    assert f"{6:>9}  low           Refused log-in" in scan(str(log), "--count").out


@pytest.mark.parametrize("more", [(), ("--count",)])
def test_stats_say_what_each_rule_cost(scan: Callable[..., Done], log: Path, more: tuple[str, ...]) -> None:
    with log.open("a") as opened:
        opened.write("Jan  5 08:01:00 web01 sshd[311]: Failed to release session: Connection reset by peer\n")
    done = scan(str(log), "--format", "syslog", "--stats", *more)
    figures, head, *rules = done.err.splitlines()
    assert "8 lines, " in figures
    assert head.split() == ["looked", "at", "matches", "rule"]
    assert [line.split() for line in rules] == [
        ["8", "6", "Refused", "log-in", "(11111111-2222-4333-8444-000000000001)"]
    ]


def test_standard_input_is_read_like_a_file(tmp_path: Path, scan: Callable[..., Done], log: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "scan", "-", "--year", "2026", "--rules", str(tmp_path / "rules"), "--json"],
        input=log.read_bytes(), capture_output=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    piped = [json.loads(line) for line in done.stdout.splitlines()]
    filed = scan(str(log), "--json").objects()
    assert [item.get("rule.id") for item in piped] == [item.get("rule.id") for item in filed]


def test_json_records_keep_their_own_fields_beside_where_they_were_read(
    scan: Callable[..., Done], tmp_path: Path
) -> None:
    file = tmp_path / "events.json"
    file.write_text('{"Image": "/usr/bin/x", "list": [1, {"a": null}], "@timestamp": "2026-01-05T08:00:00Z"}\n')
    (event,) = of_kind(scan(str(file), "--format", "json", "--logsource", "any", "--json", "--events"), "event")
    assert event["Image"] == "/usr/bin/x"
    assert event["list"] == [1, {"a": None}], "lists stay lists"
    assert (event["log.offset"], event["log.file.path"]) == (0, str(file))


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("{quiet}",), 0, ""),
        (("{log}",), 1, ""),
        (("{log}", "--format", "nonsense"), 2, "nonsense"),
        (("{log}", "--logsource", "produkt=linux"), 2, "produkt=linux"),
        (("{log}", "--tz", "Mars/Olympus"), 2, "Mars/Olympus"),
        ((), 2, "PATH"),
        (("{missing}",), 3, "missing.log: no such file or folder"),
        (("{torn}",), 0, ""),
    ],
    ids=["nothing found", "found", "format", "log source", "zone", "no input", "no file", "torn archive"],
)
def test_exit_codes_are_those_of_the_contract(
    scan: Callable[..., Done], log: Path, tmp_path: Path, options: tuple[str, ...], code: int, says: str
) -> None:
    quiet, torn = tmp_path / "quiet.log", tmp_path / "torn.log.gz"
    quiet.write_text(QUIET)
    torn.write_bytes(gzip.compress(QUIET.encode() * 2_000)[:60])
    places = {"quiet": quiet, "log": log, "missing": tmp_path / "missing.log", "torn": torn}
    done = scan(*(one.format(**places) for one in options), "--json")
    assert done.code == code, done.err
    assert says in done.err
    if "{torn}" in options:
        assert [gap["reason"] for gap in of_kind(done, "gap")] == ["unreadable"], "what cannot be read is said"
