"""A busy source with a process of its own gives what it gives without, and nothing is lost when the process dies."""

from __future__ import annotations

import os
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from breachwatch.app import crew as crew_module
from breachwatch.app.agent import Agent, AgentSettings, LogSettings
from breachwatch.app.clock import SystemClock
from breachwatch.app.crew import Crew
from breachwatch.app.looker import Looker, LookerError
from breachwatch.app.pipeline import Pipeline, SourceFormat
from breachwatch.detect.engine import Detector
from breachwatch.detect.load import load_rules
from breachwatch.detect.plan import Look, Scope
from breachwatch.detect.ruleset import RuleSet, RuleText
from breachwatch.detect.selector import Selector
from breachwatch.model import Block, Signal
from breachwatch.parse.rawform import FORMS
from breachwatch.store.agent import SqliteAgentStore

RULES = """
title: Shell
id: 5f0d1c4e-0000-4000-8000-000000000001
logsource: {category: process_creation, product: linux}
detection: {s: {Image|endswith: /bash, CommandLine|contains: /dev/tcp/}, condition: s}
level: high
---
title: Word
id: 5f0d1c4e-0000-4000-8000-000000000002
logsource: {product: linux}
detection: {keywords: [needle], condition: keywords}
level: low
"""
HOW = SourceFormat(format="json")
NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def rules() -> RuleSet:
    return load_rules([RuleText(source="rules.yml", text=RULES)])


def lines(count: int, start: int = 0) -> bytes:
    """Records of which one in ten matches."""
    made = []
    for number in range(start, start + count):
        record = {
            "product": "linux",
            "category": "process_creation",
            "n": number,
            "Image": "/bin/ls",
            "CommandLine": "ls",
        }
        if number % 10 == 0:
            record |= {"Image": "/bin/bash", "CommandLine": f"bash -i >& /dev/tcp/{number}"}
        if number % 31 == 0:
            record["note"] = "a \\u006eeedle" if number % 2 else "a needle"
        made.append(msgspec.json.encode(record).replace(b"\\\\u", b"\\u"))
    return b"\n".join(made) + b"\n"


def blocks(count: int = 8, size: int = 400) -> list[Block]:
    found, offset = [], 0
    for number in range(count):
        data = lines(size, number * size)
        found.append(Block(source="/var/log/x", data=data, offset=offset, generation="g"))
        offset += len(data)
    return found


def pipeline(rules: RuleSet) -> Pipeline:
    return Pipeline(host="h", detector=Detector(rules), now=lambda: NOW)


def without_help(rules: RuleSet) -> list[Signal]:
    work = pipeline(rules)
    return [one for block in blocks() for one in work.signals(block, HOW)]


class Hiring:
    """A crew whose source is busy at once."""

    def __init__(self, rules: RuleSet, folder: Path, most: int = 1) -> None:
        self.notes: list[str] = []
        self.now = 0.0
        self.crew = Crew(
            most,
            start=lambda: Looker(rules, str(folder)),
            monotonic=lambda: self.now,
            note=lambda action, detail: self.notes.append(f"{action}: {detail}"),
        )

    def busy(self, name: str) -> None:
        for _ in range(crew_module.BUSY_TIMES):
            self.crew.took(name, is_full=True)


@pytest.fixture
def hiring(rules, tmp_path):
    made = Hiring(rules, tmp_path)
    yield made
    made.crew.close()


def test_a_process_finds_what_the_agent_would(rules, hiring):
    hiring.busy("x")
    batch = hiring.crew.batch("x", blocks(), pipeline(rules), HOW)
    expected = without_help(rules)
    assert len(expected) > 300
    assert list(batch.signals()) == expected
    assert hiring.notes == []


def test_its_candidates_are_those_of_the_agent(rules, tmp_path):
    looker = Looker(rules, str(tmp_path))
    selector = Selector(rules)
    try:
        for block in blocks():
            for scope in (Scope(), Scope(any_logsource=True)):
                looker.ask(FORMS["json"], scope, block.data)
                look = selector.look(FORMS["json"], scope, block.data)
                assert looker.answer() == Look(look.lines, [(*one[:4], None) for one in look.candidates])
    finally:
        looker.close()


@pytest.mark.parametrize("after", [0, 1, 5])
def test_a_killed_process_loses_nothing(rules, hiring, after):
    hiring.busy("x")
    batch = hiring.crew.batch("x", blocks(), pipeline(rules), HOW)
    told = batch.signals()
    found = [next(told) for _ in range(after * 40)]
    os.kill(hiring.crew.pids["x"], signal.SIGKILL)
    found.extend(told)
    assert found == without_help(rules)
    assert [note.partition(":")[0] for note in hiring.notes] == ["looker_lost"]
    hiring.busy("x")
    assert not hiring.crew.has("x")
    hiring.now += crew_module.BACK_OFF_S
    hiring.busy("x")
    assert hiring.crew.has("x")


@pytest.mark.timeout(30)
def test_a_process_that_takes_nothing_does_not_hold_the_agent_up(rules, hiring, monkeypatch):
    """A block that is larger than what a pipe takes."""
    monkeypatch.setattr("breachwatch.app.looker.ANSWER_S", 0.2)
    large = [Block(source="/var/log/x", data=lines(9_000), generation="g")]
    hiring.busy("x")
    os.kill(hiring.crew.pids["x"], signal.SIGSTOP)
    found = list(hiring.crew.batch("x", large, pipeline(rules), HOW).signals())
    assert found == list(pipeline(rules).signals(large[0], HOW))
    assert "takes nothing" in hiring.notes[0]


def test_an_answer_to_another_question_is_none(rules, tmp_path):
    looker = Looker(rules, str(tmp_path))
    try:
        for block in blocks()[:2]:
            looker.ask(FORMS["json"], Scope(), block.data)
        with pytest.raises(LookerError, match="another question"):
            looker.answer()
    finally:
        looker.close()


def test_a_process_that_says_nothing_is_given_up(rules, hiring, monkeypatch):
    monkeypatch.setattr("breachwatch.app.looker.ANSWER_S", 0.2)
    hiring.busy("x")
    os.kill(hiring.crew.pids["x"], signal.SIGSTOP)
    assert list(hiring.crew.batch("x", blocks(2), pipeline(rules), HOW).signals())
    assert "no answer" in hiring.notes[0]


def test_there_are_no_more_processes_than_the_budget_and_quiet_sources_give_theirs_back(hiring):
    hiring.crew.took("a", is_full=True)
    hiring.crew.took("a", is_full=False)
    assert not hiring.crew.has("a")
    hiring.busy("a")
    hiring.busy("b")
    assert list(hiring.crew.pids) == ["a"]
    pid = hiring.crew.pids["a"]
    hiring.now = crew_module.QUIET_S / 2
    hiring.crew.took("a", is_full=False)
    assert hiring.crew.has("a")
    hiring.now = crew_module.QUIET_S + 1
    hiring.crew.took("a", is_full=False)
    assert not hiring.crew.has("a")
    assert not Path(f"/proc/{pid}").exists()
    hiring.busy("b")
    assert list(hiring.crew.pids) == ["b"]


def test_a_process_that_cannot_be_started_is_done_without(rules, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    hiring = Hiring(rules, tmp_path)
    hiring.busy("x")
    assert not hiring.crew.has("x")
    assert "cannot be started" in hiring.notes[0]
    with pytest.raises(LookerError):
        Looker(rules, str(tmp_path))


def test_an_agent_whose_process_is_killed_all_the_time_stores_every_match_once(tmp_path, monkeypatch):
    """Real files and a real store; the process dies at whatever moment."""
    monkeypatch.setattr("breachwatch.app.agent.BATCH_BYTES", 100_000)
    monkeypatch.setattr(crew_module, "BUSY_TIMES", 1)
    monkeypatch.setattr(crew_module, "BACK_OFF_S", 0.0)
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "r.yml").write_text(RULES)
    log, other = tmp_path / "app.json", tmp_path / "other.json"
    log.write_bytes(lines(10_000))
    other.write_bytes(lines(10_000, 10_000))
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    settings = AgentSettings(
        state_directory=str(state),
        host="h",
        logs=(  # of one name
            LogSettings(path=str(tmp_path / "*.json"), exclude=(str(log),), format="json"),
            LogSettings(path=str(tmp_path / "*.json"), exclude=(str(other),), format="json"),
        ),
        rule_folders=(str(tmp_path / "rules"),),
        processes=2,
    )
    store = SqliteAgentStore(state / "agent.db", owner=True)
    agent = Agent(settings, store, SystemClock())
    killed = 0
    try:
        deadline = time.monotonic() + 60
        while agent.tick() and time.monotonic() < deadline:
            for pid in agent.crew.pids.values():
                if killed < 5:
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
        agent.commit()
        said: list[Signal] = []
        while batch := store.read_signals(after=said[-1].seq if said else 0, limit=500):
            said.extend(batch)
    finally:
        agent.close()
        store.close()
    found = [(one.match.rule.title, one.match.event.fields["n"]) for one in said if one.match is not None]
    expected = [("Shell", n) for n in range(0, 20_000, 10)] + [("Word", n) for n in range(0, 20_000, 31)]
    assert sorted(found) == sorted(expected)
    assert killed == 5
    assert sum(one.action == "looker_lost" for one in said) == 5
