"""An audit event whose parts come before and after a `kill -9` of the agent is one event with all of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec

from breachwatch.app.agent import AgentSettings, LogSettings
from breachwatch.model import Match
from breachwatch.store.agent import SqliteAgentStore
from tests.e2e.harness import wait_until

RULE = """
title: Anything that is started
id: 7b1f2f0e-1d4b-4d59-9a53-0d4c7f0a1b2c
level: low
logsource: {product: linux, category: process_creation}
detection:
  started:
    CommandLine|contains: secret
    Image|endswith: /bash
  condition: started
"""

PARTS = """\
type=SYSCALL msg=audit({at}:487): arch=c000003e syscall=59 success=yes ppid=2 pid=3 uid=0 comm="sh" exe="/bin/bash"
type=EXECVE msg=audit({at}:487): argc=3 a0="sh" a1="-c" a2=636174207365637265742E747874
type=CWD msg=audit({at}:487): cwd="/root"
type=PROCTITLE msg=audit({at}:487): proctitle=7368002D6300
"""


class Watching:
    def __init__(self, root: Path) -> None:
        (root / "rules").mkdir()
        (root / "rules" / "one.yml").write_text(RULE)
        self.log = root / "audit.log"
        self.log.touch()
        self.database = root / "state" / "agent.db"
        self.settings = AgentSettings(
            state_directory=str(root / "state"), host="web01", rule_folders=(str(root / "rules"),),
            logs=(LogSettings(path=str(self.log), format="auditd"),),
        )  # fmt: skip

    def start(self) -> subprocess.Popen[bytes]:
        agent = subprocess.Popen([sys.executable, "-m", "breachwatch.app.agent"], stdin=subprocess.PIPE)
        assert agent.stdin is not None
        agent.stdin.write(msgspec.json.encode(self.settings))
        agent.stdin.close()
        return agent

    def offset(self) -> int:
        return max((known.offset for known in self._read(lambda store: store.checkpoints().values())), default=0)

    def matches(self) -> list[Match]:
        return [item.match for item in self._read(lambda store: store.read_signals(after=0, limit=99)) if item.match]

    def _read(self, ask):
        if not self.database.exists():
            return []
        store = SqliteAgentStore(self.database)
        try:
            return list(ask(store))
        finally:
            store.close()

    def append(self, text: str) -> None:
        with self.log.open("a") as log:
            log.write(text)


def test_parts_before_and_after_a_kill_become_one_event(tmp_path: Path):
    watching = Watching(tmp_path)
    first, second, *rest = PARTS.format(at="1783414661.350").splitlines(keepends=True)
    watching.append(first + second)
    agent = watching.start()
    try:
        wait_until(lambda: watching.offset() == len(first + second), what="the first parts are read")
    finally:
        agent.kill()
        agent.wait()
    found_before = watching.matches()
    watching.append("".join(rest))
    agent = watching.start()
    try:
        wait_until(lambda: bool(watching.matches()), what="the match")
    finally:
        agent.kill()
        agent.wait()
    if not found_before:  # else two seconds went by before the kill, and the event was told without its end
        [match] = watching.matches()
        assert match.event.fields["process.command_line"] == "sh -c cat secret.txt"
        assert match.event.fields["process.working_directory"] == "/root"
        assert match.event.raw.count("\n") == 3
    assert len({match.event.id for match in watching.matches()}) == 1
