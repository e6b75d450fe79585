"""The shipped rules: each with samples that pass, fields that exist, keys that join."""

from __future__ import annotations

import csv
import re
import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml

from breachwatch.app.rule_samples import KINDS, run_samples
from breachwatch.app.rules import rules_in
from breachwatch.detect.ruleset import RuleSet
from breachwatch.errors import UsageError
from tests.conftest import ROOT
from tests.parse.test_vocabulary import BEATS, OWN

SAMPLES = Path(__file__).parent
RULE_FILES = sorted((ROOT / "rules").rglob("*.yml"))
FOLDERS = {"ssh", "sudo", "web", "files", "logs", "accounts"}


@pytest.fixture(scope="module")
def shipped() -> RuleSet:
    return rules_in([ROOT / "rules"])


def content_of(file: Path) -> dict[str, Any]:
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def test_every_shipped_rule_loads(shipped):
    assert [str(refused) for refused in shipped.refused] == []
    assert len(shipped.rules) + len(shipped.correlations) == len(RULE_FILES) >= 20
    assert {file.parent.name for file in RULE_FILES} == FOLDERS


def test_every_sample_of_every_rule_passes(shipped):
    results = run_samples(SAMPLES, shipped)
    assert [(Path(result.source).name, result.kind, result.message) for result in results if not result.passed] == []
    assert len(results) > 500


def test_every_rule_has_samples_of_every_kind():
    by_rule = {}
    for file in SAMPLES.glob("*.yml"):
        content = content_of(file)
        assert all(content[kind] for kind in KINDS), file.name
        by_rule[content["rule"]] = file.stem
    assert by_rule == {content_of(file)["id"]: file.stem for file in RULE_FILES}


@pytest.mark.parametrize("file", RULE_FILES, ids=lambda file: file.stem)
def test_a_rule_says_what_an_operator_needs(file):
    rule = content_of(file)
    assert uuid.UUID(str(rule["id"])).version == 4
    assert rule["author"] == "BreachWatch"
    assert rule["title"]
    assert rule["description"]
    assert rule["falsepositives"]
    assert all(re.fullmatch(r"attack\.(?:t\d{4}(?:\.\d{3})?|[a-z-]+)", tag) for tag in rule["tags"])
    own = rule["breachwatch"]
    assert own["group_by"]
    if rule["level"] == "informational":
        assert own.get("opens_incident") is False


def fields_in(detection: object) -> set[str]:
    """Every field name below a detection."""
    if isinstance(detection, list):
        return set().union(*map(fields_in, detection))
    if isinstance(detection, dict):
        return {str(name).partition("|")[0] for name in detection}
    return set()


def test_rules_only_name_fields_that_exist(shared_data):
    with (shared_data / "ecs" / "fields.csv").open(encoding="utf-8") as file:
        known = {row["Field"] for row in csv.DictReader(file)}
    for path in RULE_FILES:
        rule = content_of(path)
        named = set(rule["breachwatch"]["group_by"])
        detection = rule.get("detection", {})
        for name, part in detection.items():
            if name != "condition":
                named |= fields_in(part)
        correlation = rule.get("correlation", {})
        named |= set(correlation.get("group-by", ()))
        unknown = {name for name in named if name not in known and name not in BEATS and not name.startswith(OWN)}
        assert unknown == set(), path.name


def write(folder: Path, text: str) -> Path:
    file = folder / "x.yml"
    file.write_text(text, encoding="utf-8")
    return file


RULE = "rule: {id}\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rule: nobody\nformat: sshd\nmatching: [x]\n", "no rule has the id"),
        ("rule: {id}\nformat: clay\nmatching: [x]\n", "unknown format"),
        ("rule: {id}\nformat: sshd\n", "no matching sample"),
        ("rule: {id}\nformat: sshd\nmatching: [x]\nextra: 1\n", "takes the keys"),
        ("- 1\n", "takes the keys"),
        ("rule: {id}\nformat: sshd\nmatching: [[1]]\n", "is text"),
        ("rule: {id}\nformat: file\nmatching: [x]\n", "path and action"),
        ("rule: {id}\nformat: file\nmatching: [{{path: /x, action: created, color: red}}]\n", "takes"),
        (
            "rule: {id}\nformat: file\nmatching: [{{path: /x, action: created, after: {{color: red}}}}]\n",
            "a file has no",
        ),
        ("rule: {id}\nformat: file\nmatching: [{{path: /x, action: created, after: {{mode: rwx}}}}]\n", "in octal"),
        ("rule: {id}\nformat: gap\nmatching: [{{source: x}}]\n", "source and reason"),
        ("rule: {id}\nformat: file\nmatching: [{{path: /x, action: created, changed: 5}}]\n", "not iterable"),
        ("rule: {id}\nformat: sshd\nmatching: a line\n", "takes a list"),
        ("rule: {id}\nformat: sshd\nmatching: [2026-02-30 10:00:00]\n", "does not match"),
        ("rule: {id}\nformat: sshd\nmatching: &a [x, *a]\n", "anchors"),
        ("matching: " + "[" * 20_000, "deep"),
        ("rule: [\n", "expected"),
        ("rule: {id}\nformat: sshd\nmatching: [x]\n", "does not match"),
    ],
)
def test_a_sample_file_that_cannot_be_used_is_a_failure(tmp_path, shipped, text, says):
    file = write(tmp_path, text.format(id=shipped.rules[0].ref.id))
    results = run_samples(file, shipped)
    assert len(results) == 1
    assert not results[0].passed
    assert says in results[0].message


def test_the_other_files_of_a_folder_are_run(tmp_path, shipped):
    write(tmp_path, "rule: [")
    (tmp_path / "y.yml").write_bytes((SAMPLES / "ssh_login_failed.yml").read_bytes())
    results = run_samples(tmp_path, shipped)
    assert [Path(result.source).name for result in results if not result.passed] == ["x.yml"]
    assert sum(Path(result.source).name == "y.yml" for result in results) > 1


def test_a_sample_that_matches_but_must_not_fails(tmp_path, shipped):
    sample = content_of(SAMPLES / "ssh_login_failed.yml")
    sample["forged"] = [*sample["matching"]]
    results = run_samples(write(tmp_path, yaml.safe_dump(sample)), shipped)
    assert {result.message for result in results if not result.passed} == {
        f"sample {number} matches, but must not" for number in (1, 2, 3)
    }


def test_a_folder_without_samples_is_an_error(tmp_path, shipped):
    with pytest.raises(UsageError):
        run_samples(tmp_path, shipped)
