"""`breachwatch rules ...` and `scan` over any event, as real processes; the cache of parsed rules."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from breachwatch.app.doctor_promise import check_rules
from breachwatch.app.rule_cache import load_cached
from breachwatch.app.rule_reach import rules_without_source
from breachwatch.config.sections import LogSection, RulesSection, WatchSection
from breachwatch.config.settings import Settings
from breachwatch.detect.load import load_rules
from breachwatch.detect.ruleset import RuleText
from tests.conftest import ROOT
from tests.detect.sigma import loaded, rule_text

RULE_ID = "11111111-1111-4111-8111-111111111111"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two rules, and events of every shape."""
    rules = tmp_path / "rules"
    rules.mkdir()
    text = rule_text("s:\n  a.b: 1\n  list: x\ncondition: s", extra="tags:\n  - attack.t1110.001\n")
    (rules / "one.yml").write_text(text)
    (rules / "two.yml").write_text(
        rule_text("s:\n  c: null\n  d|exists: true\ncondition: s", rule_id=RULE_ID[:-1] + "2")
    )
    events = [{"a": {"b": "1"}, "list": ["y", "X"]}, {"a": [{"b": 1.0}], "list": "x"}, {"d": None}, {"c": 1, "d": 1}]
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return tmp_path


def run(folder: Path, *arguments: str) -> tuple[int, str]:
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "breachwatch", *arguments],
        capture_output=True, text=True, env=environment, cwd=folder, timeout=60, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout


def test_scan_names_rule_and_offset_for_events_of_any_shape_parsed_or_cached(folder):
    wanted = ["scan", "--format", "json", "--logsource", "any", "--rules", "rules", "--json", "events.jsonl"]
    lines = (folder / "events.jsonl").read_bytes().splitlines(keepends=True)
    offsets = [sum(map(len, lines[:number])) for number in range(len(lines))]
    for _ in range(2):  # the second time from the cache
        code, out = run(folder, *wanted)
        records = [json.loads(line) for line in out.splitlines()]
        found = [(one["rule.id"], one["event"]["log.offset"]) for one in records if one["kind"] == "match"]
        assert found == [(RULE_ID, offsets[0]), (RULE_ID, offsets[1]), (RULE_ID[:-1] + "2", offsets[2])]
        assert code == 1
    assert list((folder / "cache" / "breachwatch").glob("rules-*.msgpack"))


def test_explain_says_why_line_by_line(folder):
    code, out = run(
        folder, "rules", "explain", RULE_ID, "events.jsonl", "--rules", "rules", "--format", "json", "--json"
    )
    told = [json.loads(line) for line in out.splitlines()]
    assert [one["steps"][0]["holds"] for one in told] == [True, True, False, False]
    assert "no field list" in [step["found"] for step in told[3]["steps"]]
    assert [one["logsource_fits"] for one in told] == [False] * 4
    assert code == 1


def test_explain_shows_the_text_that_holds_a_keyword_and_both_log_sources(folder):
    rule = rule_text("s:\n  - evil\n  - good\ncondition: s").replace("product: linux", "category: proxy")
    (folder / "rules" / "one.yml").write_text(rule)
    (folder / "auth.log").write_text("Jan  5 08:00:00 web01 sshd[1]: some evil thing\n")
    code, out = run(folder, "rules", "explain", RULE_ID, "auth.log", "--rules", "rules", "--format", "syslog")
    assert "the event is of product linux, service sshd; the rule asks for category proxy" in out
    assert "+ keyword evil   [in 'Jan  5 08:00:00 web01 sshd[1]: some evil thing']" in out
    assert "- keyword good   [not in the line]" in out
    assert code == 1


WINDOWS = """
title: Login failed
id: 22222222-2222-4222-8222-222222222221
name: failed
logsource: {product: linux}
detection: {s: {a: failed}, condition: s}
---
title: Three failures
id: 22222222-2222-4222-8222-222222222222
name: three
correlation: {type: event_count, rules: [failed], group-by: [ip], timespan: 1m, condition: {gte: 3}}
---
title: Two names
id: 22222222-2222-4222-8222-222222222223
correlation: {type: value_count, rules: [failed], group-by: [ip], timespan: 1m, condition: {field: user, gte: 2}}
---
title: Again and again
id: 22222222-2222-4222-8222-222222222224
correlation: {type: event_count, rules: [three], group-by: [ip], timespan: 1h, condition: {gte: 2}}
"""


def explained_windows(folder: Path, name: str, *records: dict[str, str]) -> tuple[int, list[tuple[bool, list[str]]]]:
    (folder / "rules" / "windows.yml").write_text(WINDOWS)
    lines = [json.dumps({"product": "linux", "a": "failed", **record}) + "\n" for record in records]
    (folder / "logins.jsonl").write_text("".join(lines))
    code, out = run(folder, "rules", "explain", name, "logins.jsonl", "--rules", "rules", "--format", "json", "--json")
    told = [json.loads(line) for line in out.splitlines()]
    return code, [
        (one["matches"], [f"{'+' if step['holds'] else '-'} {step['text']}: {step['found']}" for step in one["steps"]])
        for one in told
    ]


def at(minute: int, second: int) -> str:
    return f"2026-02-03T04:{minute:02}:{second:02}Z"


def test_explain_says_how_a_window_stands_after_each_match(folder):
    records = [
        {"time": at(0, 0), "ip": "203.0.113.7"},
        {"time": at(0, 1)},
        {"time": at(0, 2), "ip": "203.0.113.7", "a": "accepted"},
        {"time": at(0, 3), "ip": "203.0.113.8"},
        {"time": at(0, 30), "ip": "203.0.113.7"},
        {"time": at(1, 0), "ip": "203.0.113.7"},
        {"time": at(1, 1), "ip": "203.0.113.7"},
    ]
    code, told = explained_windows(folder, "three", *records)
    assert code == 0
    assert [matches for matches, _ in told] == [False, False, False, False, True, False]
    assert told[1][1][-1] == "- counted: the event lacks ip"
    assert told[2][1][2:] == ["+ group by ip: ip = '203.0.113.8'", "- event_count gte 3: 1 up to this event"]
    assert told[4][1] == [
        "+ event_count over 60 s: ", "+ rule Login failed: ", "+ group by ip: ip = '203.0.113.7'",
        "+ event_count gte 3: 3 up to this event",
    ]  # fmt: skip
    assert told[5][1][-1] == "- not told of yet: the window that ended at 2026-02-03T04:01:00+00:00 was"


def test_explain_names_what_is_counted_and_follows_chains(folder):
    people = [{"time": at(0, second), "ip": "203.0.113.7", "user": name} for second, name in enumerate("aab")]
    code, told = explained_windows(folder, WINDOWS.split("id: ")[3].split(maxsplit=1)[0], *people)
    assert [steps[-1] for _, steps in told] == [
        "- value_count of user gte 2: 1 up to this event",
        "- value_count of user gte 2: 1 up to this event",
        "+ value_count of user gte 2: 2 up to this event",
    ]
    nameless = [people[0], {"time": at(0, 5), "ip": "203.0.113.7"}]
    _, told = explained_windows(folder, WINDOWS.split("id: ")[3].split(maxsplit=1)[0], *nameless)
    assert told[1][1][-1] == "- counted: the event lacks user"
    bursts = [{"time": at(minute, second), "ip": "203.0.113.7"} for minute in (0, 10) for second in range(3)]
    code, told = explained_windows(folder, WINDOWS.split("id: ")[4].split(maxsplit=1)[0], *bursts)
    assert code == 0
    assert [(matches, steps[1]) for matches, steps in told] == [
        (False, "+ rule Three failures: "), (True, "+ rule Three failures: ")
    ]  # fmt: skip


def test_explain_says_when_no_line_is_read_by_a_correlation(folder):
    (folder / "rules" / "windows.yml").write_text(WINDOWS)
    (folder / "none.jsonl").write_text('{"product": "linux", "a": "accepted"}\n')
    code, out = run(folder, "rules", "explain", "three", "none.jsonl", "--rules", "rules", "--format", "json")
    assert code == 1
    assert out == "nothing to explain: no event that it reads\n"


def test_verify_compares_on_events_and_refuses_to_compare_on_none(folder):
    arguments = ("rules", "verify", "--rules", "rules", "--format", "json", "--any-logsource", "--json")
    code, out = run(folder, *arguments, "events.jsonl")
    assert json.loads(out) == {
        "kind": "verified", "engine": "fast", "events": 4, "candidates": json.loads(out)["candidates"], "differences": 0
    }  # fmt: skip
    assert code == 0
    (folder / "empty").write_text("")
    assert run(folder, *arguments, "empty")[0] == 2


def test_coverage_counts_rules_per_technique_and_writes_a_layer(folder):
    code, out = run(folder, "rules", "coverage", "--rules", "rules", "--navigator", "layer.json", "--json")
    told = [json.loads(line) for line in out.splitlines()]
    assert [one["id"] for one in told if one["kind"] == "technique"] == ["T1110.001"]
    assert told[-1] == {"kind": "coverage", "techniques": 1, "rules": 2, "without_technique": [RULE_ID[:-1] + "2"]}
    layer = json.loads((folder / "layer.json").read_text())
    assert [(one["techniqueID"], one["score"]) for one in layer["techniques"]] == [("T1110.001", 1)]
    assert code == 0


def test_lint_names_the_rule_that_no_source_can_trigger(folder):
    text = (folder / "rules" / "one.yml").read_text().replace("product: linux", "category: proxy")
    (folder / "rules" / "one.yml").write_text(text)
    code, out = run(folder, "rules", "lint", "rules", "--json")
    assert [json.loads(line)["kind"] for line in out.splitlines()] == ["unreachable"]
    assert "category proxy" in out
    assert code == 0


def test_lint_asks_the_configuration_which_logs_are_watched(folder):
    config = folder / "breachwatch.toml"
    log = '[[watch.logs]]\npath = "/var/log/x"\nformat = "{}"\n'
    text = (folder / "rules" / "one.yml").read_text().replace("product: linux", "product: nginx")
    (folder / "rules" / "one.yml").write_text(text.replace("logsource:", "logsource:\n  category: webserver"))
    (folder / "rules" / "two.yml").unlink()
    for form, lost in (("nginx", 0), ("syslog", 1)):
        config.write_text(f'[state]\ndirectory = "{folder}/state"\n' + log.format(form))
        config.chmod(0o600)
        code, out = run(folder, "--config", str(config), "rules", "lint", "rules", "--json")
        assert ([json.loads(line)["kind"] for line in out.splitlines()], code) == (["unreachable"] * lost, 0)


@pytest.mark.parametrize(("kind", "lost"), [("temporal", 2), ("temporal_ordered", 2), ("event_count", 1)])
def test_a_correlation_that_lacks_a_rule_it_needs_never_runs(kind, lost):
    text = (
        rule_text("s:\n  f: 1\ncondition: s", extra="name: here\n")
        + "---\n"
        + rule_text("s:\n  f: 1\ncondition: s", rule_id=RULE_ID[:-1] + "2", extra="name: nowhere\n").replace(
            "product: linux", "category: proxy"
        )
        + f"---\ntitle: c\nid: {RULE_ID[:-1]}3\ncorrelation:\n  type: {kind}\n  rules: [here, nowhere]\n"
        + "  timespan: 1m\n"
        + ("" if kind.startswith("temporal") else "  condition:\n    gte: 2\n")
    )
    found = rules_without_source(loaded(text), ["syslog"])
    assert len(found) == lost
    assert all("proxy" in one.reason or "it needs" in one.reason for one in found)


def test_samples_become_junit_with_every_failure(folder):
    sample = f"rule: {RULE_ID}\nformat: json\nmatching:\n  - '{{\"list\": 1}}'\n"
    (folder / "sample.yml").write_text(sample)
    code, _ = run(folder, "rules", "test", "sample.yml", "--rules", "rules", "--junit", "out.xml")
    suite = ET.parse(folder / "out.xml").getroot()  # our own file
    assert (suite.get("tests"), suite.get("failures"), code) == ("1", "1", 1)


TEXTS = [RuleText("x.yml", rule_text("s:\n  f: 1\ncondition: s"))]


def poisoned(cache: Path) -> Path:
    """A cache whose one file says that there are no rules."""
    load_cached(TEXTS, cache)
    (file,) = cache.glob("rules-*.msgpack")
    load_cached([], cache)
    (other,) = (one for one in cache.glob("rules-*.msgpack") if one != file)
    other.replace(file)
    return file


def test_a_cache_of_other_rules_is_not_believed(tmp_path):
    file = poisoned(tmp_path)
    assert len(load_cached(TEXTS, tmp_path).rules) == 1
    file.write_bytes(b"\x95")
    assert len(load_cached(TEXTS, tmp_path).rules) == 1


def test_rules_are_known_by_their_key_whether_parsed_or_held(tmp_path):
    other = [RuleText("x.yml", rule_text("s:\n  f|expand: '%x%'\ncondition: s"))]
    keys = [
        load_cached(texts, tmp_path, {"x": (value,)}).key
        for _ in range(2)
        for texts in (TEXTS, other)
        for value in "ab"
    ]
    assert keys[:4] == keys[4:]
    assert len(set(keys)) == 4
    assert load_rules(TEXTS).key == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_cache_that_somebody_else_owns_or_can_write_is_not_read(tmp_path):
    load_cached(TEXTS, tmp_path)
    (file,) = tmp_path.glob("rules-*.msgpack")
    good = file.read_bytes()
    for spoil in (lambda: os.chown(file, 65_534, 65_534), lambda: file.chmod(0o666)):
        file.write_bytes(good)
        before = file.stat().st_ino
        spoil()
        assert len(load_cached(TEXTS, tmp_path).rules) == 1
        assert file.stat().st_ino != before  # parsed again and replaced


def test_a_place_that_cannot_be_written_only_costs_time():
    assert len(load_cached(TEXTS, ROOT / "README.md" / "no").rules) == 1


def test_doctor_names_the_operators_rule_that_never_runs_and_takes_placeholders(folder, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    text = rule_text("s:\n  f|expand: '%who%'\ncondition: s").replace("product: linux", "category: proxy")
    (folder / "rules" / "one.yml").write_text(text)
    (folder / "rules" / "two.yml").unlink()
    section = RulesSection(directories=(folder / "rules",), placeholders={"who": ("ann",)})
    settings = Settings.model_construct(rules=section, watch=WatchSection(logs=(LogSection(path="/var/log/auth.log"),)))
    found = [(one.what, one.why) for one in check_rules(settings)]
    (lost,) = (why for what, why in found if what == "rule never runs")
    assert "category proxy" in lost
    assert "rule refused" not in [what for what, _ in found]
