"""The live comparison with the reference: an engine that errs is found out and told, and no sampled match is lost."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

import breachwatch.detect.selector
from breachwatch.app.agent import Agent, AgentSettings, LogSettings
from breachwatch.app.clock import SystemClock
from breachwatch.app.pipeline import Pipeline, SourceFormat
from breachwatch.detect.engine import Detector
from breachwatch.detect.eventview import Judge
from breachwatch.detect.load import load_rules
from breachwatch.detect.plan import Look, Plan
from breachwatch.detect.ruleset import RuleText
from breachwatch.detect.sample import Sampler
from breachwatch.model import Block, SignalKind
from breachwatch.store.agent import SqliteAgentStore

RULE = """
title: Knock
id: 11111111-2222-4333-8444-000000000088
level: high
logsource: {product: linux}
detection:
  knock: ["a strange knock"]
  condition: knock
"""
QUIET = b"Dec 10 06:55:46 web01 cron[7]: nothing to see\n"
KNOCK = b"Dec 10 06:55:47 web01 cron[7]: a strange knock\n"


def watched(sampler: Sampler) -> list[str]:
    rules = load_rules([RuleText("knock.yml", RULE)])
    now = datetime(2026, 1, 5, 12, tzinfo=UTC)
    pipeline = Pipeline(host="web01", detector=Detector(rules), now=lambda: now, sampler=sampler)
    block = Block(source="/var/log/syslog", data=QUIET * 3 + KNOCK + QUIET * 3, generation="g")
    how = SourceFormat(format="syslog")
    return [match.rule.title for _, made in pipeline.matches(block, how) for match in made]


@pytest.fixture(autouse=True)
def _sample_from_the_start(monkeypatch):
    chosen = Sampler.chosen

    def first(self, data, candidates):
        self._blocks = -1  # the place is a multiple of the block's number
        return chosen(self, data, candidates)

    monkeypatch.setattr(Sampler, "chosen", first)


def test_an_engine_that_agrees_raises_no_alarm():
    sampler = Sampler(every=1)
    assert watched(sampler) == ["Knock"]
    assert sampler.lines == 7
    assert (sampler.differences, sampler.wrong) == (0, {})


def blind(_plan, data: bytes, *_) -> Look:
    return Look(data.count(b"\n"), [])


@pytest.mark.parametrize(
    ("kind", "name", "nothing"),
    [(Plan, "look", blind), (Judge, "satisfied", lambda *_: [])],
)
def test_an_engine_that_misses_a_line_is_found_out_and_the_reference_counts(monkeypatch, kind, name, nothing):
    monkeypatch.setattr(kind, name, nothing)
    assert watched(Sampler(every=0)) == []
    sampler = Sampler(every=1)
    assert watched(sampler) == ["Knock"]
    assert sampler.differences == 1
    assert sampler.wrong == {"11111111-2222-4333-8444-000000000088": 1}


def notes(state: Path) -> dict[str, str]:
    store = SqliteAgentStore(state / "agent.db")
    said = {
        one.action: one.detail
        for one in store.read_signals(after=0, limit=1000)
        if one.kind is SignalKind.DAEMON
    }  # fmt: skip
    store.close()
    return said


def run_agent(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "knock.yml").write_text(RULE)
    log, state = tmp_path / "syslog", tmp_path / "state"
    state.mkdir(mode=0o700)
    log.write_bytes(QUIET * 3 + KNOCK)
    settings = AgentSettings(
        state_directory=str(state), host="web01", logs=(LogSettings(path=str(log), format="syslog"),),
        rule_folders=(str(tmp_path / "rules"),),
    )  # fmt: skip
    store = SqliteAgentStore(state / "agent.db", owner=True)
    try:
        agent = Agent(settings, store, SystemClock())
        agent._pipeline.sampler.every = 1
        for _ in range(5):
            agent.tick()
        agent.commit()
        agent.tick()
        agent.close()
    finally:
        store.close()
    return notes(state)


def test_a_difference_is_on_record_once_with_its_rule(tmp_path, monkeypatch):
    monkeypatch.setattr(Plan, "look", blind)
    said = run_agent(tmp_path)
    assert "11111111-2222-4333-8444-000000000088" in said["engine_differs"]
    assert "prefilter_absent" not in said


def test_an_installation_without_a_scanner_says_so_and_reads_every_line(tmp_path, monkeypatch):
    monkeypatch.setattr(breachwatch.detect.selector, "backend", lambda: "")
    said = run_agent(tmp_path)
    assert "every line is read" in said["prefilter_absent"]
