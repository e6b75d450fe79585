"""`breachwatch run` as an operator has it: the same incidents as a scan, reload, crash, stop, one owner."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.harness import COMMAND, Installation, children_of, command_line, stop, wait_until

LOG = """
[[watch.logs]]
path = "{log}"
format = "{form}"

[rules]
directories = ["{rules}"]
"""

RULE = """
title: {title}
id: 11111111-2222-4333-8444-{number:012d}
level: high
logsource: {{product: linux, service: sshd}}
detection:
  sel: ["{word}"]
  condition: sel
custom: {{}}
"""


def installation(tmp_path: Path, log: Path, form: str = "syslog") -> Installation:
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "own.yml").write_text(RULE.format(title="Own", number=1, word="first-word"))
    log.touch()
    return Installation(tmp_path, LOG.format(log=log, rules=rules, form=form))


def addresses(shared_data: Path, sample: Path) -> set[str]:
    """Whom the sample's incidents have to name: the labelled brute force, or everybody who was refused a listing."""
    labels = json.loads((shared_data / "loghub" / "bruteforce.json").read_text())["sets"]
    if sample.name in labels:
        return set(labels[sample.name]["must_alert"])
    text = sample.read_text()
    return set(re.findall(r"client ([0-9.]+)\] Directory index forbidden", text))


def entities(items: list[dict[str, object]]) -> set[str]:
    found: set[str] = set()
    for item in items:
        names = item["entities"]
        assert isinstance(names, dict)
        found.update(names["source.ip"])
    return found


def ready(installed: Installation) -> None:
    wait_until(installed.is_alive, what="agent and hub are alive")


@pytest.mark.parametrize(("name", "form"), [("OpenSSH", "syslog"), ("Apache", "apache")])
def test_the_daemon_finds_what_a_scan_finds(tmp_path: Path, shared_data: Path, name: str, form: str) -> None:
    sample = shared_data / "loghub" / f"{name}_2k.log"
    log = tmp_path / "watched.log"
    installed = installation(tmp_path, log, form)
    wanted_addresses = addresses(shared_data, sample)
    scanned = [item for item in installed.json("scan", str(sample), "--format", form, check=(1,))
               if item["kind"] == "incident"]  # fmt: skip
    process = installed.start("run")
    try:
        ready(installed)
        with log.open("ab") as file:
            file.write(sample.read_bytes() + b"\n")
        wanted = {(str(item["title"]), item["count"]) for item in scanned}

        def same() -> bool:
            found = installed.json("incident", "list")
            return {(str(item["title"]), item["count"]) for item in found} == wanted

        wait_until(same, timeout_s=60, what="the same incidents as the scan")
        assert entities(installed.json("incident", "list")) == entities(scanned) == wanted_addresses
    finally:
        assert stop(process) == 0, installed.read_log()
    installed.call("audit", "verify")


def test_a_broken_rule_keeps_the_old_set_and_a_sound_one_takes_its_place(tmp_path: Path) -> None:
    log = tmp_path / "auth.log"
    installed = installation(tmp_path, log)
    process = installed.start("run")
    try:
        ready(installed)
        own = tmp_path / "rules" / "own.yml"
        own.write_text("title: broken\ndetection: {sel: {a|nonsense: 1}, condition: sel}\n")
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: "daemon.rules_kept" in trail_types(installed), what="the broken file is refused")
        own.write_text(RULE.format(title="Second", number=2, word="second-word"))
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: "daemon.rules_reloaded" in trail_types(installed), what="the sound file is taken")
        with log.open("a") as file:
            file.write("Jan  5 08:00:00 web01 sshd[1]: second-word from 203.0.113.9\n")
        wait_until(lambda: [i["title"] for i in installed.json("incident", "list")] == ["Second"], what="it matches")
    finally:
        assert stop(process) == 0, installed.read_log()


def trail_types(installed: Installation) -> dict[str, int]:
    (report,) = installed.json("audit", "verify", check=(0, 3))
    types = report["types"]
    assert isinstance(types, dict)
    return types


def test_a_killed_child_is_restarted_and_that_is_on_record(tmp_path: Path) -> None:
    installed = installation(tmp_path, tmp_path / "auth.log")
    process = installed.start("run")
    try:
        ready(installed)
        hub = next(pid for pid in children_of(process.pid) if "hub" in command_line(pid))
        os.kill(hub, signal.SIGKILL)
        wait_until(lambda: "daemon.child_restarted" in trail_types(installed), what="the restart is in the trail")
        assert "daemon.child_exited" in trail_types(installed)
    finally:
        assert stop(process) == 0, installed.read_log()


def test_children_die_with_their_supervisor(tmp_path: Path) -> None:
    installed = installation(tmp_path, tmp_path / "auth.log")
    process = installed.start("run")
    ready(installed)
    children = children_of(process.pid)
    assert len(children) == 2
    process.kill()
    process.wait(10)
    wait_until(lambda: not any(Path(f"/proc/{pid}/stat").exists() and "breachwatch" in command_line(pid)
                               for pid in children), what="the children end")  # fmt: skip


def test_a_second_daemon_on_one_state_directory_is_refused(tmp_path: Path) -> None:
    installed = installation(tmp_path, tmp_path / "auth.log")
    process = installed.start("run")
    try:
        ready(installed)
        second = subprocess.run(
            [*COMMAND, "--config", str(installed.config), "run"], capture_output=True, text=True, timeout=30
        )
        assert second.returncode == 3
        assert "already runs on this state directory" in second.stderr
    finally:
        assert stop(process) == 0, installed.read_log()


def test_a_broken_playbook_is_one_clear_message_and_exit_code_two(tmp_path: Path) -> None:
    installed = installation(tmp_path, tmp_path / "auth.log")
    folder = tmp_path / "playbooks"
    folder.mkdir()
    (folder / "mine.yaml").write_text("playbook: mine\nversion: 1\ntitle: x\nfrobnicate: 1\n")
    text = installed.config.read_text() + f'\n[playbooks]\ndirectories = ["{folder}"]\nuse = ["mine"]\n'
    installed.config.write_text(text)
    started = time.monotonic()
    process = installed.start("run")
    assert process.wait(30) == 2
    assert time.monotonic() - started < 25
    assert "mine.yaml:4" in installed.read_log()


@pytest.mark.timeout(90)
def test_the_demo_plays_its_story(tmp_path: Path) -> None:
    done = subprocess.run([*COMMAND, "demo"], capture_output=True, text=True, timeout=80,
                          env={**os.environ, "TMPDIR": str(tmp_path)})  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the audit trail verifies" in done.stdout
    assert "customers: 5 accepted, 1 failed" in done.stdout
    assert list(tmp_path.glob("breachwatch-demo-*/received/mail/*.eml"))
