"""What is refused at the door: rules, playbooks, foreign state, a second daemon. Each says where and why."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from breachwatch.store.agent import SqliteAgentStore
from tests.badinput.host import a_host, failing, line, needs_root, running, said
from tests.e2e.harness import stop, wait_until
from tests.playbook.samples import TEXT

BAD_RULE = """title: Nonsense
id: 11111111-2222-4333-8444-000000000002
logsource: {product: linux}
detection:
  sel:
    CommandLine|nonsense: x
  condition: sel
"""


def test_a_rule_with_an_unknown_modifier_is_refused_by_name_and_the_rule_beside_it_works(tmp_path: Path) -> None:
    installed = a_host(tmp_path)
    bad = tmp_path / "rules" / "bad.yml"
    bad.write_text(BAD_RULE)
    log = tmp_path / "auth.log"
    log.write_text(line(1))
    refused = f"{bad}:6"
    code, text = failing(installed, "rules", "lint", str(tmp_path / "rules"))
    assert code == 1
    printed = installed.call("rules", "lint", str(tmp_path / "rules"), check=(1,))
    assert refused in printed
    assert "nonsense" in printed
    assert "1 rules fine, 1 refused" in printed
    code, text = failing(installed, "scan", str(log), "--format", "syslog", "--rules", str(tmp_path / "rules"))
    assert code == 1, "the sound rule matches"
    assert f"rule refused: {refused}" in text
    process = installed.start("agent")
    try:
        wait_until((installed.state / "agent.alive").exists, what="the agent is alive")
        store = SqliteAgentStore(installed.state / "agent.db")
        wait_until(lambda: any(one.match for one in store.read_signals(after=0, limit=100)), what="it matches")
        (record,) = [one for one in store.read_signals(after=0, limit=100) if one.action == "rule_refused"]
        store.close()
        assert refused in record.detail
        assert said(installed, ["rule_refused", refused, "nonsense"]), "the operator reads it in the log"
    finally:
        assert stop(process) == 0, installed.read_log()


def test_a_playbook_with_an_unknown_step_is_refused_with_its_line_and_no_hub_starts_on_it(tmp_path: Path) -> None:
    folder = tmp_path / "playbooks"
    folder.mkdir()
    sound = TEXT.splitlines()
    at = next(number for number, text in enumerate(sound, 1) if text.strip().startswith("- id:"))
    sound.insert(at, "  frobnicate: everything")
    (folder / "mine.yaml").write_text("\n".join(sound) + "\n")
    more = f'\n[playbooks]\ndirectories = ["{folder}"]\nuse = ["mine"]\n'
    installed = a_host(tmp_path, more=more)
    printed = installed.call("playbook", "lint", str(folder / "mine.yaml"), check=(1,))
    assert f"mine.yaml:{at + 1}" in printed
    assert "frobnicate" in printed
    code, text = failing(installed, "hub")
    assert (code, "Traceback" in text) == (2, False)
    assert f"mine.yaml:{at + 1}" in text


NOBODY = pwd.getpwnam("nobody").pw_uid


DAEMONS = [("run",), ("agent",), ("hub",)]


@needs_root
@pytest.mark.parametrize("command", [*DAEMONS, ("incident", "list"), ("notice", "list")], ids=" ".join)
def test_the_state_directory_of_another_user_is_refused_and_left_alone(tmp_path: Path, command: Sequence[str]) -> None:
    installed = a_host(tmp_path)
    installed.state.mkdir(mode=0o700)
    os.chown(installed.state, NOBODY, NOBODY)
    code, text = failing(installed, *command)
    assert (code, "Traceback" in text) == (3, False), text
    assert f"the state directory belongs to uid {NOBODY}, not to uid 0" in text
    assert "run as its owner" in text
    assert list(installed.state.iterdir()) == []


@needs_root
@pytest.mark.parametrize("command", [*DAEMONS, ("incident", "list"), ("status",)], ids=" ".join)
def test_a_state_directory_that_this_account_may_not_enter_is_one_message(
    tmp_path: Path, command: Sequence[str]
) -> None:
    installed = a_host(tmp_path)
    installed.state.mkdir(mode=0o000)
    code, text = failing(installed, *command, before=("setpriv", "--bounding-set", "-dac_override,-dac_read_search"))
    assert code == (1 if command == ("status",) else 3), text
    assert "Traceback" not in text
    if command != ("status",):
        assert "state directory: Permission denied" in text


@pytest.mark.parametrize("command", DAEMONS, ids=" ".join)
def test_two_daemons_on_one_state_directory_are_refused_and_the_first_goes_on(
    tmp_path: Path, command: Sequence[str]
) -> None:
    installed = a_host(tmp_path)
    with running(installed) as process:
        code, text = failing(installed, *command)
        assert (code, "Traceback" in text) == (3, False), text
        assert "stop it first, or set state.directory to another place" in text
        assert process.poll() is None
        assert installed.is_alive()


@needs_root
def test_a_read_only_state_directory_is_one_message(tmp_path: Path) -> None:
    installed = a_host(tmp_path)
    installed.state.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "ro,mode=0700", "tmpfs", str(installed.state)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("not tried: no read-only file system can be mounted")
    try:
        for command in DAEMONS:
            code, text = failing(installed, *command)
            assert (code, "Traceback" in text) == (3, False), text
            assert "Read-only file system" in text or "readonly" in text
    finally:
        subprocess.run(["umount", "-l", str(installed.state)], check=True)


def test_a_refused_rule_whose_file_name_is_no_utf8_is_named_and_the_agent_goes_on(tmp_path: Path) -> None:
    installed = a_host(tmp_path)
    bad = os.fsencode(tmp_path / "rules") + b"/bad\xff.yml"
    Path(os.fsdecode(bad)).write_text(BAD_RULE)
    printed = installed.call("rules", "lint", str(tmp_path / "rules"), check=(1,))
    assert "bad\\xff.yml:6" in printed
    process = installed.start("agent")
    try:
        wait_until(lambda: said(installed, ["rule_refused", "bad\\xff.yml:6"]), what="it is said")
        wait_until((installed.state / "agent.alive").exists, what="the agent is alive")
        (tmp_path / "auth.log").write_text(line(1))
        store = SqliteAgentStore(installed.state / "agent.db")
        wait_until(lambda: any(one.match for one in store.read_signals(after=0, limit=100)), what="it goes on")
        store.close()
    finally:
        assert stop(process) == 0, installed.read_log()
