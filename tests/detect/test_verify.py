# lines of logs
"""0 differences between the engine and the reference: on every corpus, by the code behind `rules verify`."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from breachwatch.app.pipeline import Pipeline, SourceFormat
from breachwatch.app.rule_study import Difference, Verification
from breachwatch.app.rules import rules_in
from breachwatch.config.shipped import shipped_folder
from breachwatch.detect.engine import Detector
from breachwatch.detect.load import load_rules
from breachwatch.detect.ruleset import RuleSet, RuleText
from breachwatch.model import Block, Event, Match
from tests.detect.sigma import sigmahq

EVERY_LINE = bool(os.environ.get("EVERY_LINE"))
"""All SigmaHQ rules on every line, not on every so many: this takes hours."""

SIGMAHQ_LINES = 1
"""Lines of one file that all SigmaHQ rules are tried on in the short form: the reference needs 50 ms for each."""

LINES_OF = {"fail2ban": "line", "wazuh": "line", "ossec": "line", "crowdsec-parse": "line", "crs-http": "combined_log"}


def corpora(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Name and lines of each corpus."""
    for name, key in LINES_OF.items():
        rows = (folder / f"{name}.dev.jsonl").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        lines = [json.loads(row)[key] for row in rows]
        yield (
            name,
            b"".join(line.encode("utf-8", "surrogateescape").replace(b"\n", b" ") + b"\n" for line in lines if line),
        )
    patterns = ("loghub/*.log", "filebeat/*/*.log", "plaso/*", "crowdsec-scenarios.dev/*.log", "*.dev.jsonl")
    for file in (file for pattern in patterns for file in sorted(folder.glob(pattern)) if file.is_file()):
        yield str(file.relative_to(folder)), file.read_bytes().removesuffix(b"\n") + b"\n"
    yield "benign", gzip.decompress((folder / "weblog-benign" / "apache_logs.gz").read_bytes())
    for name in ("pairs", "spec"):
        with gzip.open(folder / "sigma-linux" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as opened:
            cases = [json.loads(row) for row in opened]
        events = [event for case in cases for event in case.get("events", [case.get("event")])]
        yield name, b"".join(json.dumps(event).encode() + b"\n" for event in events)
        text = [json.dumps(event, ensure_ascii=False) for event in events]
        yield f"{name} in UTF-8", b"".join(line.encode("utf-8", "surrogatepass") + b"\n" for line in text)


def some_lines(data: bytes, count: int) -> bytes:
    """About so many of the lines, from everywhere."""
    lines = data.splitlines(keepends=True)
    return b"".join(lines[:: max(1, len(lines) // count)])


def verified(
    rules: RuleSet, data: dict[str, bytes], log_format: str, *, any_logsource: bool
) -> tuple[Verification, list[Difference]]:
    work = Verification(rules, "fast", any_logsource, log_format)
    blocks = (Block(source=name, data=lines, generation="g") for name, lines in data.items())
    return work, list(work.run(blocks))


@pytest.fixture(scope="module")
def hq(shared_data: Path) -> RuleSet:
    return load_rules(sigmahq(shared_data))


@pytest.mark.parametrize("log_format", ["auto", "syslog", "nginx"])
def test_our_rules_find_in_every_corpus_what_the_reference_finds(shared_data, log_format):
    rules = rules_in([shipped_folder("rules")])
    lines = 10_000 if EVERY_LINE else 400 if log_format == "auto" else 60
    data = {name: some_lines(data, lines) for name, data in corpora(shared_data)}
    work, differences = verified(rules, data, log_format, any_logsource=False)
    assert differences == []
    assert work.events > 2_000


@pytest.mark.parametrize(("log_format", "any_logsource"), [("json", True), ("auto", True), ("auto", False)])
def test_all_sigmahq_rules_find_in_every_corpus_what_the_reference_finds(shared_data, hq, log_format, any_logsource):
    lines = 10**9 if EVERY_LINE else SIGMAHQ_LINES if any_logsource else 40 * SIGMAHQ_LINES
    data = {name: some_lines(data, lines) for name, data in corpora(shared_data)}
    work, differences = verified(hq, data, log_format, any_logsource=any_logsource)
    assert differences == []
    assert work.events > 100
    assert any_logsource or work.candidates < work.events


def test_a_difference_is_told_with_what_was_missed_and_invented(monkeypatch):
    rules = rules_in([shipped_folder("rules")])
    line = (
        b"Dec 10 06:55:46 web01 sudo:   eve : user NOT in sudoers ; TTY=pts/1 ; PWD=/ ; USER=root ; COMMAND=/bin/sh\n"
    )
    _, none = verified(rules, {"x": line}, "syslog", any_logsource=False)
    assert none == []
    feed = Detector.feed

    def blind(self: Detector, event: Event, satisfied: Sequence[int] | None = None) -> list[Match]:
        return feed(self, event, None if satisfied is None else ())

    monkeypatch.setattr(Detector, "feed", blind)
    _, (difference,) = verified(rules, {"x": line}, "syslog", any_logsource=False)
    assert difference.missed
    assert not difference.invented


AUDIT = (
    b'type=SYSCALL msg=audit(1783414661.350:487): arch=c000003e syscall=59 success=yes ppid=1 pid=2 comm="shred"\n',
    b'type=EXECVE msg=audit(1783414661.350:487): argc=2 a0="/usr/bin/shred" a1="/var/log/auth.log"\n',
    b"type=PROCTITLE msg=audit(1783414661.350:487): proctitle=2F7573722F62696E2F7368726564\n",
)
SHRED = """
title: Log shredded
id: 11111111-2222-4333-8444-000000000077
level: high
logsource: {product: linux, service: auditd}
detection:
  run: {process.command_line|contains|all: [shred, /var/log]}
  condition: run
"""


BETWEEN = {
    "syslog": b"Dec 10 06:55:46 web01 cron[7]: nothing to see\n",
    "access log": b'203.0.113.7 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 1 "-" "-"\n',
    "JSON": b'{"@timestamp":"2026-01-05T08:00:00Z","message":"nothing to see"}\n',
}


@pytest.mark.parametrize("quiet", BETWEEN.values(), ids=BETWEEN)
def test_audit_records_are_put_together_whatever_lies_between_them(quiet):
    rules = load_rules([RuleText("shred.yml", SHRED)])
    data = quiet * 50 + quiet.join(AUDIT) + quiet * 50
    _, differences = verified(rules, {"/var/log/messages": data}, "auto", any_logsource=False)
    assert differences == []
    pipeline = Pipeline(host="web01", detector=Detector(rules), now=lambda: datetime(2026, 7, 7, 12, tzinfo=UTC))
    how = SourceFormat(format="auto")

    def titles(lines: bytes) -> list[str]:
        block = Block(source="/var/log/messages", data=lines, generation="g")
        return [match.rule.title for _, made in pipeline.matches(block, how) for match in made]

    assert titles(data) == ["Log shredded"]
    assert pipeline.candidates < 10
    # without an end it waits: it belongs to what a restart has to know, and is told late
    cut = quiet.join(AUDIT[:2]).replace(b":487)", b":488)")
    assert titles(cut + quiet * 3) == []
    assert len(pipeline.unfinished) == 2
    late = [match.rule.title for _, made in pipeline.late_matches(everything=True) for match in made]
    assert late == ["Log shredded"]
