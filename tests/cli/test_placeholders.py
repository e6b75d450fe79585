"""Placeholders of the configuration reach every command that reads rules, and a rule without them says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.run import run

RULE = """
title: An administrator logs in
id: 11111111-2222-4333-8444-000000000003
level: high
logsource: {product: linux, service: sshd}
detection:
  sel: {user.name|expand: '%admins%'}
  condition: sel
"""

LOG = (
    "Jan  5 08:00:00 web01 sshd[1]: Accepted password for deploy from 203.0.113.7 port 4711 ssh2\n"
    "Jan  5 08:00:01 web01 sshd[1]: Accepted password for guest from 203.0.113.7 port 4711 ssh2\n"
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "own.yml").write_text(RULE)
    (tmp_path / "auth.log").write_text(LOG)
    (tmp_path / "breachwatch.toml").write_text('[rules]\nplaceholders = {admins = ["root", "deploy"]}\n')
    return tmp_path


def test_a_scan_and_the_rules_commands_use_the_placeholders_of_the_configuration(place: Path) -> None:
    config, rules, log = place / "breachwatch.toml", str(place / "own.yml"), str(place / "auth.log")
    done = run(config, "scan", log, "--rules", rules, "--json")
    matched = [item["event"] for item in done.objects() if item["kind"] == "match"]
    assert [event["user.name"] for event in matched] == ["deploy"]  # type: ignore[index]
    assert run(config, "rules", "lint", rules).code == 0
    assert len(run(config, "rules", "list", "--rules", rules, "--json").objects()) == 1
    explained = run(config, "rules", "explain", "11111111-2222-4333-8444-000000000003", log, "--rules", rules, "--json")
    assert [item["matches"] for item in explained.objects()] == [True, False]
    assert run(config, "rules", "verify", log, "--rules", rules).code == 0


def test_a_rule_whose_placeholder_has_no_value_is_refused_by_name(place: Path) -> None:
    (place / "breachwatch.toml").write_text("")
    done = run(place / "breachwatch.toml", "rules", "lint", str(place / "own.yml"))
    assert done.code == 1
    assert "admins" in done.out
    assert "0 rules fine, 1 refused" in done.out


def test_the_environment_counts_without_a_configuration(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BREACHWATCH_RULES__PLACEHOLDERS", json.dumps({"admins": ["deploy"]}))
    assert run(None, "scan", str(place / "auth.log"), "--rules", str(place / "own.yml")).code == 1


def test_a_wrong_configuration_is_said_and_not_scanned_around(place: Path) -> None:
    (place / "breachwatch.toml").write_text("[rules]\nplaceholder = {}\n")
    done = run(place / "breachwatch.toml", "scan", str(place / "auth.log"), "--rules", str(place / "own.yml"))
    assert done.code == 2
    assert "breachwatch.toml:2" in done.err
