"""A real `breachwatch` installation in a temporary folder: configuration, processes, command line."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

COMMAND = (sys.executable, "-m", "breachwatch")


def wait_until(condition: Callable[[], bool], *, timeout_s: float = 30.0, what: str = "condition") -> None:
    """Poll a condition; fails loudly when it does not come true."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"{what} did not come true within {timeout_s:.0f} s")


@dataclass
class Installation:
    """One state directory with its configuration file."""

    root: Path
    config_text: str = ""
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.config = self.root / "breachwatch.toml"
        self.state = self.root / "state"
        self.log = self.root / "stderr.log"
        self.write_config(self.config_text)

    def write_config(self, text: str) -> None:
        head = f'[state]\ndirectory = "{self.state}"\n\n[host]\nname = "web01"\n\n'
        self.config.write_text(head + text, encoding="utf-8")
        self.config.chmod(0o600)

    @property
    def env(self) -> Mapping[str, str]:
        return {**os.environ, **self.environment, "PYTHONUNBUFFERED": "1"}

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a daemon in its own process group."""
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*COMMAND, "--config", str(self.config), *command],
                stdout=log,
                stderr=log,
                env=self.env,
                start_new_session=True,
            )

    def call(self, *command: str, check: Sequence[int] = (0,), stdin: str = "") -> str:
        """Run one command to its end; returns standard output."""
        done = subprocess.run(
            [*COMMAND, "--config", str(self.config), *command],
            capture_output=True,
            text=True,
            env=self.env,
            input=stdin,
            timeout=120,
        )
        assert done.returncode in check, (
            f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.read_log()}"
        )
        return done.stdout

    def json(self, *command: str, check: Sequence[int] = (0,)) -> list[dict[str, object]]:
        """Run one command with --json; returns its objects."""
        return [json.loads(line) for line in self.call(*command, "--json", check=check).splitlines()]

    def read_log(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-4000:] if self.log.exists() else ""

    def is_alive(self) -> bool:
        return all((self.state / f"{name}.alive").exists() for name in ("agent", "hub"))


def stop(process: subprocess.Popen[bytes], *, timeout_s: float = 30.0) -> int:
    """Ask a daemon to stop cleanly; returns its exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    return process.wait(timeout_s)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """kill -9 of a daemon and all its children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)


def children_of(pid: int) -> list[int]:
    """Direct children of a process."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [int(child) for child in found]


def command_line(pid: int) -> str:
    """How a process was started."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
