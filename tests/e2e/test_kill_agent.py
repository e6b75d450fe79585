"""kill -9 of the agent at random moments while a log grows and is rotated: nothing lost, nothing twice."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from breachwatch.app.agent import AgentSettings, LogSettings
from breachwatch.config.shipped import shipped_folder
from breachwatch.model import SignalKind
from breachwatch.store.agent import SqliteAgentStore
from tests.e2e.harness import COMMAND, wait_until

KILLS = 50
ROTATE_AFTER = (15, 35)
"""Kills after which the log is renamed and a new one begins."""


def line(number: int) -> str:
    """Six attempts from one address, then the next: each address makes one match."""
    stamp = f"Jan  5 {8 + number // 3600:02d}:{number // 60 % 60:02d}:{number % 60:02d}"
    address = f"203.0.113.{number // 6 % 200 + 1}"
    return f"{stamp} web01 sshd[{1000 + number}]: Failed password for root from {address} port {40000 + number} ssh2\n"


def start(settings: AgentSettings) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "breachwatch.app.agent"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdin is not None
    process.stdin.write(msgspec.json.encode(settings))
    process.stdin.close()
    return process


def matches(state: Path) -> list[str]:
    """Ids of all match signals, in order."""
    store = SqliteAgentStore(state / "agent.db")
    try:
        signals = store.read_signals(after=0, limit=1_000_000)
    finally:
        store.close()
    return [signal.id for signal in signals if signal.kind is SignalKind.MATCH]


@pytest.mark.timeout(300)
@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("LONG_TESTS"), reason="long: set LONG_TESTS=1")
def test_fifty_kills_lose_no_match_and_repeat_none(tmp_path: Path) -> None:
    log, state = tmp_path / "auth.log", tmp_path / "state"
    log.touch()
    settings = AgentSettings(
        state_directory=str(state),
        host="web01",
        logs=(LogSettings(path=str(log), format="syslog"),),
        rule_folders=(str(shipped_folder("rules")),),
    )
    chance = random.Random(5)
    number, written = 0, [log]
    for kill in range(KILLS):
        process = start(settings)
        deadline = time.monotonic() + chance.uniform(0.1, 1.6)
        while time.monotonic() < deadline:
            with log.open("a") as file:
                for _ in range(chance.randrange(1, 6)):
                    file.write(line(number))
                    number += 1
            time.sleep(0.02)
        process.kill()
        process.wait()
        if kill in ROTATE_AFTER:
            old = log.with_name(f"auth.log.{len(written)}")
            log.rename(old)
            written.insert(0, old)
            log.touch()
    process = start(settings)
    expected = scanned(tmp_path, written)
    try:
        wait_until(lambda: len(matches(state)) >= len(expected), timeout_s=60, what="every match is stored")
    finally:
        process.terminate()
        assert process.wait(30) == 0
    found = matches(state)
    assert len(found) == len(set(found)), "a match was stored twice"
    assert set(found) == expected
    assert len(expected) > KILLS


def scanned(folder: Path, written: list[Path]) -> set[str]:
    """What an uninterrupted scan of all bytes finds; its ids come from content, so they are the same."""
    whole = folder / "whole" / "auth.log"
    whole.parent.mkdir()
    whole.write_bytes(b"")
    ids: set[str] = set()
    # a rotated file is a life of its own, so each is scanned under its own name, oldest first, as one log
    ordered = sorted((path for path in written if path.name != "auth.log"), key=lambda path: int(path.suffix[1:]))
    for age, path in enumerate([*ordered, written[-1] if written[-1].name == "auth.log" else folder / "auth.log"]):
        last = age == len(ordered)
        copy = whole if last else whole.with_name(f"auth.log.{len(ordered) - age}")
        copy.write_bytes(path.read_bytes())
        os.utime(copy)
    done = subprocess.run(
        [*COMMAND, "scan", str(whole.parent), "--format", "syslog", "--host", "web01", "--json"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    for item in map(json.loads, done.stdout.splitlines()):
        if item["kind"] == "match":
            ids.add(item["id"])
    return ids
