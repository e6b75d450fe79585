"""One host for hostile input: a real installation with a rule of its own, and what it found."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.harness import COMMAND, Installation, stop, wait_until

RULE_ID = "11111111-2222-4333-8444-000000000001"

RULE = f"""
title: Marker
id: {RULE_ID}
level: high
logsource: {{product: linux, service: sshd}}
detection:
  sel: ["marker-word"]
  condition: sel
"""

CONFIG = """
[[watch.logs]]
path = "{log}"
format = "{form}"

[rules]
shipped = false
directories = ["{rules}"]
"""


def line(number: int) -> str:
    """A line that the rule matches."""
    return f"Jan  5 08:00:00 web01 sshd[{number}]: marker-word number {number}\n"


def a_host(root: Path, *, form: str = "syslog", more: str = "") -> Installation:
    """An installation that watches `root/auth.log`."""
    rules, log = root / "rules", root / "auth.log"
    rules.mkdir()
    (rules / "own.yml").write_text(RULE)
    log.touch()
    return Installation(root, CONFIG.format(log=log, rules=rules, form=form) + more)


@contextmanager
def running(installed: Installation, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """The daemon, alive; afterwards it has to stop cleanly."""
    process = installed.start(*command or ("run",))
    try:
        wait_until(installed.is_alive, what="agent and hub are alive")
        yield process
    finally:
        code = stop(process)
    assert code == 0, installed.read_log()


def found(installed: Installation) -> list[str]:
    """Incidents as (title, count), newest first."""
    return [f"{item['title']} {item['count']}" for item in installed.json("incident", "list")]


def trail_types(installed: Installation) -> dict[str, int]:
    """How many entries of each type the trail holds; it has to verify."""
    (report,) = installed.json("audit", "verify")
    types = report["types"]
    assert isinstance(types, dict)
    return types


def failing(installed: Installation, *command: str, before: Sequence[str] = ()) -> tuple[int, str]:
    """Exit code and what was said on standard error; `before` is put before the command."""
    done = subprocess.run(
        [*before, *COMMAND, "--config", str(installed.config), *command],
        capture_output=True,
        text=True,
        env=installed.env,
        timeout=60,
    )
    return done.returncode, done.stderr


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="not tried: needs root, for accounts and mounts")


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of this size; skips where this account may not mount one."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"not tried: no small file system can be mounted: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Take the last byte of a small disk; gives the file to delete."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while file.write(b"\0" * size):
                    pass
            except OSError:
                continue
    return ballast


def said(installed: Installation, words: Sequence[str]) -> bool:
    """Whether all of this stands in the daemon's log."""
    text = installed.log.read_text(encoding="utf-8", errors="replace") if installed.log.exists() else ""
    return all(word in text for word in words)
