"""Rules change while a log is written without a pause: no line is lost, none is told twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.harness import Installation, children_of, command_line, stop, wait_until

LOG = """
[[watch.logs]]
path = "{log}"
format = "syslog"

[rules]
directories = ["{rules}"]
shipped = false
"""

RULE = """
title: Marked
id: 11111111-2222-4333-8444-000000000001
level: high
logsource: {product: linux, service: sshd}
detection:
  sel: ["marked-line"]
  condition: sel
breachwatch:
  group_by: [host.name]
"""

OTHER = """
title: Version {number}
id: 11111111-2222-4333-8444-000000000002
level: low
logsource: {{product: linux, service: sshd}}
detection:
  sel: ["never-{number}"]
  condition: sel
"""

WRITER = """
import sys, time
log, running = open(sys.argv[1], "ab", buffering=0), sys.argv[2]
import os
number = 0
while os.path.exists(running):
    number += 1
    log.write(b"Jan  5 08:00:00 web01 sshd[1]: Failed password for x from 203.0.113.9 port %d ssh2\\n" % number)
    if number % 50 == 0:
        log.write(b"Jan  5 08:00:00 web01 sshd[1]: marked-line %d from 203.0.113.9\\n" % number)
        time.sleep(0.002)  # a busy log, not a flood: the agent has to keep up on a loaded machine
print(number // 50)
"""

RELOADS = 4


def counts(installed: Installation) -> dict[str, int]:
    (report,) = installed.json("audit", "verify", check=(0, 3))
    types = report["types"]
    assert isinstance(types, dict)
    return types


@pytest.mark.timeout(180)
def test_reloads_beside_a_writer_that_never_pauses_lose_no_line_and_tell_none_twice(tmp_path: Path) -> None:
    log, rules, running = tmp_path / "auth.log", tmp_path / "rules", tmp_path / "running"
    rules.mkdir()
    (rules / "marked.yml").write_text(RULE)
    (rules / "other.yml").write_text(OTHER.format(number=0))
    log.touch()
    running.touch()
    installed = Installation(tmp_path, LOG.format(log=log, rules=rules))
    process = installed.start("run")
    writer = None
    try:
        wait_until(installed.is_alive, what="agent and hub are alive")
        agent = next(pid for pid in children_of(process.pid) if "agent" in command_line(pid))
        writer = subprocess.Popen([sys.executable, "-c", WRITER, log, running], stdout=subprocess.PIPE)
        for number in range(1, RELOADS + 1):
            (rules / "other.yml").write_text(OTHER.format(number=number))
            process.send_signal(signal.SIGHUP)
            wait_until(lambda want=number: counts(installed).get("daemon.rules_reloaded", 0) >= want,  # type: ignore[misc]
                       timeout_s=60, what=f"reload {number} is on record")  # fmt: skip
        running.unlink()
        written = int(writer.communicate(timeout=30)[0])
        assert written > 100  # it wrote all along

        def told() -> int:
            found = [item for item in installed.json("incident", "list") if item["title"] == "Marked"]
            return sum(int(str(item["count"])) for item in found)

        deadline = time.monotonic() + 60
        while told() < written and time.monotonic() < deadline:
            time.sleep(0.2)
        assert told() == written
        assert agent in children_of(process.pid)  # one and the same agent: nothing was made good by a restart
    finally:
        running.unlink(missing_ok=True)
        if writer is not None:
            writer.kill()
            writer.wait(10)
        assert stop(process) == 0, installed.read_log()
    assert json.dumps(counts(installed)).count("rules_kept") == 0
