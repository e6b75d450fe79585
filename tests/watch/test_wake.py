"""Kernel events are hints: they make reading soon, and their absence never makes it late by more than a second."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from breachwatch.watch.wake import _EVENT, IN_Q_OVERFLOW, Wake
from tests.conftest import ROOT


@pytest.fixture
def wake():
    made = Wake()
    made.names_changed = False
    yield made
    made.close()


def test_a_growing_file_wakes_and_its_names_stay_known(tmp_path, wake):
    log = tmp_path / "a.log"
    log.touch()
    assert wake.watch([tmp_path]) == {}
    assert not wake.wait(0)
    with log.open("ab") as file:
        file.write(b"x\n")
    assert wake.wait(5)
    assert not wake.names_changed


@pytest.mark.parametrize("act", ["create", "rename", "delete"])
def test_names_that_change_are_told(tmp_path, wake, act: str):
    log = tmp_path / "a.log"
    log.touch()
    wake.watch([tmp_path])
    match act:
        case "create":
            (tmp_path / "b.log").touch()
        case "rename":
            log.rename(tmp_path / "a.log.1")
        case "delete":
            log.unlink()
    assert wake.wait(5)
    assert wake.names_changed


def test_a_folder_that_is_replaced_is_watched_again(tmp_path, wake):
    folder = tmp_path / "logs"
    folder.mkdir()
    wake.watch([folder])
    folder.rename(tmp_path / "old")
    assert wake.wait(5)
    assert wake.names_changed
    folder.mkdir()
    wake.watch([folder])
    wake.wait(0)
    (folder / "a.log").touch()
    assert wake.wait(5)


def test_a_folder_that_cannot_be_watched_is_named_with_the_reason(tmp_path, wake):
    (tmp_path / "file").touch()
    failed = wake.watch([tmp_path / "missing", tmp_path / "file"])
    assert failed == {
        tmp_path / "missing": "No such file or directory",
        tmp_path / "file": "Not a directory",
    }


def test_an_overflow_of_the_kernels_queue_means_that_any_name_may_have_changed(wake):
    ours, theirs = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    wake._poll.register(ours)  # the kernel's queue holds 16,384 events: overflow it by hand
    wake._inotify = ours
    try:
        os.write(theirs, _EVENT.pack(-1, IN_Q_OVERFLOW, 0, 0))
        assert wake.wait(5)
        assert wake.names_changed
    finally:
        os.close(theirs)


def test_a_real_overflow_is_told(tmp_path, wake):
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 100_000:
        pytest.skip(f"the kernel's queue holds {limit} events here: too many to fill in a test")
    paths = [tmp_path / f"{number}" for number in range(4)]
    descriptors = [os.open(path, os.O_WRONLY | os.O_CREAT) for path in paths]
    wake.watch([tmp_path])
    for number in range(limit + 200):
        os.write(descriptors[number % 4], b"x")  # the same event twice in a row is merged
    for descriptor in descriptors:
        os.close(descriptor)
    assert wake.wait(5)
    assert wake.names_changed


def test_another_thread_and_a_signal_handler_wake(wake):
    thread = threading.Thread(target=wake.set)
    thread.start()
    assert wake.wait(5)
    thread.join()
    assert not wake.wait(0)
    before = signal.signal(signal.SIGUSR1, lambda *_: wake.set())
    try:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        assert wake.wait(5)
    finally:
        signal.signal(signal.SIGUSR1, before)


AGENT = """
import sys, threading, time
from pathlib import Path
from breachwatch.app.agent import AgentSettings, LogSettings, serve
from breachwatch.app.process import Asked
from breachwatch.store.agent import SqliteAgentStore
from breachwatch.watch.wake import Wake

root = Path(sys.argv[1])
asked, wake = Asked(), Wake()
settings = AgentSettings(
    state_directory=str(root / "state"), host="web01", rule_folders=(str(root / "rules"),),
    logs=(LogSettings(path=str(root / "log" / "*.log"), format="syslog"),),
)
def watch():
    store, told, deadline = None, set(), time.monotonic() + 20
    written = False
    while time.monotonic() < deadline:
        time.sleep(0.05)
        if not (root / "state" / "agent.db").exists():
            continue
        store = store or SqliteAgentStore(root / "state" / "agent.db")
        signals = store.read_signals(after=0, limit=1000)
        told = {item.action or str(item.kind) for item in signals}
        if "rules_loaded" in told and not written:
            written = True
            with (root / "log" / "a.log").open("a") as log:
                log.write("Jan  5 08:00:00 web01 torture[7]: number=1\\n")
        if {"folder_polled", "match"} <= told:
            break
    print(sorted(told))
    store.close()
    asked.stop = True
    wake.set()
watcher = threading.Thread(target=watch)
watcher.start()
serve(settings, asked=asked, wake=wake)
watcher.join()
"""

RULE = """
title: Every line
id: 7b1f2f0e-1d4b-4d59-9a53-0d4c7f0a1b2c
level: low
logsource: {product: linux}
detection:
  numbered: ["number="]
  condition: numbered
"""


def test_without_a_single_inotify_watch_logs_are_polled_and_the_operator_is_told(tmp_path):
    """A user namespace has limits of its own: the host's stay as they are."""
    allowed = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-c", "echo 0 > /proc/sys/user/max_inotify_watches"],
        check=False, capture_output=True,
    )  # fmt: skip
    if allowed.returncode != 0:
        pytest.skip("user namespaces are not allowed here: the limit of inotify cannot be lowered for one process")
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "all.yml").write_text(RULE)
    (tmp_path / "log").mkdir()
    script = tmp_path / "agent.py"
    script.write_text(textwrap.dedent(AGENT))
    inside = 'echo 0 > /proc/sys/user/max_inotify_watches && exec "$0" "$@"'
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-c", inside, sys.executable, str(script), str(tmp_path)],
        capture_output=True, text=True, cwd=ROOT, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "folder_polled" in done.stdout
    assert "match" in done.stdout


def test_waiting_ends_in_time_when_nothing_happens(wake):
    begin = time.monotonic()
    assert not wake.wait(0.05)
    assert 0.04 < time.monotonic() - begin < 5


def test_the_kernel_names_what_grew_whatever_the_name(tmp_path, wake):
    odd = [os.fsencode(tmp_path) + b"/" + name for name in (b"a.log", b"caf\xe9.log", b"line\nfeed.log")]
    descriptors = [os.open(path, os.O_WRONLY | os.O_CREAT) for path in odd]
    wake.watch([tmp_path])
    for descriptor in descriptors:
        os.write(descriptor, b"x\n")
        os.close(descriptor)
    assert wake.wait(5)
    assert wake.take_grown() == {os.fsdecode(path) for path in odd}
    assert wake.take_grown() == set()
