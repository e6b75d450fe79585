"""Messages from the network under the agent as it runs: without a network of its own, and to a clean end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from breachwatch.app.agent import AgentSettings, SyslogSettings
from breachwatch.model import Signal, SignalKind
from breachwatch.store.agent import SqliteAgentStore
from breachwatch.watch.syslog import ListenSpec
from tests.conftest import ROOT
from tests.e2e.harness import wait_until

MESSAGE = "<38>Oct 11 22:14:15 web01 sshd[7]: Failed password for root from 203.0.113.7 port {} ssh2"


DENIED = (
    b"<38>Oct 11 22:14:16 web01 sudo: mallory : user NOT in sudoers ; TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/sh\n"
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("without_network", [False, True])
def test_a_break_in_told_over_tcp_is_a_match_and_nothing_is_lost_at_the_end(tmp_path: Path, without_network: bool):
    port = free_port()
    settings = AgentSettings(
        state_directory=str(tmp_path / "state"),
        host="hub",
        rule_folders=(str(ROOT / "rules"),),
        syslog=(SyslogSettings(listen=ListenSpec(protocol="tcp", address="127.0.0.1", port=port)),),
        without_network=without_network and os.geteuid() == 0,
    )
    with subprocess.Popen([sys.executable, "-m", "breachwatch.app.agent"], stdin=subprocess.PIPE) as agent:
        try:
            assert agent.stdin is not None
            agent.stdin.write(msgspec.json.encode(settings))
            agent.stdin.close()
            database = tmp_path / "state" / "agent.db"
            wait_until(lambda: "rules_loaded" in actions(database), what="the agent's start")
            with socket.create_connection(("127.0.0.1", port)) as sender:
                for number in range(30):
                    sender.sendall((MESSAGE.format(number) + "\n").encode())
                wait_until(lambda: "203.0.113.7" in matched(database), what="the match")
                sender.sendall(DENIED)
            agent.send_signal(signal.SIGTERM)
            assert agent.wait(20) == 0
        finally:
            agent.kill()
    assert "mallory" in matched(database)
    if settings.without_network:
        assert actions(database) & {"network_left", "network_kept"}


def actions(database: Path) -> set[str]:
    return {signal.action for signal in signals(database)}


def matched(database: Path) -> set[str]:
    found = [item.match for item in signals(database) if item.kind is SignalKind.MATCH and item.match is not None]
    return {str(match.event.fields.get(name)) for match in found for name in ("source.ip", "user.name")}


def signals(database: Path) -> Sequence[Signal]:
    if not database.exists():
        return []
    store = SqliteAgentStore(database)
    try:
        return store.read_signals(after=0, limit=10_000)
    finally:
        store.close()


def test_a_port_that_is_taken_ends_the_agent_with_a_message(tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = ListenSpec(protocol="tcp", address="127.0.0.1", port=int(taken.getsockname()[1]))
        settings = AgentSettings(
            state_directory=str(tmp_path / "state"), host="hub", syslog=(SyslogSettings(listen=listen),)
        )
        done = subprocess.run(
            [sys.executable, "-m", "breachwatch.app.agent"], input=msgspec.json.encode(settings), capture_output=True,
            check=False, timeout=60,
        )  # fmt: skip
    assert done.returncode == 3
    assert b"cannot listen: Address already in use" in done.stderr
