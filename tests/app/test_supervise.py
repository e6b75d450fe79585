"""The supervisor with real processes: back-off, what ends it and what does not, and that every death is on record."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from breachwatch.app.state import StateLayout, prepare_state
from breachwatch.app.supervise import BACK_OFF_S, PROVEN_S, STEADY_S, Child, ChildSpec, Supervisor, supervisor_command
from breachwatch.store.agent import SqliteAgentStore
from tests.conftest import FakeClock
from tests.e2e.harness import children_of, wait_until

FAILS = ChildSpec(name="fails", command=("sh", "-c", "exit 3"))
MISCONFIGURED = ChildSpec(name="hub", command=("sh", "-c", "exit 2"))
STAYS = ChildSpec(name="stays", command=("sleep", "600"))


@pytest.fixture
def layout(tmp_path: Path) -> StateLayout:
    return prepare_state(tmp_path / "state")


class Watch:
    """A supervisor whose time a test tells it."""

    def __init__(self, layout: StateLayout, *specs: ChildSpec) -> None:
        self.said: list[str] = []
        self.clock = FakeClock()
        self.supervisor = Supervisor(layout=layout, host="web01", specs=specs, clock=self.clock, say=self.said.append)
        self.supervisor._children = [Child(spec) for spec in specs]

    def care(self, now_s: float, *, ended: bool = True) -> int | None:
        """One look at the children, those that end having ended."""
        if ended:
            for child in self.supervisor._children:
                if child.process is not None:
                    child.process.wait(10)
        self.clock.advance(1)  # two deaths in one microsecond would be one record
        return self.supervisor._care(now_s)


@pytest.fixture
def records(layout: StateLayout) -> Iterator[SqliteAgentStore]:
    store = SqliteAgentStore(layout.agent_db)
    yield store
    store.close()


def actions(store: SqliteAgentStore) -> list[str]:
    return [f"{one.action}: {one.detail}" for one in store.read_signals(after=0, limit=1_000)]


def test_a_child_that_keeps_dying_starts_again_after_ever_longer_waits(
    layout: StateLayout, records: SqliteAgentStore
) -> None:
    watch = Watch(layout, FAILS)
    now_s = 100.0
    assert watch.care(now_s) is None
    (child,) = watch.supervisor._children
    for wait_s in (*BACK_OFF_S, BACK_OFF_S[-1]):
        before = child.process
        watch.care(now_s)
        assert child.restart_at == now_s + wait_s
        watch.care(now_s + wait_s - 0.01)
        assert child.process is before, "not before its time"
        now_s += wait_s
        watch.care(now_s)
        assert child.process is not before
    told = actions(records)
    assert told[0] == "child_exited: fails ended with exit code 3; restart in 1 s"
    assert told[1] == "child_restarted: fails, restart 1"
    assert len(told) == 2 * (len(BACK_OFF_S) + 1)
    assert [line.removeprefix("breachwatch run: ") for line in watch.said] == told
    assert child.process is not None
    child.process.wait(10)


def test_a_child_that_lived_long_starts_again_with_the_shortest_wait(layout: StateLayout) -> None:
    watch = Watch(layout, FAILS)
    watch.care(0.0)
    (child,) = watch.supervisor._children
    child.crashes = 4
    watch.care(STEADY_S)
    assert child.restart_at == STEADY_S + BACK_OFF_S[0]


def test_a_configuration_that_never_worked_ends_the_daemon_and_one_that_did_does_not(layout: StateLayout) -> None:
    unproven = Watch(layout, MISCONFIGURED)
    unproven.care(0.0)
    assert unproven.care(PROVEN_S - 0.1) == 2
    proven = Watch(layout, MISCONFIGURED)
    proven.care(0.0)
    assert proven.care(PROVEN_S) is None, "somebody broke the file later: the others go on watching"
    (child,) = proven.supervisor._children
    proven.care(PROVEN_S + BACK_OFF_S[0])
    assert proven.care(PROVEN_S + BACK_OFF_S[0] + 0.5) is None, "once proven, it stays so"
    assert child.crashes == 2


def test_one_child_that_dies_disturbs_no_other(layout: StateLayout, records: SqliteAgentStore) -> None:
    watch = Watch(layout, FAILS, STAYS)
    watch.care(0.0)
    fails, stays = watch.supervisor._children
    assert fails.process is not None
    assert stays.process is not None
    fails.process.wait(10)
    pid = stays.process.pid
    for now_s in (0.1, 1.2):
        watch.care(now_s, ended=False)
    assert stays.process.pid == pid
    assert stays.process.poll() is None
    stays.process.send_signal(signal.SIGKILL)
    stays.process.wait(10)
    fails.process.wait(10)
    watch.care(1.3)
    assert "child_exited: stays ended with signal SIGKILL; restart in 1 s" in actions(records)


def test_a_program_that_cannot_be_started_is_on_record_and_tried_again(
    layout: StateLayout, records: SqliteAgentStore, tmp_path: Path
) -> None:
    program = tmp_path / "program"
    watch = Watch(layout, ChildSpec(name="agent", command=(str(program),)))
    assert watch.care(0.0) is None
    assert actions(records) == ["child_not_started: agent: No such file or directory"]
    watch.care(0.5)
    assert len(actions(records)) == 1
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    watch.care(1.0)
    (child,) = watch.supervisor._children
    assert child.process is not None
    assert child.process.wait(10) == 0


def test_a_child_that_ends_before_it_reads_its_settings_does_not_end_the_supervisor(layout: StateLayout) -> None:
    spec = ChildSpec(name="agent", command=("sh", "-c", "exit 7"), stdin=b"x" * (1 << 20))
    watch = Watch(layout, spec)
    watch.care(0.0)
    watch.care(1.0)
    assert watch.said == ["breachwatch run: child_exited: agent ended with exit code 7; restart in 1 s"]


def test_what_cannot_be_recorded_is_kept_and_recorded_later_once(layout: StateLayout) -> None:
    layout.agent_db.write_bytes(b"no database\n" * 100)
    watch = Watch(layout, FAILS)
    watch.care(0.0)
    watch.care(0.1)
    watch.care(1.2)
    watch.care(1.3)
    watch.supervisor._beat()
    trouble = [line for line in watch.said if "it is tried again" in line]
    assert len(trouble) == 1, "said once"
    assert "not a database" in trouble[0]
    layout.agent_db.unlink()
    watch.supervisor._beat()
    watch.supervisor._beat()
    store = SqliteAgentStore(layout.agent_db)
    assert [one.action for one in store.read_signals(after=0, limit=100)] == [
        "child_exited", "child_restarted", "child_exited",
    ]  # fmt: skip
    store.close()


def start(layout: StateLayout, *specs: ChildSpec) -> subprocess.Popen[str]:
    settings = {
        "state_directory": str(layout.root),
        "host": "web01",
        "specs": [{"name": one.name, "command": one.command, "stdin": ""} for one in specs],
    }
    process = subprocess.Popen(supervisor_command(), stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdin is not None
    process.stdin.write(json.dumps(settings))
    process.stdin.close()
    return process


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    code = process.wait(30)
    assert process.stderr is not None
    with process.stderr as stream:
        return code, stream.read()


def test_the_whole_daemon_ends_with_two_on_a_wrong_configuration_and_takes_the_other_child_along(
    layout: StateLayout,
) -> None:
    code, text = ended(start(layout, STAYS, MISCONFIGURED))
    assert code == 2
    assert "hub ended with exit code 2" in text


def test_a_hang_up_reaches_every_child_and_a_stop_ends_them_all_cleanly(layout: StateLayout, tmp_path: Path) -> None:
    script = """
import pathlib, signal, sys, time
here = pathlib.Path(sys.argv[1])
signal.signal(signal.SIGHUP, lambda *_: here.with_suffix(".hup").touch())
signal.signal(signal.SIGTERM, lambda *_: (here.with_suffix(".term").touch(), sys.exit(0)))
here.touch()
while True:
    time.sleep(0.05)
"""
    names = ("one", "two")
    specs = [ChildSpec(name=name, command=(sys.executable, "-c", script, str(tmp_path / name))) for name in names]
    process = start(layout, *specs)
    wait_until(lambda: all((tmp_path / name).exists() for name in names), what="both run")
    children = children_of(process.pid)
    process.send_signal(signal.SIGHUP)
    wait_until(lambda: all((tmp_path / f"{name}.hup").exists() for name in names), what="both heard it")
    process.send_signal(signal.SIGTERM)
    code, text = ended(process)
    assert (code, text) == (0, "")
    assert all((tmp_path / f"{name}.term").exists() for name in names)
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)
