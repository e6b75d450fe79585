"""Answers of independent engines, and rules and events of SigmaHQ: every answer equal."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

from breachwatch.app.pipeline import Pipeline, SourceFormat
from breachwatch.detect.engine import Detector
from breachwatch.detect.load import load_rules
from breachwatch.detect.reference import matches
from breachwatch.detect.ruleset import RuleSet, RuleText
from breachwatch.model import Block
from tests.detect.sigma import events_of, sigmahq

AGAINST_THE_SPECIFICATION = {
    "c52a914f-3d8b-4b2a-bb75-b3991e75f8ba",
    "56fa3cd6-f8d6-4520-a8c7-607292971886",
    "a557ffe6-ac54-43d2-ae69-158027082350",
}
"""Rules with `|all` over keywords. The engines that answered the pairs want the whole value to be the keyword. The
specification searches the line, and so says the case "keywords all" of the same data set: both cannot be met. We go by
the specification (docs/sigma.md)."""


@pytest.fixture(scope="module")
def all_rules(shared_data: Path) -> RuleSet:
    return load_rules(sigmahq(shared_data))


def rows(file: Path) -> list[dict[str, Any]]:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def test_every_pair_is_answered_as_independent_engines_answer_it(shared_data, all_rules):
    by_id = {rule.ref.id: rule for rule in all_rules.rules}
    pairs = rows(shared_data / "sigma-linux" / "pairs.jsonl.gz")
    wrong = []
    for pair in pairs:
        (event,) = events_of([pair["event"]])
        if matches(by_id[pair["rule_id"]], event) is not pair["expect"]:
            wrong.append(pair)
    unexpected = [pair["id"] for pair in wrong if pair["rule_id"] not in AGAINST_THE_SPECIFICATION]
    assert unexpected == []
    # Where the two sources contradict each other, ours is the wider answer: found, where they say not found.
    assert all(pair["expect"] is False for pair in wrong)
    assert len(wrong) == 22
    assert len(pairs) == 4_557


def test_every_case_of_the_specification_is_answered_right(shared_data):
    cases = rows(shared_data / "sigma-linux" / "spec.jsonl.gz")
    wrong = []
    for case in cases:
        loaded = load_rules([RuleText("case.yml", case["rule"])])
        assert not loaded.refused, case["name"]
        if [matches(loaded.rules[0], event) for event in events_of(case["events"])] != case["expect"]:
            wrong.append(case["name"])
    assert wrong == []
    assert len(cases) == 74


def found_by_the_engine(rules: RuleSet, events: list[dict[str, Any]]) -> list[bool]:
    """For each event whether the rule matches it, by the code behind `scan --format json --logsource any`."""
    lines = [json.dumps(event).encode() + b"\n" for event in events]
    detector = Detector(rules, any_logsource=True)
    pipeline = Pipeline(host="h", detector=detector, now=lambda: datetime(2026, 1, 5, tzinfo=UTC))
    assert pipeline.is_prefiltering
    block = Block(source="x", data=b"".join(lines), generation="g")
    matched = {
        event.fields["log.offset"] for event, made in pipeline.matches(block, SourceFormat(format="json")) if made
    }
    return [start in matched for start in accumulate(map(len, lines[:-1]), initial=0)]


@pytest.mark.parametrize("code_after", [1, 10**9], ids=["code over bytes", "code over events"])
def test_the_engine_answers_pairs_and_specification_as_the_reference_does(shared_data, monkeypatch, code_after):
    monkeypatch.setattr("breachwatch.detect.partial.WORTH_IT_JSON", code_after)
    texts = {rule.ref.id: text for text in sigmahq(shared_data) for rule in load_rules([text]).rules}
    pairs: dict[str, list[dict[str, Any]]] = {}
    for pair in rows(shared_data / "sigma-linux" / "pairs.jsonl.gz"):
        pairs.setdefault(pair["rule_id"], []).append(pair)
    wrong = []
    for rule_id, of_rule in pairs.items():
        answers = found_by_the_engine(load_rules([texts[rule_id]]), [pair["event"] for pair in of_rule])
        wrong += [pair for pair, answer in zip(of_rule, answers, strict=True) if answer is not pair["expect"]]
    assert {pair["rule_id"] for pair in wrong} == AGAINST_THE_SPECIFICATION
    assert len(wrong) == 22
    for case in rows(shared_data / "sigma-linux" / "spec.jsonl.gz"):
        rules = load_rules([RuleText("case.yml", case["rule"])])
        assert found_by_the_engine(rules, case["events"]) == case["expect"], case["name"]


def test_every_stream_makes_the_groups_fire_that_it_must(shared_data):
    streams = rows(shared_data / "sigma-linux" / "correlations.jsonl.gz")
    wrong = []
    for stream in streams:
        rules = load_rules([RuleText("stream.yml", stream["rules"])])
        detector = Detector(rules, any_logsource=True)
        watched = {correlation.ref.id for correlation in rules.correlations}
        fired = [match for event in events_of(stream["events"]) for match in detector.feed(event)]
        groups = {tuple(match.group.values()) for match in fired if match.rule.id in watched}
        expected = {tuple(group) for group in stream["expect"]["groups"]}
        if groups != expected or bool(groups) is not stream["expect"]["fires"]:
            wrong.append(stream["name"])
    assert wrong == []
    assert len(streams) == 24


def test_every_sigmahq_rule_loads_or_is_refused_for_a_reason(all_rules):
    assert len(all_rules.rules) + len(all_rules.refused) == 3_754
    reasons = [str(refused) for refused in all_rules.refused]
    assert all("placeholder" in reason for reason in reasons)
    assert len(reasons) == 2


def flattened(event: dict[str, Any]) -> dict[str, Any]:
    """A Windows event as Sigma's fields."""
    flat: dict[str, Any] = {}

    def walk(values: dict[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, dict) and "#text" in value:
                flat[name] = value["#text"]
            elif isinstance(value, dict):
                walk(value)
            elif name != "#attributes":
                flat[name] = value

    for part in ("EventData", "UserData"):
        walk(event["Event"].get(part) or {})
    system = event["Event"]["System"]
    number = system["EventID"]
    flat["EventID"] = number["#text"] if isinstance(number, dict) else number
    flat["Channel"], flat["Computer"] = system["Channel"], system.get("Computer")
    flat["Provider_Name"] = system["Provider"].get("#attributes", {}).get("Name")
    return flat


def test_sigmahq_rules_fire_on_their_regression_events(shared_data, all_rules):
    by_id = {rule.ref.id: rule for rule in all_rules.rules}
    silent = []
    lines = (shared_data / "sigma-regression.dev.jsonl").read_text(encoding="utf-8").splitlines()
    for line in lines:
        case = json.loads(line)
        events = events_of([flattened(event) for event in case["events"]])
        if not any(matches(by_id[case["rule_id"]], event) for event in events):
            silent.append(case["rule_path"])
    assert silent == []
    assert len(lines) == 58
