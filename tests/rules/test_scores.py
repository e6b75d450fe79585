"""What the shipped rules find in other people's logs, and what they cost in false alerts. Floors only go up.

The attacks scored here were looked at while the rules were written: the figures are an upper bound. Acceptance runs on
rows that nobody here has seen.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from breachwatch.app.rules import rules_in
from breachwatch.detect.engine import Detector
from breachwatch.detect.ruleset import RuleSet
from breachwatch.model import Level, Match
from breachwatch.parse import ParseContext, parser_for
from tests.conftest import ROOT
from tests.parse.samples import raw_line

CONTEXT = ParseContext(host="h", reference_utc=datetime(2026, 3, 1, tzinfo=UTC), year=2024)


@pytest.fixture(scope="module")
def shipped() -> RuleSet:
    return rules_in([ROOT / "rules"])


def matches_in(data: bytes, kind: str, rules: RuleSet) -> Iterator[tuple[int, Match]]:
    """Line number (from 1) and match."""
    detector, parser = Detector(rules), parser_for(kind)
    offset = 0
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line:
            for event in parser.parse(raw_line(line, offset), CONTEXT):
                for match in detector.feed(event):
                    yield number, match
        offset += len(line) + 1


def source_of(match: Match) -> str:
    return str(
        match.group.get("source.ip") or match.group.get("source.address") or match.event.fields.get("source.ip", "")
    )


@pytest.mark.parametrize("name", ["OpenSSH_2k.log", "Linux_2k.log"])
def test_exactly_the_brute_force_sources_are_named(shared_data, shipped, name):
    truth = json.loads((shared_data / "loghub" / "bruteforce.json").read_text(encoding="utf-8"))["sets"][name]
    data = (shared_data / "loghub" / name).read_bytes()
    named = {source_of(match) for _, match in matches_in(data, "auto", shipped) if match.window is not None}
    assert named - set(truth["borderline_not_scored"]) == set(truth["must_alert"])


def test_four_days_of_a_real_web_site_stay_quiet(shared_data, shipped):
    folder = shared_data / "weblog-benign"
    probes = json.loads((folder / "probes.json").read_text(encoding="utf-8"))
    lines, sources = {probe["line"] for probe in probes}, {probe["source"] for probe in probes}
    false: list[tuple[int, str]] = []
    reported = set()
    for number, match in matches_in(gzip.decompress((folder / "apache_logs.gz").read_bytes()), "apache", shipped):
        if number in lines:
            reported.add(number)
        elif match.rule.level.rank >= Level.MEDIUM.rank and not (match.window and source_of(match) in sources):
            false.append((number, match.rule.title))
    print(f"false alerts at medium and above: {false}; probes reported: {len(reported)} of {len(lines)}")
    assert len(false) <= 1
    assert len(reported) >= 55


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_most_visible_attacks_of_the_crs_are_found(shared_data, shipped):
    total: Counter[str] = Counter()
    found: Counter[str] = Counter()
    for row in rows(shared_data / "crs-http.dev.jsonl"):
        if not row["visible_in_log"]:
            continue
        line = str(row["combined_log"]).encode("utf-8", "surrogateescape")
        alerts = [
            match for _, match in matches_in(line, "nginx", shipped) if match.rule.level.rank >= Level.MEDIUM.rank
        ]
        key = f"level {row['pl']}" if row["label"] == "attack" else "must not fire that rule"
        total[key] += 1
        found[key] += bool(alerts)
    print({key: f"{found[key]} of {total[key]}" for key in sorted(total)})
    assert found["level 1"] >= 197
    assert found["level 2"] >= 119
    assert found["level 3"] >= 30
    assert found["must not fire that rule"] <= 4


def test_the_core_scenarios_of_crowdsec_name_their_sources(shared_data, shipped):
    folder = shared_data / "crowdsec-scenarios.dev"
    right: Counter[bool] = Counter()
    missed: Counter[bool] = Counter()
    extra: Counter[bool] = Counter()
    for scenario in json.loads((folder / "expected.json").read_text(encoding="utf-8")):
        kind = {"apache2": "apache", "nginx": "nginx", "syslog": "syslog"}.get(scenario["log_type"], "auto")
        data = (folder / scenario["log"]).read_bytes()
        named = {source_of(match) for _, match in matches_in(data, kind, shipped) if match.rule.opens_incident} - {""}
        expected = set(scenario["source_ips"])
        right[scenario["core"]] += len(expected & named)
        missed[scenario["core"]] += len(expected - named)
        extra[scenario["core"]] += len(named - expected)
    print(f"core: {right[True]} named, {missed[True]} missed, {extra[True]} extra")
    print(f"rest: {right[False]} named, {missed[False]} missed, {extra[False]} extra")
    assert right[True] >= 40
    assert extra[True] == 0
    assert right[False] >= 9
